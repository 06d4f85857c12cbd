"""Batches of any form, passed over again and again, always the same data."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

TARGET_KEYS = ("labels", "label", "targets", "target")
PLAIN = (int, float, str, bytes, type(None))

Fingerprint = tuple[tuple[str, ...], ...]
Target = int | str | Callable[[Any], Any] | None


@dataclass(frozen=True)
class Batch:
    """A batch, taken apart.

    Attributes:
        index: its place in the data.
        raw: the batch as its owner wrote it, on the parameters' device.
        inputs: what the model is called with: a tuple of positional or a dict of keyword arguments.
        targets: what a loss compares the outputs with; ``None`` where the batch does not say.
        target: where the targets are, if that had to be said.
        rows: whether a tensor has a row for each example, one by one, where that was tried; see
            :meth:`lossgeom.Problem.in_examples`.
    """

    index: int
    raw: Any
    inputs: tuple[Any, ...] | dict[str, Any]
    targets: Any
    target: Target = None
    rows: tuple[bool, ...] | None = None

    @classmethod
    def of(cls, raw: Any, index: int = 0, target: Target = None) -> Batch:
        """Take a batch apart.

        ``(x, y)`` has inputs x and targets y; x may be a tuple of positional or a mapping of
        keyword arguments. Of a mapping, the targets are at ``labels``, ``label``, ``targets`` or
        ``target``, and all the rest are keyword arguments. Which of three or more parts is the
        target cannot be known: it has to be said.

        Args:
            raw: the batch as its owner wrote it.
            index: its place in the data.
            target: the place of the targets among the parts, or their key, where all the rest are
                inputs; or a function that makes them of the batch, which leaves the inputs as they
                are.

        Raises:
            TypeError: for a batch of another form, or one without such a target.
        """
        made = target(raw) if callable(target) else None
        where = None if callable(target) else target
        if isinstance(raw, Mapping):
            inputs, targets = _apart(raw, where, index)
        else:
            inputs, targets = _parts(raw, where, index)
        return cls(index, raw, inputs, made if callable(target) else targets, target)

    def made_of(self, raw: Any) -> Batch:
        """The same batch with other tensors in it."""
        return replace(Batch.of(raw, self.index, self.target), rows=self.rows)

    @property
    def arguments(self) -> tuple[Any, ...] | dict[str, Any]:
        """The inputs, for a model that is called with them and with nothing else.

        Raises:
            TypeError: if it is not said which part of the batch is not an input.
        """
        said = isinstance(self.target, (int, str))
        if not said and isinstance(self.raw, (tuple, list)) and len(self.raw) > 2:
            raise TypeError(
                f"batch {self.index} has {len(self.raw)} parts, and which of them is the target is "
                f"not said; {self.remedy}"
            )
        return self.inputs

    @property
    def remedy(self) -> str:
        """How to say what the targets of such a batch are."""
        if isinstance(self.raw, Mapping):
            keys = ", ".join(map(repr, TARGET_KEYS))
            return (
                f"expected a mapping with the targets at {keys}, or at a key that "
                "Problem(..., target='key') names, or (inputs, targets)"
            )
        return (
            "expected (inputs, targets), with several inputs as ((x1, x2), targets), or the place "
            "of the targets as in Problem(..., target=-1), where all the rest are inputs"
        )

    @property
    def input(self) -> Tensor:
        """The one tensor that the model is called with.

        Raises:
            TypeError: if the model takes several inputs.
        """
        values = tuple(self.inputs.values()) if isinstance(self.inputs, dict) else self.inputs
        if len(values) != 1 or not isinstance(values[0], Tensor):
            raise TypeError(
                f"expected a model with a single tensor as its input, got batch {self.index} with "
                f"{described(self.inputs)}; hold others fixed as constants in "
                "Problem(..., forward=lambda model, batch: model(batch[0], mask)), not in the batch"
            )
        if not self.has_rows(values[0]):
            raise ValueError(
                f"expected an input with one row for each of {len(self)} examples, got a tensor of "
                f"shape {tuple(values[0].shape)}; permute it in Problem(..., forward=...)"
            )
        return values[0]

    def with_tensor(self, old: Tensor, new: Tensor) -> Batch:
        """The same batch with another tensor in the place of one of its inputs."""
        return self._with_inputs_of(map_tensors(lambda t: new if t is old else t, self.raw))

    def copied(self) -> Batch:
        """The same batch in tensors of its own, for a model that works in place on its input."""
        return self._with_inputs_of(map_tensors(torch.clone, self.raw))

    def moved(self, theta: Tensor) -> Batch:
        """The same batch where the parameters are, in their dtype."""
        return self.made_of(to_parameters(self.raw, theta))

    def _with_inputs_of(self, raw: Any) -> Batch:
        where = None if callable(self.target) else self.target
        made = replace(self, target=where).made_of(raw)
        return replace(made, targets=self.targets, target=self.target)

    def __len__(self) -> int:
        first = _first_dimensions(self.raw)[0]
        if self.rows is not None:
            first = next((t for t, row in self._marked() if row), first)
        elif isinstance(self.targets, Tensor) and self.targets.ndim:
            n = len(self.targets)
            if any(n in tensor.shape[:2] for tensor in tensors_of(self.inputs)):
                return n  # also where a tensor that all examples share comes first
        return len(first)

    def _marked(self) -> Iterator[tuple[Tensor, bool]]:
        """The tensors, and whether they have a row for each example."""
        tensors = list(tensors_of(self.raw))
        if self.rows is not None:
            return zip(tensors, self.rows, strict=True)
        n = len(self)
        return ((tensor, tensor.ndim > 0 and len(tensor) == n) for tensor in tensors)

    def has_rows(self, tensor: Tensor) -> bool:
        """Whether a tensor of the batch has a row for each example, as far as that was tried."""
        return self.rows is None or any(row for other, row in self._marked() if other is tensor)

    def each_row(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with a function of the tensors that have a row for each example."""
        marks = iter([row for _, row in self._marked()])
        raw = map_tensors(lambda t: function(t) if next(marks) else t, self.raw)
        return self.made_of(raw)

    def examples(self, start: int, stop: int) -> Batch:
        """Some of the examples: rows of the tensors that have one for each, and all of the others.

        Which these are is known of a batch in examples, see :meth:`lossgeom.Problem.in_examples`;
        of others it is those whose first dimension is the number of examples.
        """
        return self.each_row(lambda tensor: _rows(tensor, start, stop))


def _apart(
    raw: Mapping[str, Any], where: int | str | None, index: int
) -> tuple[dict[str, Any], Any]:
    """The inputs and targets of a mapping."""
    if where is not None and where not in raw:
        raise TypeError(
            f"expected batch {index} to have its targets at {where!r}, as target= says, got "
            f"{described(raw)}"
        )
    found = [key for key in TARGET_KEYS if key in raw] if where is None else [where]
    if len(found) > 1:
        raise TypeError(
            f"batch {index} has targets at {' and at '.join(map(repr, found))}; keep one, or say "
            f"which with Problem(..., target={found[0]!r})"
        )
    inputs = {key: value for key, value in raw.items() if key not in found}
    return inputs, raw[found[0]] if found else None  # type: ignore[index]


def _parts(raw: Any, where: int | str | None, index: int) -> tuple[Any, Any]:
    """The inputs and targets of a tuple, or all its parts where it is not known which these are."""
    if not (isinstance(raw, (tuple, list)) and len(raw) > 1):
        raise TypeError(
            f"expected batch {index} as (inputs, targets) or as a mapping, got "
            f"{described(raw)}. A single pair goes in a list, [(inputs, targets)]"
        )
    if where is None and len(raw) > 2:
        return tuple(raw), None
    place = -1 if where is None else where
    if isinstance(place, str) or not -len(raw) <= place < len(raw):
        raise TypeError(
            f"expected batch {index} to have its targets at {place!r}, as target= says, got "
            f"{described(raw)}"
        )
    rest = list(raw)
    targets = rest.pop(place)
    if len(rest) > 1:
        return tuple(rest), targets
    if isinstance(rest[0], Mapping):
        return dict(rest[0]), targets
    positional = isinstance(rest[0], (tuple, list)) and not _is_named(rest[0])
    return tuple(rest[0]) if positional else (rest[0],), targets


def _rows(tensor: Tensor, start: int, stop: int) -> Tensor:
    if tensor.layout == torch.strided:
        return tensor[start:stop]
    places = torch.arange(len(tensor), device=tensor.device)[start:stop]
    coordinates = tensor.to_sparse(layout=torch.sparse_coo).index_select(0, places)
    return coordinates.to_sparse(layout=tensor.layout)


def _first_dimensions(raw: Any) -> list[Tensor]:
    """The tensors of a batch, of which the first says how many examples there are."""
    tensors = [tensor for tensor in tensors_of(raw) if tensor.ndim]
    if any(tensor.is_nested for tensor in tensors):
        raise TypeError(
            "expected batches of plain tensors, got a nested tensor, whose examples differ in "
            "length; pad it with to_padded_tensor, and pass lengths or a mask with it"
        )
    if not tensors:
        raise TypeError(f"expected a batch that holds tensors of examples, got {described(raw)}")
    return tensors


def map_tensors(function: Callable[[Tensor], Tensor], tree: Any, strict: bool = True) -> Any:
    """Apply a function to every tensor of a batch, whatever it is nested in.

    Raises:
        TypeError: if it holds objects that tensors may hide in, unless ``strict`` is False.
    """
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, Mapping):
        mapped = {key: map_tensors(function, value, strict) for key, value in tree.items()}
        if type(tree) is dict or not isinstance(tree, MutableMapping):
            return mapped
        other = copy.copy(tree)  # such as the encodings of Hugging Face
        for key, value in mapped.items():
            other[key] = value
        return other
    if isinstance(tree, (tuple, list)):
        parts = [map_tensors(function, part, strict) for part in tree]
        return type(tree)(*parts) if _is_named(tree) else type(tree)(parts)
    if isinstance(tree, PLAIN) or not strict:
        return tree
    array = type(tree).__module__ == "numpy"
    raise TypeError(
        f"expected batches of tensors in tuples, lists and mappings, got a {type(tree).__name__} "
        f"in one; make it a {'tensor with torch.as_tensor' if array else 'mapping of tensors'}"
    )


def holds_only_tensors(tree: Any) -> bool:
    """Whether cutting the tensors of a batch cuts all that is in it."""
    if isinstance(tree, Mapping):
        return all(holds_only_tensors(value) for value in tree.values())
    if isinstance(tree, (tuple, list)):
        return not _is_named(tree) and all(holds_only_tensors(part) for part in tree)
    return isinstance(tree, Tensor)


def _is_named(tree: Any) -> bool:
    """Whether a tuple is a named one, such as a PackedSequence, which is one thing."""
    return isinstance(tree, tuple) and "_fields" in dir(type(tree))


def tensors_of(tree: Any) -> Iterator[Tensor]:
    """The tensors of a batch, in order."""
    found: list[Tensor] = []
    map_tensors(lambda tensor: found.append(tensor) or tensor, tree)  # type: ignore[func-returns-value]
    yield from found


def described(thing: Any) -> str:
    """What something is, in words."""
    if isinstance(thing, Tensor):
        return f"a tensor of shape {tuple(thing.shape)}"
    if isinstance(thing, Mapping):
        return f"a {type(thing).__name__} with {', '.join(map(repr, thing)) or 'nothing in it'}"
    if isinstance(thing, (tuple, list)):
        return f"a {type(thing).__name__} of {', '.join(type(part).__name__ for part in thing)}"
    return f"a {type(thing).__name__}"


def to_parameters(raw: Any, theta: Tensor) -> Any:
    """Copy a batch to the parameters' device, and its floating tensors to their dtype.

    A copy even where nothing has to move, because its owner may fill the same memory again.
    """

    def moved(part: Tensor) -> Tensor:
        dtype = theta.dtype if part.is_floating_point() else part.dtype
        if part.is_complex():
            dtype = theta.dtype.to_complex()
        return part.detach().to(theta.device, dtype, copy=True)

    return map_tensors(moved, raw)


@dataclass(frozen=True)
class FirstExamples:
    """The first n examples of some batches, the last batch cut to fit."""

    batches: Iterable[Any]
    n: int
    in_examples: Callable[[Batch], Batch]
    target: Target = None

    def __iter__(self) -> Iterator[Any]:
        left = self.n
        for index, raw in enumerate(self.batches):
            batch = Batch.of(raw, index, self.target)
            if len(batch) > left:
                batch = self.in_examples(batch).examples(0, left)
            yield batch.raw
            left -= len(batch)
            if left <= 0:
                return
        raise ValueError(f"take({self.n}): the data has only {self.n - left} examples")


def fingerprint(raw: Any) -> Fingerprint:
    """What two passes over the same data in the same order agree in."""
    return tuple((str(tuple(part.shape)), digest(part)) for part in tensors_of(raw))


def digest(part: Tensor) -> str:
    """The hash of a tensor's numbers."""
    if part.layout != torch.strided:
        part = part.to_dense()
    plain = part.detach().resolve_conj().resolve_neg().cpu().contiguous()
    return hashlib.blake2b(plain.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()


class Passes:
    """Compares every pass over the data with the first one."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self._batches: list[Fingerprint] = []
        self._ended = False

    def over(self, batches: Iterable[Any], theta: Tensor, target: Target = None) -> Iterator[Batch]:
        """Go over the data, checked, and moved to where theta is.

        Raises:
            TypeError: for batches of another form.
            ValueError: if there are none, one is empty, or they are not those of the first pass.
        """
        index = -1
        for index, raw in enumerate(batches):
            self._check(raw, len(Batch.of(raw, index, target)), index)
            yield Batch.of(to_parameters(raw, theta), index, target)
        if index < 0:
            raise ValueError(
                "expected at least one batch, got none; if batches is a generator that is used up, "
                "pass a list"
            )
        self._end(index + 1)

    def _check(self, raw: Any, size: int, index: int) -> None:
        """Compare a batch with that of the first pass, or note it down."""
        tensors = _first_dimensions(raw)
        if len(tensors[0]) == 0:
            raise ValueError(
                f"expected batch {index} to hold examples, got a tensor of shape "
                f"{tuple(tensors[0].shape)}"
            )
        now = fingerprint(raw)
        if index == len(self._batches) and not self._ended:
            self._batches.append(now)
            self.sizes.append(size)
        elif index >= len(self._batches) or now != self._batches[index]:
            raise ValueError(
                f"batch {index} is not the one that an earlier pass gave, so there is no one loss "
                "to measure; expected batches that come out the same each time: fix the shuffling "
                "and augmentation, or pass list(batches)"
            )

    def _end(self, batches: int) -> None:
        if batches != len(self._batches):
            raise ValueError(
                f"expected {len(self._batches)} batches, as in an earlier pass, got {batches}"
            )
        self._ended = True


def checked_target(target: Target) -> Target:
    """The place of the targets, if it is a way to say that."""
    if target is not None and not (isinstance(target, (int, str)) or callable(target)):
        raise TypeError(
            "expected target to be a place in the batch such as -1, a key, or a function of the "
            f"batch, got {type(target).__name__}"
        )
    return target


def check_iterable(batches: Iterable[Any]) -> None:
    """Refuse what cannot be iterated again and again without disturbing the caller."""
    if isinstance(batches, Iterator):
        raise TypeError(
            "expected batches that can be iterated more than once, got a "
            f"{type(batches).__name__}, which is used up after one pass; pass a list or a "
            "DataLoader"
        )
    if isinstance(batches, Dataset) and not isinstance(batches, IterableDataset):
        raise TypeError(
            f"expected batches, got a {type(batches).__name__} of single examples; pass a "
            "DataLoader(dataset, batch_size=...)"
        )
    if isinstance(batches, (Mapping, str)):
        raise TypeError(
            f"expected an iterable of batches, got {described(batches)}; a single batch goes in a "
            "list, [batch]"
        )
    if isinstance(batches, DataLoader) and batches.persistent_workers:
        raise ValueError(
            "a DataLoader with persistent_workers=True has one iterator, so a pass over it would "
            "end a training loop that is going on; pass one without persistent workers"
        )


@contextmanager
def generators_kept(batches: Iterable[Any]) -> Iterator[None]:
    """Put the generators of a DataLoader back as they were."""
    while isinstance(batches, FirstExamples):
        batches = batches.batches
    owners: list[Any] = []
    if isinstance(batches, DataLoader):
        owners = [batches, batches.sampler, getattr(batches.batch_sampler, "sampler", None)]
    generators = [getattr(owner, "generator", None) for owner in owners]
    states = [(g, g.get_state()) for g in generators if isinstance(g, torch.Generator)]
    try:
        yield
    finally:
        for generator, state in states:
            generator.set_state(state)
