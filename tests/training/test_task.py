"""A step: the recipe's optimiser, rate, stage and draws, and nothing that depends on what came before it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.testing import assert_close

from graphseg.training import Recipe, TrainingTask, network_of
from graphseg.training.task import learning_rate_factor, make_optimizer
from tests.training._small import Scenes, tiny


class Recorder(nn.Module):
    """A network that writes down how it is called; its loss is the sum of its weights."""

    def __init__(self, groups: tuple[str, ...] = ("all",)) -> None:
        super().__init__()
        self.options: dict[str, Any] = {}
        self.weights = nn.ParameterDict({name: nn.Parameter(torch.ones(2)) for name in groups})
        self.norm = nn.BatchNorm2d(3)
        self.seen: list[dict[str, Any]] = []

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {name: [weight] for name, weight in self.weights.items()}

    def losses(self, batch: Any, *, reduce: Any = None, generator: Any = None, **more: Any) -> dict[str, Tensor]:
        drawn = torch.rand((), generator=generator).item(), torch.rand(()).item()
        self.seen.append({"drawn": drawn, "training": self.training, "norm": self.norm.training, **more})
        total = torch.stack([weight.sum() for weight in self.weights.values()]).sum()
        return {"loss": total, "term": total.detach() / 2}


def step(task: TrainingTask, number: int, batch: Any = None) -> Tensor:
    """One training step, as the trainer takes it at that number of updates."""
    batch = {"image": torch.zeros(2, 3, 4, 4)} if batch is None else batch
    type(task).global_step = property(lambda self: number)  # type: ignore[assignment]
    task.on_train_batch_start(batch, 0)
    return task.training_step(batch, 0)


class Task(TrainingTask):
    """Without a trainer: at a step that the test names, and logging into a dict."""

    logged: dict[str, float]

    def log(self, name: str, value: Any, **options: Any) -> None:  # type: ignore[override]
        self.logged = getattr(self, "logged", {}) | {name: float(value)}


def test_what_a_step_draws_depends_on_seed_and_step_alone():
    def drawn(seed: int, number: int) -> tuple[float, float]:
        network = Recorder()
        task = Task(network, tiny(), seed)
        for other in (0, 9, number):  # whatever was done before
            step(task, other)
        return network.seen[-1]["drawn"]

    first = drawn(0, 3)
    torch.manual_seed(99)
    assert drawn(0, 3) == first
    everything = [drawn(seed, number) for seed in (0, 1) for number in range(5)]
    assert len({value for pair in everything for value in pair}) == 20


def test_losses_are_logged_by_name():
    task = Task(Recorder(), tiny())
    loss = step(task, 0)
    assert loss.item() == 2 and loss.requires_grad
    assert task.logged == {"train/loss": 2.0, "train/term": 1.0}


@pytest.mark.parametrize("frozen", [False, True])
def test_norms_are_frozen_on_request(frozen):
    network = Recorder().train()
    step(Task(network, tiny(freeze_norm=frozen)), 0)
    assert network.seen[0]["training"] and network.seen[0]["norm"] is not frozen


def test_frozen_norms_keep_their_statistics():
    recipe = tiny(freeze_norm=True)
    network = network_of(recipe, Scenes(1))
    before = {name: value.clone() for name, value in network.named_buffers()}
    batch = {"image": torch.rand(2, 3, 16, 20), "mask": torch.randint(0, 3, (2, 16, 20))}
    step(Task(network.train(), recipe), 0, batch).backward()
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    assert norms and all(module.weight.grad is not None for module in norms)  # but they learn


def test_stages_last_as_long_as_they_say():
    recipe = tiny("SGSeg", stages=(("spnn", 2), ("joint", 3), ("segment", 1)))
    network = Recorder(("spnn", "gnn", "cnn"))
    for number in range(8):
        step(Task(network, recipe), number)
    expected = ["spnn", "spnn", "joint", "joint", "joint", "segment", "segment", "segment"]
    assert [seen["stage"] for seen in network.seen] == expected
    plain = Recorder()
    step(Task(plain, tiny()), 0)
    assert "stage" not in plain.seen[0]


# Optimisers and schedules


def updated(recipe: Recipe, network: Recorder, steps: int) -> dict[str, Tensor]:
    """The weights after steps of gradient (1, 2), as Lightning takes them."""
    found = Task(network, recipe).configure_optimizers()
    optimizer, schedule = found["optimizer"], found["lr_scheduler"]["scheduler"]
    assert found["lr_scheduler"]["interval"] == "step"
    for _ in range(steps):
        optimizer.zero_grad()
        for weight in network.weights.values():
            weight.grad = torch.tensor([1.0, 2.0])
        optimizer.step()
        schedule.step()
    return {name: weight.detach() for name, weight in network.weights.items()}


def test_sgd_is_the_formula():
    recipe = tiny(lr=0.1, momentum=0.8, weight_decay=0.01, max_steps=5, power=0.9)
    got = updated(recipe, Recorder(), 4)["all"]
    w, v, g = torch.ones(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64), torch.tensor([1.0, 2.0])
    for t in range(4):
        v = 0.8 * v + g + 0.01 * w
        w = w - 0.1 * (1 - t / 5) ** 0.9 * v
    assert_close(got.double(), w, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("optimizer", "decoupled"), [("adam", False), ("adamw", True)])
def test_adam_is_the_formula_with_a_rate_for_each_part(optimizer, decoupled):
    rates = {"spnn": 0.1, "gnn": 0.01}
    recipe = tiny(optimizer=optimizer, lr={**rates, "cnn": 1.0}, weight_decay=0.1, schedule="constant")
    got = updated(recipe, Recorder(("spnn", "gnn")), 3)  # parts that are left out need no rate
    for name, lr in rates.items():
        w = torch.ones(2, dtype=torch.float64)
        m = v = torch.zeros(2, dtype=torch.float64)
        for t in range(1, 4):
            g = torch.tensor([1.0, 2.0], dtype=torch.float64)
            if decoupled:
                w = w - lr * 0.1 * w
            else:
                g = g + 0.1 * w
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            w = w - lr * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
        assert_close(got[name].double(), w, rtol=1e-5, atol=0)


def test_schedules_are_their_formulas():
    poly = learning_rate_factor(tiny(max_steps=10, power=0.9))
    assert [poly(t) for t in (0, 5, 10, 11)] == pytest.approx([1, 0.5**0.9, 0, 0])
    step_ = learning_rate_factor(tiny(schedule="step", step_size=3, gamma=0.7))
    assert [step_(t) for t in range(7)] == pytest.approx([1, 1, 1, 0.7, 0.7, 0.7, 0.49])
    assert learning_rate_factor(tiny(schedule="constant"))(1000) == 1


def test_a_part_without_a_rate_is_refused():
    with pytest.raises(ValueError, match="got parameter group='gnn', expected one of 'spnn'"):
        make_optimizer(Recorder(("spnn", "gnn")), tiny(lr={"spnn": 0.1}))


def test_every_parameter_of_every_network_is_trained_once():
    for name in ("MSPNet", "ESCRFNet", "CDGCNet", "SGSeg", "AffinityInstances"):
        recipe = tiny(name)
        network = network_of(recipe, Scenes(1))
        listed = [id(p) for group in make_optimizer(network, recipe).param_groups for p in group["params"]]
        assert sorted(listed) == sorted(id(p) for p in network.parameters())
