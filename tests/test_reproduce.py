"""The tables in the small: runs are done once, paired, seed by seed, and survive a kill; statistics; the page."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from skimage import measure
from torch import Tensor, nn

from benchmarks.reproduce import page
from benchmarks.reproduce.data import MSRC_KINDS, Batches, Pictures, read_pictures, read_superpixels
from benchmarks.reproduce.instances import Crops, components, run_instances
from benchmarks.reproduce.loop import build, make_optimizer, stage_at, train
from benchmarks.reproduce.paired import compare_seeds, smallest_detectable
from benchmarks.reproduce.results import read_values, result_rows
from benchmarks.reproduce.schedule import Job, plan, run_missing
from benchmarks.reproduce.semantic import run_semantic
from benchmarks.reproduce.setups import Line, Protocol, Setup, Table
from benchmarks.reproduce.store import Runs
from benchmarks.reproduce.tables import PROTOCOLS, SETUPS, TABLES
from benchmarks.reproduce.unsupervised import judge_clusters, kmeans, run_unsupervised
from graphseg.datasets import MSRC21
from graphseg.ops import slic
from tests.conftest import ROOT

PROTOCOL = Protocol("toy", "semantic", (8, 8), steps=3, batch=2, optimizer="sgd", rates={"all": 0.1})
ROWS = {
    "toy": [
        Setup("base", "x:Y", {}, seeds=3),
        Setup("more", "x:Y", {"more": True}, "base", seeds=2),
        Setup("late", "x:Y", {"more": 2}, "base", seeds=1, extra=True),
    ]
}
TABLE = Table(
    "Toy",
    "1",
    "toy",
    "Does more help?",
    (Line("base", "Base", 1.5), Line("more", "More", 2.5)),
    ("miou",),
    "Toys, mIoU",
)


class Net(nn.Module):
    """The base: a layer of its own, and one more that the base has not if `more`; drawn in the wrong order."""

    def __init__(self, num_classes: int = 3, more: bool = False) -> None:
        super().__init__()
        self.more = nn.Conv2d(3, 3, 1) if more else None
        self.last = nn.Conv2d(3, num_classes, 1)
        self.seen: list[dict[str, Tensor]] = []
        self.drawn: list[Tensor] = []
        self.stages: list[str] = []

    def losses(self, batch: Mapping[str, Tensor], *, generator: torch.Generator, stage: str = "") -> dict[str, Tensor]:
        self.seen.append(dict(batch))
        self.drawn += [torch.rand((), generator=generator), torch.rand(())]
        self.stages.append(stage)
        return {"loss": nn.functional.cross_entropy(self.last(batch["image"]), batch["mask"])}

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"all": list(self.parameters())}


def toy_fields(count: int = 5) -> dict[str, Tensor]:
    image = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8)
    mask = image[:, 0].long() % 3
    return {"image": image, "mask": mask, "superpixels": torch.stack([mask, mask + 3], 1).short()}


def fixed(job: Job) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:
    return {"": {"miou": 0.1 * job.seed + 0.05 * bool(job.setup.options) + 0.01 * job.seed**2}}, {}


def silent(_: str) -> None:
    pass


def do(folder: Path, jobs: Sequence[Job], **options: Any) -> list[tuple[str, int]]:
    added = run_missing(jobs, options.pop("execute", fixed), Runs(folder), say=silent, **options)
    return [(record["name"], record["seed"]) for record in added]


# What is run, and when.


def test_seeds_of_all_rows_come_before_the_next_seed_and_extras_last() -> None:
    order = [(job.setup.name, job.seed) for job in plan([PROTOCOL], ROWS)]
    assert order == [("base", 0), ("more", 0), ("base", 1), ("more", 1), ("base", 2), ("late", 0)]
    assert [job.base is not None and job.base.name for job in plan([PROTOCOL], ROWS, ["more"])] == ["base", "base"]


def test_unknown_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="got rows most, expected some of base, late, more"):
        plan([PROTOCOL], ROWS, ["more", "most"])


def test_runs_are_done_once(tmp_path: Path) -> None:
    jobs = plan([PROTOCOL], ROWS)
    assert len(do(tmp_path, jobs[:3])) == 3
    assert do(tmp_path, jobs) == [(job.setup.name, job.seed) for job in jobs[3:]]
    assert do(tmp_path, jobs) == []


def test_changed_options_run_again_and_old_figures_do_not_count(tmp_path: Path) -> None:
    do(tmp_path, plan([PROTOCOL], ROWS))
    changed = {"toy": [ROWS["toy"][0], dataclasses.replace(ROWS["toy"][1], options={"more": 7}), ROWS["toy"][2]]}
    assert read_values(PROTOCOL, changed["toy"], Runs(tmp_path)).keys() == {"base", "late"}
    assert do(tmp_path, plan([PROTOCOL], changed)) == [("more", 0), ("more", 1)]
    longer = dataclasses.replace(PROTOCOL, steps=4)
    assert len(do(tmp_path, plan([longer], ROWS))) == 6
    reworded = dataclasses.replace(longer, note="chosen otherwise")
    assert do(tmp_path, plan([reworded], ROWS)) == []


def test_another_base_or_protocol_is_another_run() -> None:
    one, other = ROWS["toy"][:2]
    keys = [
        other.key(PROTOCOL, one),
        other.key(PROTOCOL),
        other.key(PROTOCOL, dataclasses.replace(one, options={"width": 1})),
        dataclasses.replace(other, changes={"flip": False}).key(PROTOCOL, one),
        other.key(dataclasses.replace(PROTOCOL, rates={"all": 0.2}), one),
    ]
    assert len(set(keys)) == len(keys)
    assert dataclasses.replace(other, seeds=9, extra=True).key(PROTOCOL, one) == keys[0]


def test_no_run_begins_that_would_end_after_the_budget(tmp_path: Path) -> None:
    runs, jobs = Runs(tmp_path), plan([PROTOCOL], ROWS)
    for job, seconds in ((jobs[0], 100.0), (jobs[1], 10.0)):
        dataset, name, seed, key = job.place
        values = {"": {"miou": 0.5}}
        runs.add({"dataset": dataset, "name": name, "seed": seed, "key": key, "values": values, "seconds": seconds})
    assert do(tmp_path, jobs, budget=50) == [("more", 1)]  # base takes 100 s, and of late nothing is known
    assert do(tmp_path, jobs, budget=0) == []


def test_a_failed_run_is_kept_as_such_and_tried_again_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(job: Job) -> Any:
        if job.setup.name == "more" and job.seed == 0:
            raise FloatingPointError("got loss nan at step 1, expected a finite number")
        return fixed(job)

    jobs = plan([PROTOCOL], ROWS)
    assert len(do(tmp_path, jobs, execute=fail)) == len(jobs)
    assert "got loss nan" in capsys.readouterr().err
    assert do(tmp_path, jobs) == []
    assert "FloatingPointError" in page.describe(PROTOCOL, ROWS["toy"], Runs(tmp_path))
    assert do(tmp_path, jobs, retry=True) == [("more", 0)]
    assert do(tmp_path, jobs, retry=True) == []


def test_a_run_that_another_process_does_is_left_to_it(tmp_path: Path) -> None:
    jobs = plan([PROTOCOL], ROWS)
    with Runs(tmp_path).claim(*jobs[0].place) as ours:
        assert ours
        assert ("base", 0) not in do(tmp_path, jobs)
    assert do(tmp_path, jobs) == [("base", 0)]


def test_a_line_cut_short_is_passed_over_and_costs_no_other(tmp_path: Path) -> None:
    jobs = plan([PROTOCOL], ROWS)
    do(tmp_path, jobs[:3])
    path = Runs(tmp_path).path("toy")
    whole = path.read_text()
    path.write_text(whole[:-20])
    assert do(tmp_path, jobs[:4]) == [(jobs[2].setup.name, jobs[2].seed), (jobs[3].setup.name, jobs[3].seed)]
    assert len(Runs(tmp_path).read("toy")) == 4


SLOW = """
import sys, time
from pathlib import Path
from benchmarks.reproduce.schedule import plan, run_missing
from benchmarks.reproduce.setups import Protocol, Setup
from benchmarks.reproduce.store import Runs

def slow(job):
    time.sleep(0.15)
    return {"": {"miou": 0.1 * job.seed + 0.05 * bool(job.setup.options) + 0.01 * job.seed**2}}, {}

protocol = Protocol("toy", "semantic", (8, 8), steps=3, batch=2, optimizer="sgd", rates={"all": 0.1})
rows = [Setup("base", "x:Y", {}, seeds=3), Setup("more", "x:Y", {"more": True}, "base", seeds=2)]
say = lambda line: print(line, flush=True)
run_missing(plan([protocol], {"toy": rows}), slow, Runs(Path(sys.argv[1])), say=say)
"""


def test_killed_and_started_again_the_results_are_the_same(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SLOW, str(tmp_path / "killed")]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.readline()
    time.sleep(0.05)  # in the middle of the third run
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    found = Runs(tmp_path / "killed").read("toy")
    assert len(found) == 2
    jobs = plan([PROTOCOL], ROWS)
    assert len(do(tmp_path / "killed", jobs)) == len(jobs) - 2
    do(tmp_path / "whole", jobs)

    def without_time(folder: Path) -> list[dict[str, Any]]:
        return [{k: v for k, v in r.items() if k != "seconds"} for r in Runs(folder).read("toy")]

    assert without_time(tmp_path / "killed") == without_time(tmp_path / "whole")
    path = Runs(tmp_path / "killed").path("toy")
    assert path.read_text().count("\n") == len(jobs)
    assert sorted(p.name for p in (tmp_path / "killed").iterdir()) == ["toy.jsonl"]


def test_pruning_drops_only_what_has_changed(tmp_path: Path) -> None:
    jobs, runs = plan([PROTOCOL], ROWS), Runs(tmp_path)
    do(tmp_path, jobs)
    do(tmp_path, plan([dataclasses.replace(PROTOCOL, steps=9)], ROWS))
    assert runs.prune({(job.setup.name, job.key) for job in jobs}, "toy") == 6
    assert do(tmp_path, jobs) == []


# Base and method see the same.


def test_base_and_method_start_alike_and_see_the_same_batches_and_draws() -> None:
    fields, base = toy_fields(), Setup("base", f"{__name__}:Net", {})
    method = Setup("more", f"{__name__}:Net", {"more": True}, "base")
    found = []
    for setup, start in ((base, None), (method, base)):
        network = build(setup, start, 4)
        first = network.last.weight.detach().clone()
        train(network, Batches(fields, 2, 4), dataclasses.replace(PROTOCOL, steps=5), 4, torch.device("cpu"))
        found.append((first, network))
    assert torch.equal(found[0][0], found[1][0])
    assert found[1][1].more is not None
    assert len(found[0][1].seen) == 5
    for one, other in zip(found[0][1].seen, found[1][1].seen, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in fields)
    assert torch.equal(torch.stack(found[0][1].drawn), torch.stack(found[1][1].drawn))
    assert len(set(map(float, found[0][1].drawn))) == 10  # every step draws anew
    assert torch.equal(found[0][1].last.weight, found[1][1].last.weight)


def test_other_seeds_have_other_weights_and_batches() -> None:
    fields, setup = toy_fields(), Setup("base", f"{__name__}:Net", {})
    assert not torch.equal(build(setup, None, 0).last.weight, build(setup, None, 1).last.weight)
    orders = [torch.stack([Batches(fields, 2, seed)(step)["image"] for step in range(4)]) for seed in (0, 1)]
    assert not torch.equal(*orders)


def test_an_epoch_has_each_image_once_and_maps_are_mirrored_with_their_image() -> None:
    fields = toy_fields(6)
    batches = Batches(fields, 2, 0)
    seen, mirrored = [], []
    for step in range(6):
        batch = batches(step)
        assert batch["image"].dtype == torch.float32
        levels = (batch["image"] * 255).round().byte()
        torch.testing.assert_close(levels[:, 0].long() % 3, batch["mask"])
        assert torch.equal(batch["superpixels"], torch.stack([batch["mask"], batch["mask"] + 3], 1))
        for image in levels:
            same = [
                (i, flip)
                for i, x in enumerate(fields["image"])
                for flip in (False, True)
                if torch.equal(image, x.flip(-1) if flip else x)
            ]
            ((index, flip),) = same
            seen.append(index)
            mirrored.append(flip)
    assert sorted(seen[:6]) == sorted(seen[6:]) == list(range(6))
    assert seen[:6] != seen[6:]
    assert {False, True} == set(mirrored)


def test_batches_larger_than_the_set_are_refused() -> None:
    with pytest.raises(ValueError, match="got batch=6, expected at most the 5 images"):
        Batches(toy_fields(5), 6, 0)


def test_training_follows_sgd_with_the_poly_schedule() -> None:
    protocol = dataclasses.replace(PROTOCOL, steps=4, weight_decay=0.01)
    network, copy = (build(Setup("base", f"{__name__}:Net", {}), None, 0) for _ in range(2))
    batches = Batches(toy_fields(), 2, 0)
    found = train(network, batches, protocol, 0, torch.device("cpu"))
    momentum = [torch.zeros_like(p) for p in copy.parameters()]
    losses = []
    for step in range(4):  # by hand
        batch = batches(step)
        loss = nn.functional.cross_entropy(copy.last(batch["image"]), batch["mask"])
        losses.append(float(loss.detach()))
        grads = torch.autograd.grad(loss, list(copy.parameters()))
        with torch.no_grad():
            for p, m, g in zip(copy.parameters(), momentum, grads, strict=True):
                m.mul_(0.9).add_(g + 0.01 * p)
                p -= 0.1 * (1 - step / 4) ** 0.9 * m
    torch.testing.assert_close(network.last.weight, copy.last.weight)
    assert found == pytest.approx({"first_loss": losses[0], "last_loss": sum(losses) / 4}, rel=1e-5)


def test_stages_take_their_share_of_the_steps() -> None:
    stages = [("spnn", 0.3), ("joint", 0.7)]
    assert [stage_at(stages, step, 10) for step in range(10)] == ["spnn"] * 3 + ["joint"] * 7
    network = build(Setup("base", f"{__name__}:Net", {}), None, 0)
    train(
        network,
        Batches(toy_fields(), 2, 0),
        dataclasses.replace(PROTOCOL, steps=10),
        0,
        torch.device("cpu"),
        stages=stages,
    )
    assert network.stages == ["spnn"] * 3 + ["joint"] * 7


def test_groups_have_rates_of_their_own() -> None:
    class Two(Net):
        def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
            weight, bias = self.last.parameters()
            return {"cnn": [weight], "gnn": [bias], "spnn": []}

    protocol = dataclasses.replace(PROTOCOL, optimizer="adamw", rates={"cnn": 0.1, "all": 0.2})
    groups = make_optimizer(Two(), protocol).param_groups
    assert [group["lr"] for group in groups] == [0.1, 0.2]
    slowed = make_optimizer(Two(), protocol, {"last.b": 0.5}).param_groups
    assert [(group["lr"], group["weight_decay"]) for group in slowed] == [(0.1, 5e-4), (0.1, 0.0)]
    with pytest.raises(ValueError, match="got optimizer='lion', expected sgd or adamw"):
        make_optimizer(Two(), dataclasses.replace(PROTOCOL, optimizer="lion"))


def test_a_loss_that_is_not_finite_ends_the_run() -> None:
    network = build(Setup("base", f"{__name__}:Net", {}), None, 0)
    network.last.weight.data.fill_(math.nan)
    with pytest.raises(FloatingPointError, match="got loss nan at step 0"):
        train(network, Batches(toy_fields(), 2, 0), PROTOCOL, 0, torch.device("cpu"))


# The tasks.


def test_parts_of_the_training_images_and_tiles_are_whole(shared_data: Path) -> None:
    train, fit, held = (
        read_pictures(shared_data, "sentinel2_rgbnir", x, (16, 16)) for x in ("train", "fit", "held_out")
    )
    assert len(fit.images) + len(held.images) == len(train.images)
    assert len(held.images) >= len(train.images) // 20

    def as_rows(images: Tensor) -> list[bytes]:
        return [image.numpy().tobytes() for image in images]

    assert sorted([*as_rows(fit.images), *as_rows(held.images)]) == sorted(as_rows(train.images))
    tiled = read_pictures(shared_data, "sentinel2_rgbnir", "val", (8, 8), 2)
    whole = read_pictures(shared_data, "sentinel2_rgbnir", "val", (16, 16))
    assert tiled.images.shape == (4 * len(whole.images), 4, 8, 8)
    rows = [torch.cat(list(tiled.masks[4 * 3 + 2 * r : 4 * 3 + 2 * r + 2]), 1) for r in (0, 1)]
    assert torch.equal(torch.cat(rows), whole.masks[3])


def test_coarse_classes_cover_all_of_msrc21(shared_data: Path) -> None:
    fine = MSRC21(shared_data / "msrc21", "val")
    coarse = read_pictures(shared_data, "msrc21", "val", (20, 30))
    members = [name for names in MSRC_KINDS.values() for name in names]
    assert sorted(members) == sorted(fine.class_names)
    assert coarse.names == tuple(MSRC_KINDS)
    mask = fine[5].mask
    small = nn.functional.interpolate(mask[None, None].double(), (20, 30), mode="nearest-exact")[0, 0].long()
    wanted = [
        [
            next((k for k, x in enumerate(MSRC_KINDS.values()) if fine.class_names[y] in x), 255) if y < 255 else 255
            for y in row
        ]
        for row in small.tolist()
    ]
    assert coarse.masks[5].tolist() == wanted


def test_superpixels_are_those_of_the_resized_images(shared_data: Path) -> None:
    images = read_pictures(shared_data, "msrc21", "val", (24, 32)).images
    found = read_superpixels(shared_data, "msrc21", "val", (24, 32), (10, 20), 10.0)
    assert found.shape == (len(images), 2, 24, 32)
    assert torch.equal(found[40, 1].long(), slic(images[40], 20))


def test_clusters_are_matched_whatever_their_numbers() -> None:
    masks = torch.randint(0, 3, (2, 9, 9))
    masks[0, 0] = 255
    found = masks.clamp(max=2)
    found[1, 4] = (found[1, 4] + 1) % 3
    judged = Pictures(torch.zeros(2, 3, 9, 9, dtype=torch.uint8), masks, ("a", "b", "c"))
    values, used = judge_clusters(found, judged)
    assert values["hungarian_accuracy"] == pytest.approx(1 - 9 / 153)
    assert judge_clusters(torch.tensor([2, 0, 1])[found], judged) == (values, used)
    assert used == 3
    known = masks != 255
    shares = [((found == k) & (masks == k)).sum() / (((found == k) & known) | (masks == k)).sum() for k in range(3)]
    assert values["matched_miou"] == pytest.approx(float(torch.stack(shares).mean()))


def test_k_means_parts_plain_colours_and_learns_from_the_training_images_alone() -> None:
    colors = torch.tensor([[250, 0, 0], [0, 250, 0], [0, 0, 250]], dtype=torch.uint8)
    truth = torch.arange(3).repeat_interleave(8).expand(4, 24, 24)
    images = colors[truth].movedim(-1, 1)
    found = kmeans(images[:2], images[2:], 3, 0)
    inner = [found[:, :, 8 * k + 3 : 8 * k + 5].unique() for k in range(3)]
    assert sorted(int(x) for x in torch.cat(inner)) == [0, 1, 2]
    assert torch.equal(found, kmeans(images[:2], images[2:], 3, 0))
    assert torch.equal(found[:1], kmeans(images[:2], images[2:3], 3, 0))


def test_crops_follow_from_seed_and_step_and_keep_images_with_their_instances() -> None:
    pairs = []
    for H, W in ((20, 30), (9, 12), (16, 16)):
        instances = torch.randint(0, 5, (H, W))
        pairs.append((instances.float().expand(3, H, W) / 4 + 0.5, instances))
    crops = Crops(pairs, (16, 16), 8, 3, turn=True)
    batch = crops(2)
    assert all(torch.equal(batch[name], Crops(pairs, (16, 16), 8, 3, turn=True)(2)[name]) for name in batch)
    assert not torch.equal(batch["instances"], crops(3)["instances"])
    inside = batch["instances"] >= 0
    assert inside.any()
    assert not inside.all()  # the second image is smaller than a crop
    expected = batch["instances"].float() / 4 + 0.5
    assert torch.equal(batch["image"][:, 1], expected.where(inside, 0.0))


def test_components_are_those_of_scikit_image() -> None:
    foreground = torch.rand(40, 40)
    labels, scores = components(foreground, min_size=4)
    wanted = measure.label((foreground > 0.5).numpy(), connectivity=1)
    kept = [r for r in measure.regionprops(wanted, foreground.numpy()) if r.area > 4]
    assert len(scores) == len(kept) == int(labels.max())
    for k, region in enumerate(kept, 1):
        assert torch.equal(labels == k, torch.from_numpy(wanted == region.label))
        assert float(scores[k - 1]) == pytest.approx(region.intensity_mean, rel=1e-5)


SHORT: dict[str, tuple[str, dict[str, Any]]] = {
    "camvid": ("es_crf", {"size": (24, 32), "steps": 2, "batch": 2}),
    "sentinel2_rgbnir": ("sgseg", {"size": (16, 16), "steps": 2, "batch": 2}),
    "penn_fudan": ("affinity", {"size": (32, 32), "steps": 2, "batch": 2}),
}


@pytest.mark.parametrize("dataset", SHORT)
def test_a_run_has_the_metrics_of_its_tables_and_is_the_same_again(dataset: str, shared_data: Path) -> None:
    name, changes = SHORT[dataset]
    protocol = dataclasses.replace(PROTOCOLS[dataset], **changes)
    if dataset == "penn_fudan":
        variants = {key: protocol.options["variants"][key] for key in ("par_flm2", "components")}
        protocol = dataclasses.replace(protocol, options={**protocol.options, "longest": 48, "variants": variants})
    (job,) = plan([protocol], SETUPS, [name], [1])
    run: Any = {"semantic": run_semantic, "unsupervised": run_unsupervised, "instances": run_instances}[protocol.task]
    (values, details), again = (run(job, shared_data, torch.device("cpu"), learn="val", judge="val") for _ in range(2))
    assert values == again[0]
    assert details["last_loss"] == again[1]["last_loss"]
    for table in TABLES:
        for line in table.lines:
            run_name, _, variant = line.run.partition("/")
            if table.dataset == dataset and run_name == name and variant in values:
                assert set(table.metrics) <= values[variant].keys()
    assert all(math.isfinite(x) for metrics in values.values() for x in metrics.values())


def test_every_labelled_row_starts_from_the_backbone_of_its_base() -> None:
    by_name = {setup.name: setup for setup in SETUPS["camvid"]}
    network = {"num_classes": 11, **PROTOCOLS["camvid"].options["network"], "width": 0.0625}
    weights = {name: build(setup, None, 3, **network).state_dict() for name, setup in by_name.items() if not setup.base}
    for setup in by_name.values():
        if setup.base is None:
            assert all(torch.equal(x, weights["aspp"][n]) for n, x in weights[setup.name].items() if "backbone" in n)
            continue
        found = build(setup, by_name[setup.base], 3, **network).state_dict()
        shared = [name for name, x in weights[setup.base].items() if name in found and found[name].shape == x.shape]
        assert all(torch.equal(found[name], weights[setup.base][name]) for name in shared), setup.name
        backbone = [name for name in found if name.startswith("backbone.")]
        assert set(backbone) <= set(shared)


# Statistics.


def test_paired_difference_is_that_of_scipy() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 7))
    method = {seed: float(x) for seed, x in enumerate(a)} | {9: 5.0}
    base = {seed: float(x) for seed, x in enumerate(b)} | {8: 7.0}
    found = compare_seeds(method, base)
    test = stats.ttest_rel(a, b)
    interval = test.confidence_interval(0.95)
    assert found["seeds"] == list(range(7))
    assert found["mean"] == pytest.approx((a - b).mean())
    assert found["std"] == pytest.approx((a - b).std(ddof=1))
    assert found["p"] == pytest.approx(test.pvalue)
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))
    flips = stats.permutation_test((a - b,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert found["p_sign_flip"] == pytest.approx(flips.pvalue)


def test_too_few_seeds_and_equal_differences_are_not_tested() -> None:
    nothing = compare_seeds({0: 1.0}, {1: 1.0})
    assert nothing["seeds"] == []
    assert nothing["mean"] is nothing["p"] is nothing["smallest_detectable"] is None
    one = compare_seeds({0: 1.0}, {0: 0.5})
    assert (one["mean"], one["p"], one["std"], one["smallest_detectable"]) == (0.5, None, None, None)
    same = compare_seeds({0: 0.3, 1: 0.5}, {0: 0.3, 1: 0.5})
    assert (same["mean"], same["p"], same["smallest_detectable"]) == (0.0, None, 0.0)


@pytest.mark.parametrize("count", [3, 5, 10])
def test_the_smallest_detectable_difference_is_found_in_four_of_five_experiments(count: int) -> None:
    std = 0.7
    delta = smallest_detectable(std, count)
    assert delta is not None
    random, trials = np.random.default_rng(count), 40_000
    differences = random.normal(delta, std, (trials, count))
    found = stats.ttest_1samp(differences, 0.0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=4 * math.sqrt(0.16 / trials))


def test_the_smallest_detectable_difference_nears_the_normal_one_and_scales() -> None:
    normal = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    found = smallest_detectable(2.0, 10_000)
    assert found == pytest.approx(2.0 * normal / 100, rel=1e-3)
    three = smallest_detectable(1.0, 3)
    assert three is not None
    assert smallest_detectable(0.5, 3) == pytest.approx(three / 2)
    assert smallest_detectable(1.0, 1) is None


# Tables and the page.


def test_rows_have_every_field_and_holm_covers_the_table(tmp_path: Path) -> None:
    table = dataclasses.replace(TABLE, metrics=("miou", "boundary_f"))
    random = np.random.default_rng(1)
    known = {
        line: {metric: {s: float(random.normal()) for s in range(4)} for metric in table.metrics}
        for line in ("base", "more")
    }
    rows = result_rows([table], {"toy": known})
    assert len(rows) == 4
    wanted = {"paper", "table", "row", "dataset", "metric", "seeds", "values", "mean", "std", "paired_difference"}
    assert all(wanted <= row.keys() for row in rows)
    assert [row["paired_difference"] is None for row in rows] == [True, True, False, False]
    p = [row["paired_difference"]["p"] for row in rows[2:]]
    assert [row["paired_difference"]["p_holm"] for row in rows[2:]] == pytest.approx(
        [min(1.0, 2 * min(p)) if x == min(p) else max(min(1.0, 2 * min(p)), max(p)) for x in p]
    )
    assert json.loads(json.dumps(rows)) == rows


def test_the_page_has_every_row_with_runs_and_without(tmp_path: Path) -> None:
    def write() -> str:
        page.write(tmp_path, [TABLE], {"toy": PROTOCOL}, ROWS, Runs(tmp_path / "runs"))
        return (tmp_path / "README.md").read_text()

    empty = write()
    assert "| Base | - |" in empty
    assert "| More | - |" in empty
    assert "0 of 6 runs" in empty
    assert not (tmp_path / "toy.png").exists()
    do(tmp_path / "runs", plan([PROTOCOL], ROWS))
    full = write()
    assert "| Base | 3 |" in full
    assert "| More | 2 | " in full
    assert "+5.0" in full
    assert "6 of 6 runs" in full
    assert "![differences on toy](toy.png)" in full
    assert 0 < (tmp_path / "toy.png").stat().st_size < 100_000
    rows = json.loads((tmp_path / "results.json").read_text())
    assert [row["row"] for row in rows] == ["base", "more"]


def test_every_line_of_every_table_is_run_and_its_base_has_as_many_seeds() -> None:
    for name in PROTOCOLS:
        names = [setup.name for setup in SETUPS[name]]
        assert len(set(names)) == len(names)
    assert {table.dataset for table in TABLES} == set(PROTOCOLS)
    assert len({table.key for table in TABLES}) == len(TABLES)
    for table in TABLES:
        seeds = {setup.name: setup.seeds for setup in SETUPS[table.dataset]}
        runs = [line.run.split("/")[0] for line in table.lines]
        assert set(runs) <= seeds.keys(), table.key
        assert all(seeds[run] >= 3 for run in runs)
    for name in PROTOCOLS:
        by_name = {setup.name: setup for setup in SETUPS[name]}
        for setup in by_name.values():
            assert setup.base is None or by_name[setup.base].seeds >= min(setup.seeds, 3)
            json.dumps([setup.options, setup.changes])


def test_rows_that_the_papers_turn_on_have_five_seeds() -> None:
    seeds = {setup.name: setup.seeds for setup in SETUPS["camvid"]}
    assert all(seeds[name] >= 5 for name in ("deeplabv3plus", "ssp", "msp", "es_crf", "aspp", "cdgc_1.0"))
