"""Activation checkpointing of layers of transformers, which have it in train mode."""

from __future__ import annotations

from functools import cache, partial
from typing import Any, cast

from torch import nn
from torch.utils.checkpoint import checkpoint

LAYER = "GradientCheckpointingLayer"


def computes_again(part: nn.Module) -> bool:
    """Let the layers of a model that has switched checkpointing on be computed again in both modes.

    Returns:
        Whether there are any that do it themselves; in older models, that is left to what calls
        them, and given up.
    """
    cast(Any, part).gradient_checkpointing = False
    if _is_a(LAYER, part):
        compute_again(part)
    return any(_is_a(LAYER, inner) for inner in part.modules())


def compute_again(part: nn.Module) -> nn.Module:
    """Let a module be computed again in backward passes; return it."""
    part.__class__ = _computed_again(cast(Any, type(part)))
    return part


@cache
def _computed_again(kind: Any) -> Any:
    """The type of a layer that keeps no keys and values, as transformers has it then."""

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        kept = {name: None if _is_a("Cache", x) else x for name, x in kwargs.items()}
        kept |= {"use_cache": False} if "use_cache" in kwargs else {}
        given = [None if _is_a("Cache", x) else x for x in args]
        run = partial(kind.forward, self, *given, **kept)
        return checkpoint(run, use_reentrant=False)

    return type(kind.__name__, (kind,), {"forward": forward})


def _is_a(name: str, thing: Any) -> bool:
    return any(kind.__name__ == name for kind in type(thing).__mro__)
