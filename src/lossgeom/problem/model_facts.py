"""What is known of a model, whatever its parameters, and of a point: found once, and kept."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeVar, cast

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lossgeom.problem.double import in_double

Mode = Literal["eval", "train"]
MODES: tuple[Mode, ...] = ("eval", "train")
T = TypeVar("T")


def checked_mode(mode: Mode) -> Mode:
    """The mode, if it is one."""
    if mode not in MODES:
        raise ValueError(f"expected mode to be 'eval' or 'train', got {mode!r}")
    return mode


class Key(NamedTuple):
    """What is kept: the function that finds it, and all that it depends on besides.

    Attributes:
        found_by: a function or a type; no two find the same.
        of: what the finding depends on, such as names, shapes or settings.
    """

    found_by: Callable[..., Any]
    of: Hashable = ()


@dataclass(frozen=True, eq=False)
class PointCache:
    """Values at one point.

    Attributes:
        notes: on what was seen of the loss there.
    """

    notes: list[str] = field(default_factory=list)
    _values: dict[Hashable, Any] = field(default_factory=dict)

    def note(self, text: str) -> None:
        """Put down a note, once."""
        if text not in self.notes:
            self.notes.append(text)

    def value(self, key: Hashable, find: Callable[[], T]) -> T:
        """Return a value, and compute it if it is not there."""
        if key not in self._values:
            self._values[key] = find()
        return cast(T, self._values[key])


class GraphBytes(NamedTuple):
    """What the graph of a loss saves.

    Attributes:
        examples: of the loss.
        saved: bytes, without what is computed again.
        parts: what each part saves for a time that is computed again.
        outputs: bytes of these.
        convolutions: whether there are any.
    """

    examples: int
    saved: int
    parts: tuple[int, ...]
    outputs: int
    convolutions: bool


@dataclass
class FirstLook:
    """What the first batches show of a model and its loss; ``None`` where it is not known yet.

    Attributes:
        model: notes on the model.
        loss: notes on the loss.
        loss_beside_outputs: whether the loss depends on the parameters other than through outputs.
        is_sum: whether the loss is a sum over examples, or why that is not known.
        mixed: whether the outputs of an example depend on the others in its batch.
        training: a note on the model in train mode; empty where there is nothing to say.
        graph: what the graph of a known loss saves, as seen on one or two examples.
    """

    model: list[str] | None = None
    loss: list[str] | None = None
    loss_beside_outputs: bool = False
    is_sum: bool | Literal["cannot tell"] | None = None
    mixed: bool | None = None
    training: str | None = None
    graph: GraphBytes | None = None


@dataclass
class InDouble:
    """Calls a model in float64 throughout where it says float32, as it shows in its first call.

    Such a model does not run in float64, because it mixes types, or it rounds on its way.

    Attributes:
        needed: whether it does; known after the first call.
    """

    needed: bool | None = None

    def __call__(self, call: Callable[..., T], *args: Any) -> T:
        """What a call returns, if need be at the second or third attempt."""
        if self.needed is None:
            try:
                with _Notice() as notice:
                    found = call(*args)
            except RuntimeError:  # of torch, about types that do not fit, or about something else
                return self._tried(call, *args)
            self.needed = notice.said
            if not self.needed:
                return found
        if not self.needed:
            return call(*args)
        with in_double(torch.float64):
            return call(*args)

    def _tried(self, call: Callable[..., T], *args: Any) -> T:
        try:
            with in_double(torch.float64):
                found = call(*args)
        except RuntimeError:
            return call(*args)  # for the error as it is
        self.needed = True
        return found


class _Notice(TorchFunctionMode):
    """Notices whether float32 is said."""

    said = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = (*args, *(kwargs or {}).values())
        found = func(*args, **(kwargs or {}))
        by_default = isinstance(found, Tensor) and found.dtype == torch.float32  # it may be
        if by_default or func is Tensor.float or any(part is torch.float32 for part in given):
            self.said = True
        return found


@dataclass(frozen=True, eq=False)
class ModelFacts:
    """What was found out about a model and its loss in one mode, whatever the parameters.

    Attributes:
        first_look: what the first batches show.
        in_double: how the model is run in float64.
        modes: the facts of every mode, shared by all of them.
    """

    first_look: FirstLook = field(default_factory=FirstLook)
    in_double: InDouble = field(default_factory=InDouble)
    modes: dict[Mode, ModelFacts] = field(default_factory=dict)
    _known: dict[Hashable, Any] = field(default_factory=dict)

    def known(self, key: Hashable, find: Callable[[], T]) -> T:
        """Return a fact, and find it out if it is not known."""
        if key not in self._known:
            self._known[key] = find()
        return cast(T, self._known[key])

    def __contains__(self, key: Hashable) -> bool:
        return key in self._known

    def in_mode(self, here: Mode, there: Mode) -> ModelFacts:
        """The facts of another mode, as far as they are known."""
        self.modes[here] = self
        asked = FirstLook(training="")  # there is nothing to say of a mode that was not asked for
        return self.modes.setdefault(there, ModelFacts(asked, self.in_double, self.modes))
