"""Data sets: readers of images and their ground truth, and datasets of graphs built from them."""

from graphseg.datasets.ade20k import ADE20K
from graphseg.datasets.cityscapes import Cityscapes
from graphseg.datasets.coco_stuff import CocoStuff
from graphseg.datasets.folder import ImageFolder, count_classes, find_labels
from graphseg.datasets.geotiff import read_geo, write_geotiff
from graphseg.datasets.image_file import ImageFile, read_colors, read_image, read_labels
from graphseg.datasets.image_graph_dataset import ImageGraphDataset
from graphseg.datasets.pascal import PascalContext, PascalVOC
from graphseg.datasets.potsdam import Potsdam
from graphseg.datasets.reader import BadFile, ImageReader, Sample
from graphseg.datasets.small_sets import BSDS500, DSB2018, ISBI2012, MSRC21, CamVid, PennFudan, Sentinel2
from graphseg.datasets.statistics import DatasetStatistics, Spread

__all__ = [
    "ADE20K",
    "BSDS500",
    "DSB2018",
    "ISBI2012",
    "MSRC21",
    "BadFile",
    "CamVid",
    "Cityscapes",
    "CocoStuff",
    "DatasetStatistics",
    "ImageFile",
    "ImageFolder",
    "ImageGraphDataset",
    "ImageReader",
    "PascalContext",
    "PascalVOC",
    "PennFudan",
    "Potsdam",
    "Sample",
    "Sentinel2",
    "Spread",
    "count_classes",
    "find_labels",
    "read_colors",
    "read_geo",
    "read_image",
    "read_labels",
    "write_geotiff",
]
