"""Batches of any form, taken apart and cut into examples."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

TARGET_KEYS = ("labels", "label", "targets", "target")
PLAIN = (int, float, str, bytes, type(None))

Rows = tuple[bool, ...] | None
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
        rows: which tensors have a row for each example, if tried; see ``Problem.in_examples``.
    """

    index: int
    raw: Any
    inputs: tuple[Any, ...] | dict[str, Any]
    targets: Any
    target: Target = None
    rows: Rows = None

    @classmethod
    def of(cls, raw: Any, index: int = 0, target: Target = None, rows: Rows = None) -> Batch:
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
            rows: whether a tensor has a row for each example, if that is known.

        Raises:
            TypeError: for a batch of another form, or one without such a target.
        """
        where = None if callable(target) else target
        inputs, targets = (_apart if isinstance(raw, Mapping) else _parts)(raw, where, index)
        return cls(index, raw, inputs, target(raw) if callable(target) else targets, target, rows)

    def made_of(self, raw: Any) -> Batch:
        """The same batch with other tensors in it."""
        return Batch.of(raw, self.index, self.target, self.rows)

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
        raw = map_tensors(lambda t: new if t is old else t, self.raw)
        where = None if callable(self.target) else self.target  # a function's answer stays
        return replace(self, raw=raw, inputs=Batch.of(raw, self.index, where).inputs)

    def moved(self, theta: Tensor) -> Batch:
        """A copy of the batch where the parameters are, its floating tensors in their dtype.

        A copy even where nothing has to move, because its owner may fill the same memory again.
        """

        def like_parameters(tensor: Tensor) -> Tensor:
            dtype = theta.dtype if tensor.is_floating_point() else tensor.dtype
            dtype = theta.dtype.to_complex() if tensor.is_complex() else dtype
            return tensor.detach().to(theta.device, dtype, copy=True)

        return self.made_of(map_tensors(like_parameters, self.raw))

    def __len__(self) -> int:
        tensors = [tensor for tensor in tensors_of(self.raw) if tensor.ndim]
        if any(tensor.is_nested for tensor in tensors):
            raise TypeError(
                "expected batches of plain tensors, got a nested tensor, whose examples differ in "
                "length; pad it with to_padded_tensor, and pass lengths or a mask with it"
            )
        if not tensors:
            got = described(self.raw)
            raise TypeError(f"expected a batch that holds tensors of examples, got {got}")
        if self.rows is not None:
            rows = zip(tensors_of(self.raw), self.rows, strict=True)
            return len(next((tensor for tensor, row in rows if row), tensors[0]))
        if isinstance(self.targets, Tensor) and self.targets.ndim:
            n = len(self.targets)
            if any(n in tensor.shape[:2] for tensor in tensors_of(self.inputs)):
                return n  # also where a tensor that all examples share comes first
        return len(tensors[0])

    def has_rows(self, tensor: Tensor) -> bool:
        """Whether a tensor of the batch has a row for each example, as far as that was tried."""
        if self.rows is None:
            return True
        rows = zip(tensors_of(self.raw), self.rows, strict=True)
        return any(row for other, row in rows if other is tensor)

    def each_row(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with a function applied to the tensors that have a row for each example."""
        n, found = len(self), tensors_of(self.raw)
        rows = zip(found, self.rows or [t.ndim > 0 and len(t) == n for t in found], strict=True)
        parts = (function(tensor) if row else tensor for tensor, row in rows)
        return self.made_of(map_tensors(partial(next, parts), self.raw))

    def examples(self, start: int, stop: int) -> Batch:
        """Some of the examples: rows of the tensors that have one for each, and all of the others.

        Which these are is known after :meth:`lossgeom.Problem.in_examples`; before, they are those
        whose first dimension is the number of examples.
        """
        return self.each_row(partial(_cut, start=start, stop=stop))


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


def _cut(tensor: Tensor, start: int, stop: int) -> Tensor:
    """Some rows of a tensor, also of a sparse one."""
    if tensor.layout == torch.strided:
        return tensor[start:stop]
    places = torch.arange(len(tensor), device=tensor.device)[start:stop]
    coordinates = tensor.to_sparse(layout=torch.sparse_coo).index_select(0, places)
    return coordinates.to_sparse(layout=tensor.layout)


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
        named = type(tree) is not tuple and _is_named(tree)
        return type(tree)(*parts) if named else type(tree)(parts)
    return _plain(tree) if strict else tree


def holds_only_tensors(tree: Any) -> bool:
    """Whether cutting the tensors of a batch cuts all that is in it."""
    if isinstance(tree, Mapping):
        return all(holds_only_tensors(value) for value in tree.values())
    if isinstance(tree, (tuple, list)):
        return not _is_named(tree) and all(holds_only_tensors(part) for part in tree)
    return isinstance(tree, Tensor)


def _is_named(tree: Any) -> bool:
    """Whether this is a named tuple, such as a PackedSequence, which is one thing."""
    return isinstance(tree, tuple) and "_fields" in dir(type(tree))


def tensors_of(tree: Any) -> list[Tensor]:
    """The tensors of a batch, in order."""
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, (Mapping, tuple, list)):
        parts = tree.values() if isinstance(tree, Mapping) else tree
        return [tensor for part in parts for tensor in tensors_of(part)]
    _plain(tree)
    return []


def _plain(thing: Any) -> Any:
    """A thing that no tensors can hide in, or an error."""
    if isinstance(thing, PLAIN):
        return thing
    array = type(thing).__module__ == "numpy"
    raise TypeError(
        f"expected batches of tensors in tuples, lists and mappings, got a {type(thing).__name__} "
        f"in one; make it a {'tensor with torch.as_tensor' if array else 'mapping of tensors'}"
    )


def described(thing: Any) -> str:
    """What something is, in words."""
    if isinstance(thing, Tensor):
        return f"a tensor of shape {tuple(thing.shape)}"
    if isinstance(thing, Mapping):
        return f"a {type(thing).__name__} with {', '.join(map(repr, thing)) or 'nothing in it'}"
    if isinstance(thing, (tuple, list)):
        return f"a {type(thing).__name__} of {', '.join(type(part).__name__ for part in thing)}"
    return f"a {type(thing).__name__}"
