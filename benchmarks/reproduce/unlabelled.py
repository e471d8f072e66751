"""SGSeg's tables: the four-channel aerial set, and MSRC-21 with coarse classes, both without labels."""

from __future__ import annotations

from typing import Any

from benchmarks.reproduce.setups import Line, Protocol, Setup, Table

SCHEMES = {"pretrained": [["spnn", 0.3], ["joint", 0.7]], "joint": [["joint", 1.0]]}
DISJOINT = [["spnn", 0.3], ["segment", 0.7]]


RATES = (
    "All parts have the learning rate that was best for the CNN alone with seed 0, on training images that it did not "
    "learn from, out of 0.001, 0.003 and, where it was tried, 0.01; labels were used for this and for judging only."
)


def _unlabelled(dataset: str, size: tuple[int, int], tiles: int, note: str) -> Protocol:
    return Protocol(
        dataset=dataset,
        task="unsupervised",
        size=size,
        steps=150,
        batch=8,
        optimizer="adamw",
        rates={"all": 3e-3},
        weight_decay=0.0,
        options={"network": {"width": 0.125}, "tiles": tiles, "stages": SCHEMES["pretrained"]},
        note=f"{note} {RATES}",
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


def sgseg_tables(dataset: str) -> tuple[Table, ...]:
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
