"""A plain training loop: SGD with momentum or AdamW, the poly schedule, everything drawn from the seed and the step."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

import graphseg.models
from benchmarks.reproduce.data import generator
from benchmarks.reproduce.setups import Protocol, Setup

DRAWS = 2  # the purpose of the streams that networks draw from; 0 and 1 are those of `Batches`
TAIL = 20  # last steps whose mean loss is kept


def build(setup: Setup, base: Setup | None, seed: int, **options: Any) -> Any:
    """A network with initial weights from the seed. Those that the base has too, it has from the base.

    Args:
        setup: its class and options.
        base: the run it is compared with.
        seed: of the weights.
        options: further keyword arguments, which the row's own overrule.
    """
    network = _build(setup, seed, options)
    if base is not None:
        shared = {name: x.shape for name, x in network.state_dict().items()}
        weights = _build(base, seed, options).state_dict()
        same = {name: x for name, x in weights.items() if shared.get(name) == x.shape}
        network.load_state_dict(same, strict=False)
    return network


def find_class(name: str) -> Any:
    """A network of `graphseg.models` by its name, or of another module as "module:Class".

    Args:
        name: of the class.

    Raises:
        LookupError: where there is none.
    """
    module, _, attribute = name.rpartition(":")
    place = importlib.import_module(module) if module else graphseg.models
    found = getattr(place, attribute, None)
    if found is None:
        raise LookupError(f"got {name!r}, expected a class in {place.__name__}")
    return found


def train(
    network: Module,
    batches: Callable[[int], Mapping[str, Tensor]],
    protocol: Protocol,
    seed: int,
    device: torch.device,
    **options: Any,
) -> dict[str, float]:
    """Trains in place; returns the loss of the first step and the mean of the last ones.

    Args:
        network: with `losses` and `parameter_groups`.
        batches: gives batch number `step`.
        protocol: steps, optimiser and rates; a rate for "all" is that of every group without one.
        seed: of what is drawn.
        device: of the network.
        options: further keyword arguments of `losses`. Two are taken out: "stages", a list of (stage, share of the
            steps), decides over the keyword `stage`; "slower" is that of `make_optimizer`.

    Raises:
        FloatingPointError: for a loss that is not finite.
    """
    stages = options.pop("stages", None)
    optimizer = make_optimizer(network, protocol, options.pop("slower", {}))
    first = [group["lr"] for group in optimizer.param_groups]
    network.train()
    losses = []
    for step in range(protocol.steps):
        for group, lr in zip(optimizer.param_groups, first, strict=True):
            group["lr"] = lr * (1 - step / protocol.steps) ** protocol.power
        batch = {name: x.to(device) for name, x in batches(step).items()}
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator(seed, DRAWS, step))))  # of dropout
        draws = torch.Generator(device).manual_seed(generator(seed, DRAWS + 1, step).initial_seed())
        if stages is not None:
            options["stage"] = stage_at(stages, step, protocol.steps)
        loss: Tensor = network.losses(batch, generator=draws, **options)["loss"]  # type: ignore[operator]
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(f"got loss {losses[-1]} at step {step}, expected a finite number")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    network.eval()
    tail = losses[-TAIL:]
    return {"first_loss": losses[0], "last_loss": math.fsum(tail) / len(tail)}


def make_optimizer(
    network: Module, protocol: Protocol, slower: Mapping[str, float] | None = None
) -> torch.optim.Optimizer:
    """The optimiser of a protocol over the groups of parameters that the network names.

    Args:
        network: with `parameter_groups`.
        protocol: optimiser, rates and weight decay.
        slower: factor on the rate of parameters whose name begins with the key; they are not decayed.
    """
    factors = {
        id(p): factor
        for prefix, factor in (slower or {}).items()
        for name, p in network.named_parameters()
        if name.startswith(prefix)
    }
    groups: dict[str, list[Any]] = network.parameter_groups()  # type: ignore[operator]
    given = []
    for name, parameters in groups.items():
        rate = protocol.rates[name] if name in protocol.rates else protocol.rates["all"]
        if plain := [p for p in parameters if id(p) not in factors]:
            given.append({"params": plain, "lr": rate})
        for p in parameters:
            if id(p) in factors:
                given.append({"params": [p], "lr": rate * factors[id(p)], "weight_decay": 0.0})
    if protocol.optimizer == "sgd":
        return torch.optim.SGD(given, lr=0.0, momentum=0.9, weight_decay=protocol.weight_decay)
    if protocol.optimizer == "adamw":
        return torch.optim.AdamW(given, lr=0.0, weight_decay=protocol.weight_decay)
    raise ValueError(f"got optimizer={protocol.optimizer!r}, expected sgd or adamw")


def stage_at(stages: list[tuple[str, float]], step: int, steps: int) -> str:
    """The stage of a step, where each takes its share of the steps.

    Args:
        stages: (name, share) in their order; the last one takes what is left.
        step: from 0.
        steps: of all.
    """
    end = 0.0
    for name, share in stages[:-1]:
        end += share * steps
        if step < end:
            return name
    return stages[-1][0]


def _build(setup: Setup, seed: int, options: Mapping[str, Any]) -> Any:
    torch.manual_seed(seed)
    return find_class(setup.network)(**{**options, **setup.options})
