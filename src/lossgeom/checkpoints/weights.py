"""Whether the weights of a file are those of a model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor
from torch.nn.parameter import UninitializedParameter

from lossgeom.checkpoints.names import PARALLEL
from lossgeom.messages.wording import printable

State = dict[str, Tensor]
NAMED = 3  # of the names in a list, in an error


class CheckpointError(ValueError):
    """A file does not hold the weights of the model, or cannot be read safely."""

    def __str__(self) -> str:
        return printable(str(self.args[0]))


def completed(state: State, own: Mapping[str, Tensor], path: Path) -> State:
    """Give a value to every name of a weight that has several, if there is one for any."""
    places = defaultdict(list)
    for name, tensor in own.items():
        places[id(tensor)].append(name)
    complete = dict(state)
    for names in places.values():
        given = [name for name in names if name in state]
        if not all(_equal(state[given[0]], state[name]) for name in given[1:]):
            raise CheckpointError(
                f"{few(given)} are one weight in the model and different ones in {path}; make "
                "the model without sharing them"
            )
        if given:
            complete.update((name, state[given[0]]) for name in names if name not in state)
    return complete


def _equal(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal in every number; a NaN is equal to a NaN."""
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())


def check_tensors(state: State, own: Mapping[str, Tensor], path: Path) -> None:
    """Compare tensors with those of the same names in the model, before they are read."""
    strange = [name for name in state if name not in own]
    if len(strange) > len(own):  # then nothing that a model does with names explains them
        check_names([name for name in own if name not in state], strange, path)
    wrong = []
    for name in (name for name in state if name in own):
        here, there = state[name], own[name]
        if isinstance(there, UninitializedParameter):
            continue
        if here.shape != there.shape:
            wrong.append(f"{name} is {tuple(here.shape)} there and {tuple(there.shape)} here")
        elif _kind(here) != _kind(there):
            wrong.append(f"{name} is {here.dtype} there and {there.dtype} here")
    if wrong:
        raise CheckpointError(
            f"{path} does not fit the model: {few(wrong, '; ')}. Make the model with the settings "
            "that it was trained with"
        )


def _kind(tensor: Tensor) -> tuple[bool, bool]:
    """The kind of numbers, which a cast must keep: quantised weights have scales of their own."""
    return tensor.is_floating_point(), tensor.is_complex()


def check_names(missing: list[str], unexpected: list[str], path: Path) -> None:
    """Raise if names are missing in a file, or not in the model."""
    found = {"missing in the file": missing, "not in the model": unexpected}
    said = [f"{len(names)} {what} ({few(names)})" for what, names in found.items() if names]
    if said:
        raise CheckpointError(
            f"{path} does not fit the model: {'; '.join(said)}. Make the model with the settings "
            "that it was trained with, or rename what the file holds"
        )


def differences(prefix: str, state: State, own: Mapping[str, Tensor]) -> list[str]:
    """What is different between a file and a model, in names and types."""
    notes = (
        [f"names of the checkpoint read without {prefix!r}"] if prefix.replace(PARALLEL, "") else []
    )
    pairs = {(str(t.dtype), str(own[n].dtype)) for n, t in state.items() if n in own}
    notes += [
        f"checkpoint in {there}, put into a model in {here}"
        for there, here in sorted(pairs)
        if there != here
    ]
    return notes


def few(things: Iterable[object], separator: str = ", ") -> str:
    """The first of some things, and how many more there are."""
    listed = list(map(str, things))
    more = f"{separator}and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    return separator.join(listed[:NAMED]) + more
