"""Sums over the processes of a distributed training."""

from __future__ import annotations

from torch import Tensor
from torch import distributed as dist

__all__ = ["num_processes", "sum_over_processes"]


def num_processes() -> int:
    """How many processes train together; 1 where there is no process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_processes(x: Tensor) -> Tensor:
    """The sum of every process's x, on each of them; gradients are those of one's own x.

    A loss made of such sums is the same number everywhere, and its gradients in a process are that process's share of
    them. DDP averages gradients, so the loss is multiplied by the number of processes.

    Args:
        x: of one shape in all processes.
    """
    if num_processes() == 1:
        return x
    total = x.detach().clone()
    dist.all_reduce(total)
    return total if not x.requires_grad else x + (total - x.detach())
