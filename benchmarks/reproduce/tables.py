"""The papers' tables in the small, as data: protocols of the data sets, the rows that are run, and the tables."""

from __future__ import annotations

from typing import Any

from benchmarks.reproduce.setups import Line, Protocol, Setup, Table

SMALL: dict[str, Any] = {"backbone": "resnet18", "output_stride": 8, "width": 0.125}

# CamVid, with labels.

CAMVID = Protocol(
    dataset="camvid",
    task="semantic",
    size=(120, 160),
    steps=200,
    batch=8,
    optimizer="sgd",
    rates={"all": 0.2},
    options={"network": SMALL, "compactness": 10.0},
    note="The learning rate was chosen for the base alone with seed 0, on a fifth of the training images that it did "
    "not learn from: mIoU 29.5 at 0.05, 31.4 at 0.2, 31.8 at 0.4; 0.2 was taken, as 0.4 gave little more.",
)

MSP, CRF, CDGC = "MSPNet", "ESCRFNet", "CDGCNet"
HARD = {"min_kept": 5000}  # pixels of a batch; about the share that the usual 100,000 have at full size
EASY: dict[str, Any] = {"hard_positives": False, "hard_negatives": False}
JOINT = {"radius": 2.0, "num_steps": 3}  # of both CRFs on scores, to fit the budget


def _cdgc(name: str, graph: str, seeds: int = 3, base: str = "aspp", extra: bool = False, **options: Any) -> Setup:
    return Setup(name, CDGC, {"graph": graph, **HARD, **options}, base, seeds, extra=extra)


def _msp(name: str, *counts: int, seeds: int = 3, extra: bool = False) -> Setup:
    return Setup(name, MSP, {"num_superpixels": list(counts)}, "deeplabv3plus", seeds, extra=extra)


def _crf(name: str, variant: str = "es_crf", seeds: int = 3, **options: Any) -> Setup:
    return Setup(name, CRF, {"variant": variant, **options}, "deeplabv3plus", seeds)


CAMVID_SETUPS = (
    Setup("deeplabv3plus", MSP, {"num_superpixels": []}),
    _msp("ssp", 150, seeds=5),
    _msp("msp", 100, 150, 200, seeds=5),
    _crf("es_crf", seeds=5, num_superpixels=150),
    _crf("es_crf_pairwise", superpixel=False),
    _crf("es_crf_superpixel", pairwise=False, num_superpixels=150),
    _crf("non_local", "non_local"),
    _crf("vanilla_crf", "vanilla_crf", crf=JOINT),
    _crf("joint_crf", "joint_crf", crf=JOINT),
    Setup("resnet", CDGC, {"graph": "none", "aspp": False}, seeds=3),
    Setup("aspp", CDGC, {"graph": "none"}, "resnet"),
    _cdgc("plain_gcn", "plain", base="resnet", aspp=False),
    _cdgc("class_gcn", "similarity", base="resnet", aspp=False),
    _cdgc("cdgc_sim", "similarity"),
    _cdgc("cdgc_0.2", "dynamic", ratio=0.2),
    _cdgc("cdgc_0.6", "dynamic", ratio=0.6),
    _cdgc("cdgc_1.0", "dynamic", seeds=5),
    _cdgc("class_gcn_sum", "similarity", base="resnet", extra=True, aspp=False, fusion="sum"),
    _cdgc("cdgc_sim_sum", "similarity", extra=True, fusion="sum"),
    _cdgc("easy", "dynamic", extra=True, **EASY),
    _cdgc("easy_hard_positives", "dynamic", extra=True, hard_negatives=False),
    _cdgc("easy_hard_negatives", "dynamic", extra=True, hard_positives=False),
    _msp("ssp_75", 75, extra=True),
    _msp("ssp_300", 300, extra=True),
    _msp("msp_2", 100, 200, extra=True),
)

QUALITY = ("miou", "boundary_f", "pixel_accuracy")
ADE20K = "ADE20K, ResNet-50, mIoU"
CITYSCAPES = "Cityscapes, ResNet-101, mIoU"
SUPERPIXELS = (
    "An image has 1/14 of the pixels of the paper's crops, and superpixels 128 pixels (of 150) in place of 1311."
)

CAMVID_TABLES = (
    Table(
        "MSP",
        "1",
        "camvid",
        "Do superpixel means before the classifier help?",
        (
            Line("deeplabv3plus", "DeepLabV3+", 42.91),
            Line("ssp", "+ SSP (150)", 43.32),
            Line("msp", "+ MSP (100, 150, 200)", 43.93),
        ),
        QUALITY,
        ADE20K,
        SUPERPIXELS,
    ),
    Table(
        "MSP",
        "3",
        "camvid",
        "How many superpixels, at how many scales?",
        (
            Line("deeplabv3plus", "none", 42.91),
            Line("ssp_75", "75"),
            Line("ssp", "150"),
            Line("ssp_300", "300"),
            Line("msp_2", "100, 200"),
            Line("msp", "100, 150, 200"),
        ),
        ("miou", "boundary_f"),
        ADE20K,
        "The paper's counts, 100 to 500, are of larger images. Its figures are 42.84, 43.32, 43.39, 43.52 and 42.59 "
        "for one scale, up to 43.74 for two and 43.93 for three.",
    ),
    Table(
        "ES-CRF",
        "1",
        "camvid",
        "Is the CRF on features better than one on scores?",
        (
            Line("deeplabv3plus", "DeepLabV3+", 42.72),
            Line("vanilla_crf", "Vanilla-CRF", 43.18),
            Line("joint_crf", "Joint-CRF", 43.69),
            Line("es_crf", "ES-CRF", 44.20),
        ),
        (*QUALITY, "weight_similarity"),
        ADE20K,
        "The paper's boundary F-scores are 14.25, 16.26, 16.32 and 16.45. The similarity of weights is the claim of "
        "its Fig. 1a: the mean cosine between the class weights of classes that share boundaries, said to fall.",
    ),
    Table(
        "ES-CRF",
        "2",
        "camvid",
        "Which messages help?",
        (
            Line("deeplabv3plus", "DeepLabV3+", 42.72),
            Line("non_local", "+ Non-local", 43.52),
            Line("es_crf_pairwise", "ES-CRF, pairwise", 43.91),
            Line("es_crf_superpixel", "ES-CRF, superpixels", 43.83),
            Line("es_crf", "ES-CRF, both", 44.20),
        ),
        ("miou", "boundary_f"),
        ADE20K,
    ),
    Table(
        "CDGC",
        "1",
        "camvid",
        "Are graphs within classes better than one graph?",
        (
            Line("resnet", "ResNet", 76.3),
            Line("plain_gcn", "+ plain GCN", 78.2),
            Line("class_gcn", "+ class-wise GCN", 79.4),
        ),
        ("miou", "boundary_f"),
        CITYSCAPES,
    ),
    Table(
        "CDGC",
        "2",
        "camvid",
        "Does CDGC help with ASPP and without, concatenated and summed?",
        (
            Line("resnet", "ResNet", 76.3),
            Line("aspp", "+ ASPP", 78.4),
            Line("class_gcn", "+ CDGC (concat)", 79.4),
            Line("class_gcn_sum", "+ CDGC (sum)", 79.2),
            Line("cdgc_sim_sum", "+ ASPP + CDGC (sum)", 79.9),
            Line("cdgc_sim", "+ ASPP + CDGC (concat)", 80.0),
        ),
        ("miou", "boundary_f"),
        CITYSCAPES,
    ),
    Table(
        "CDGC",
        "3",
        "camvid",
        "How is the graph to be made?",
        (
            Line("aspp", "ResNet + ASPP", 78.4),
            Line("cdgc_sim", "+ CDGC, similarity", 80.0),
            Line("cdgc_0.2", "+ CDGC, sampling 0.2", 79.8),
            Line("cdgc_0.6", "+ CDGC, sampling 0.6", 80.8),
            Line("cdgc_1.0", "+ CDGC, sampling 1.0", 81.1),
        ),
        QUALITY,
        CITYSCAPES,
        "The base learns from cross entropy alone, the others from the paper's Eq. 5 with its loss of hard pixels.",
    ),
    Table(
        "CDGC",
        "5",
        "camvid",
        "Do hard samples help?",
        (
            Line("easy", "easy positives", 79.9),
            Line("easy_hard_positives", "+ hard positives", 80.5),
            Line("easy_hard_negatives", "+ hard negatives", 80.0),
            Line("cdgc_1.0", "+ both", 81.1),
        ),
        ("miou", "boundary_f"),
        CITYSCAPES,
    ),
)

# Without labels: SGSeg.

SCHEMES = {"pretrained": [["spnn", 0.3], ["joint", 0.7]], "joint": [["joint", 1.0]]}
DISJOINT = [["spnn", 0.3], ["segment", 0.7]]


def _unlabelled(dataset: str, size: tuple[int, int], tiles: int, note: str) -> Protocol:
    return Protocol(
        dataset=dataset,
        task="unsupervised",
        size=size,
        steps=150,
        batch=8,
        optimizer="adamw",
        rates={"spnn": 1e-3, "gnn": 1e-3, "cnn": 1e-3},
        weight_decay=0.0,
        options={"network": {"width": 0.125}, "tiles": tiles, "stages": SCHEMES["pretrained"]},
        note=note,
    )


SENTINEL2 = _unlabelled("sentinel2_rgbnir", (48, 48), 2, "Images are cut in four, which are made smaller.")
MSRC21 = _unlabelled("msrc21", (48, 64), 1, "Six coarse classes.")


def _sgseg(name: str, base: str | None = "sgseg", changes: dict[str, Any] | None = None, **options: Any) -> Setup:
    return Setup(name, "SGSeg", {"num_superpixels": 100, **options}, base, 3, changes or {})


SGSEG_SETUPS = (
    _sgseg("cnn", None, {"stages": SCHEMES["joint"]}, spnn=False),
    _sgseg("sgseg", None),
    _sgseg("spnn_cnn", gnn=None),
    _sgseg("pointnet", gnn="pointnet"),
    _sgseg("dgcnn", gnn="dgcnn"),
    _sgseg("end_to_end", changes={"stages": SCHEMES["joint"]}),
    _sgseg("disjoint", changes={"stages": DISJOINT}),
    _sgseg("k_5", k=5),
    _sgseg("k_10", k=10),
    _sgseg("k_40", k=40),
    _sgseg("superpixels_50", num_superpixels=50),
    _sgseg("superpixels_200", num_superpixels=200),
    _sgseg("random_cnn", "cnn", {"untrained": True}, spnn=False),
    Setup("k_means", "k-means", {}, None, 3),
)

ACCURACY = ("hungarian_accuracy", "matched_miou")
COCO = "COCO-Stuff, pixel accuracy"


def _sgseg_tables(dataset: str) -> tuple[Table, ...]:
    def table(number: str, title: str, *lines: Line, note: str = "") -> Table:
        return Table("SGSeg", number, dataset, title, lines, ACCURACY, COCO, note)

    return (
        table(
            "1",
            "Is it better than the floors?",
            Line("k_means", "k-means", 14.1),
            Line("random_cnn", "random CNN", 19.4),
            Line("sgseg", "SGSeg", 39.4),
        ),
        table(
            "2",
            "How is it to be trained?",
            Line("disjoint", "disjoint", 33.7),
            Line("end_to_end", "end to end", 36.6),
            Line("sgseg", "SPNN first, then end to end", 39.4),
        ),
        table(
            "3",
            "What do superpixels and graph give the CNN?",
            Line("cnn", "CNN", 31.1),
            Line("spnn_cnn", "SPNN + CNN", 35.7),
            Line("sgseg", "SPNN + GNN + CNN", 39.4),
        ),
        table(
            "4",
            "How many superpixels?",
            Line("sgseg", "100", 37.9),
            Line("superpixels_50", "50", 36.7),
            Line("superpixels_200", "200", 39.4),
        ),
        table(
            "5",
            "Which graph network?",
            Line("spnn_cnn", "none", 35.7),
            Line("pointnet", "PointNet", 36.2),
            Line("dgcnn", "DGCNN", 36.0),
            Line("sgseg", "DiffGCN", 39.4),
        ),
        table(
            "6",
            "How many neighbours?",
            Line("sgseg", "k = 20", 39.4),
            Line("k_5", "k = 5", 36.5),
            Line("k_10", "k = 10", 37.4),
            Line("k_40", "k = 40", 39.0),
        ),
    )


# Instances.

SWITCHES: dict[str, dict[str, Any]] = {
    "none": {},
    "par": {"refine": True},
    "par_rr": {"refine": True, "roi_size": 192, "max_scale": 2.0},
    "par_rr_flm2": {"refine": True, "roi_size": 192, "max_scale": 2.0, "window": 2},
    "par_rr_flm4": {"refine": True, "roi_size": 192, "max_scale": 2.0, "window": 4},
    "par_flm2": {"refine": True, "window": 2},
    "par_flm2_shf": {"refine": True, "window": 2, "flip_semantic": True},
    "par_flm2_ihf": {"refine": True, "window": 2, "flip_affinity": True},
    "par_flm2_shf_ihf": {"refine": True, "window": 2, "flip_semantic": True, "flip_affinity": True},
    "par_counted": {"refine": True, "linkage": "counted"},
    "components": {},
}


def _instances(dataset: str, size: int, distances: list[int], options: dict[str, Any], note: str) -> Protocol:
    network = {**SMALL, "width": 0.25, "head": "deeplabv3plus", "distances": distances, "background": "ignore"}
    merge: dict[str, Any] = {"refine": False, "roi_size": None, "window": 1, "min_size": 10}
    return Protocol(
        dataset=dataset,
        task="instances",
        size=(size, size),
        steps=400,
        batch=8,
        optimizer="adamw",
        rates={"all": 2e-3},
        options={
            "network": {**network, "balance": "channel", "calibrate": True},
            "merge": merge,
            "variants": SWITCHES,
            **options,
        },
        note=note,
    )


NUCLEI = _instances(
    "dsb2018", 96, [1, 2, 4, 8], {"turn": True, "middle": 256}, "Of larger images the middle 256 x 256 is judged."
)
PEDESTRIANS = _instances(
    "penn_fudan",
    128,
    [1, 2, 4, 8, 16],
    {"turn": False, "longest": 256},
    "Images are made smaller until no side is over 256.",
)
INSTANCE_SETUPS = (Setup("affinity", "AffinityInstances", {}, None, 3),)
CITYSCAPES_AP = "Cityscapes, AP"
ONE_CLASS = (
    "One training for all lines of a seed. With one class of things semantic class partition (SCP) has nothing to "
    "part, and semantic class refinement (SCR) nothing to refine."
)


def _instance_tables(dataset: str) -> tuple[Table, ...]:
    def line(variant: str, label: str, paper: float | None = None) -> Line:
        return Line(f"affinity/{variant}", label, paper)

    metrics = ("ap", "ap50", "rand_error")
    return (
        Table(
            "Affinity",
            "2",
            dataset,
            "Which steps around the merge help?",
            (
                line("none", "merge alone", 18.9),
                line("par", "+ PAR", 22.8),
                line("par_rr", "+ PAR + RR", 28.7),
                line("par_rr_flm2", "+ PAR + RR + FLM 2", 29.2),
                line("par_rr_flm4", "+ PAR + RR + FLM 4", 27.5),
                line("par_flm2", "+ PAR + FLM 2"),
                line("par_counted", "+ PAR, counted average"),
                line("components", "connected foreground"),
            ),
            metrics,
            CITYSCAPES_AP,
            ONE_CLASS,
        ),
        Table(
            "Affinity",
            "3",
            dataset,
            "Do mirrored images help?",
            (
                line("par_flm2", "PAR + FLM 2", 32.1),
                line("par_flm2_shf", "+ SHF", 32.8),
                line("par_flm2_ihf", "+ IHF", 32.6),
                line("par_flm2_shf_ihf", "+ SHF + IHF", 33.5),
            ),
            metrics,
            CITYSCAPES_AP,
        ),
    )


PROTOCOLS = {
    "camvid": CAMVID,
    "sentinel2_rgbnir": SENTINEL2,
    "msrc21": MSRC21,
    "dsb2018": NUCLEI,
    "penn_fudan": PEDESTRIANS,
}
SETUPS = {
    "camvid": CAMVID_SETUPS,
    "sentinel2_rgbnir": SGSEG_SETUPS,
    "msrc21": SGSEG_SETUPS,
    "dsb2018": INSTANCE_SETUPS,
    "penn_fudan": INSTANCE_SETUPS,
}
TABLES = (
    *CAMVID_TABLES,
    *_sgseg_tables("sentinel2_rgbnir"),
    *_sgseg_tables("msrc21"),
    *_instance_tables("dsb2018"),
    *_instance_tables("penn_fudan"),
)
