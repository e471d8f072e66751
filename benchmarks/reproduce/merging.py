"""Affinity and graph merge: its tables on nuclei and pedestrians."""

from __future__ import annotations

from typing import Any

from benchmarks.reproduce.camvid import SMALL
from benchmarks.reproduce.setups import Line, Protocol, Setup, Table

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
    "paper_thresholds": {"thresholds": [0.97, 0.7]},
    "components": {},
}


def _instances(dataset: str, size: int, distances: list[int], options: dict[str, Any], note: str) -> Protocol:
    network = {**SMALL, "width": 0.25, "head": "deeplabv3plus", "distances": distances, "background": "ignore"}
    merge: dict[str, Any] = {"refine": False, "roi_size": None, "window": 1, "min_size": 10, "thresholds": [0.5, 0.2]}
    merge["stages"] = [[d for d in distances if d <= 4], [d for d in distances if d > 4]]
    return Protocol(
        dataset=dataset,
        task="instances",
        size=(size, size),
        steps=400,
        batch=(8 * 96 * 96) // (size * size),  # as many pixels for both
        optimizer="adamw",
        rates={"all": 2e-3},
        options={
            "network": {**network, "balance": "channel", "calibrate": True},
            "merge": merge,
            "variants": SWITCHES,
            **options,
        },
        note=f"{note} On both data sets edges up to distance 4 merge at 0.5 and longer ones at 0.2, which was best of "
        "ten pairs for the merge alone on 16 training images of nuclei that a network did not learn from. "
        "The learning rate was not searched.",
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


def instance_tables(dataset: str) -> tuple[Table, ...]:
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
                line("paper_thresholds", "merge alone, thresholds 0.97 and 0.7"),
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
