"""Whether somebody looks at the messages of a layer, so that they have to be made."""

from __future__ import annotations

from torch_geometric.nn import MessagePassing


def is_watched(layer: MessagePassing, base: type[MessagePassing]) -> bool:
    """Whether an explainer, a hook, or a subclass of `base` with steps of its own deals with the layer's messages."""
    steps, times = ("propagate", "message", "aggregate"), ("pre_hooks", "hooks")
    return (
        bool(layer.explain)
        or any(getattr(type(layer), step) is not getattr(base, step) for step in ("message", "aggregate", "update"))
        or any(getattr(layer, f"_{step}_forward_{when}") for step in steps for when in times)
    )
