"""The papers' losses: functions first, modules where they hold weights."""

from graphseg.losses._reduction import mean_over
from graphseg.losses.affinity import affinity_counts, affinity_cross_entropy
from graphseg.losses.information import joint_counts, mutual_information, mutual_information_loss
from graphseg.losses.ohem import CDGCLoss, cross_entropy, ohem_cross_entropy
from graphseg.losses.reconstruction import reconstruction_loss
from graphseg.losses.spnn import SPNNLoss, clustering_loss, edge_loss, smoothness_loss, superpixelate
from graphseg.losses.variation import graph_total_variation, total_variation

__all__ = [
    "CDGCLoss",
    "SPNNLoss",
    "affinity_counts",
    "affinity_cross_entropy",
    "clustering_loss",
    "cross_entropy",
    "edge_loss",
    "graph_total_variation",
    "joint_counts",
    "mean_over",
    "mutual_information",
    "mutual_information_loss",
    "ohem_cross_entropy",
    "reconstruction_loss",
    "smoothness_loss",
    "superpixelate",
    "total_variation",
]
