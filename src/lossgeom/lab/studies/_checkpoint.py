"""What a checkpoint holds of a model and of what trains it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn
from torch.optim import Optimizer

PREFIX, OTHER = "optimizer.", "regularizer."


@runtime_checkable
class Stateful(Protocol):
    """What goes on from step to step, such as a quantity that is held."""

    def state_dict(self) -> Mapping[str, Tensor]:
        """What the next step starts from."""

    def load_state_dict(self, state: Mapping[str, Tensor], /) -> object:
        """Go on from there."""


def arrays_of(
    model: nn.Module, optimizers: Sequence[Optimizer], others: Sequence[Stateful] = ()
) -> dict[str, Tensor]:
    """Parameters and buffers, and the state of optimisers and others, but not their settings.

    The order of the data and random numbers have no state: they are functions of seed and step.
    """
    held: dict[str, Tensor] = dict(model.state_dict())
    for place, optimizer in enumerate(optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            known = {name: value for name, value in state.items() if value is not None}
            held |= {f"{PREFIX}{place}.{index}.{name}": value for name, value in known.items()}
    for place, other in enumerate(others):
        held |= {f"{OTHER}{place}.{name}": value for name, value in other.state_dict().items()}
    return held


def restore(
    model: nn.Module,
    optimizers: Sequence[Optimizer],
    held: Mapping[str, Tensor],
    others: Sequence[Stateful] = (),
) -> None:
    """Put them back, into optimisers and others that were made with the settings that they had."""
    own = {name: held[name] for name in held if not name.startswith((PREFIX, OTHER))}
    model.load_state_dict(own)
    states: list[dict[int, dict[str, Any]]] = [{} for _ in optimizers]
    for name in held:
        if name.startswith(PREFIX):
            place, index, key = name.removeprefix(PREFIX).split(".")
            states[int(place)].setdefault(int(index), {})[key] = held[name]
    for optimizer, state in zip(optimizers, states, strict=True):
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})
    for number, other in enumerate(others):
        prefix = f"{OTHER}{number}."
        names = [name for name in held if name.startswith(prefix)]
        other.load_state_dict({name.removeprefix(prefix): held[name] for name in names})
