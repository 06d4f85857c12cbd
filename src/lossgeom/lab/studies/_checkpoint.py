"""What a checkpoint holds of a model and of the optimisers that train it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

PREFIX = "optimizer."


def arrays_of(model: nn.Module, optimizers: Sequence[Optimizer]) -> dict[str, Tensor]:
    """Parameters and buffers, and the state of optimisers, but not their settings."""
    held: dict[str, Tensor] = dict(model.state_dict())
    for place, optimizer in enumerate(optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            known = {name: value for name, value in state.items() if value is not None}
            held |= {f"{PREFIX}{place}.{index}.{name}": value for name, value in known.items()}
    return held


def restore(model: nn.Module, optimizers: Sequence[Optimizer], held: Mapping[str, Tensor]) -> None:
    """Put them back, into optimisers that were made with the settings that they had."""
    model.load_state_dict({name: held[name] for name in held if not name.startswith(PREFIX)})
    states: list[dict[int, dict[str, Any]]] = [{} for _ in optimizers]
    for name in held:
        if name.startswith(PREFIX):
            place, index, key = name.removeprefix(PREFIX).split(".")
            states[int(place)].setdefault(int(index), {})[key] = held[name]
    for optimizer, state in zip(optimizers, states, strict=True):
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})
