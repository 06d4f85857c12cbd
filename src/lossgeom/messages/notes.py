"""What processes tell each other of what each of them has found, or of the error that it met."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from lossgeom.messages.alike import Alike

OWN, RESULT, OF_OTHERS = 0, 1, 2  # kinds of errors, in the order in which they are told


@dataclass(frozen=True)
class Note:
    """What a process has found.

    Attributes:
        asked: for what, by its name.
        alike: what must be the same on all of them.
        told: what the others are to know.
        error: what an error says that it met instead.
        kind: of error: its own, a result such as a loss that is not finite, or that of others.
        result: the error that is a result, the same for all.
    """

    asked: str
    alike: Alike = field(default_factory=dict)
    told: Any = None
    error: str | None = None
    kind: int = OWN
    result: BaseException | None = None

    @classmethod
    def of(cls, asked: str, error: BaseException, of_others: bool) -> Note:
        """The note of a process that has met an error."""
        own = type(error).__module__.startswith("lossgeom.")
        result = error if own and isinstance(error, ArithmeticError) else None
        kind = OF_OTHERS if of_others else OWN if result is None else RESULT
        return cls(asked, error=f"{type(error).__name__}: {error}", kind=kind, result=result)

    @property
    def packed(self) -> bytes:
        """It as bytes; an error of what cannot be sent."""
        content = io.BytesIO()
        torch.save(self, content)
        return content.getvalue()

    @classmethod
    def unpacked(cls, content: bytes) -> Note:
        """It from bytes, with tensors of a GPU on that of this process."""

        def here(storage: Any, device: str) -> Any:
            return storage if device == "cpu" else storage.cuda()

        found: Note = torch.load(io.BytesIO(content), map_location=here, weights_only=False)
        return found


def first_failure(notes: Sequence[Note]) -> tuple[int, Note, int] | None:
    """The rank and the note of the error to tell of, and how many ranks have met such a one."""
    failed = [(rank, note) for rank, note in enumerate(notes) if note.error is not None]
    if not failed:
        return None
    rank, note = min(failed, key=lambda each: each[1].kind)
    return rank, note, sum(each.kind == note.kind for _, each in failed)
