"""Recordings that are replayed as one compiled function."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from lossgeom.autodiff.recorded_products.tape import Tape
from lossgeom.problem.agreement import REORDERED, agree


class Compiled:
    """A recording compiled by ``torch.compile``, where that gives the same and runs at all.

    It is compared with the recording at its first use; other shapes are other recordings.

    Args:
        tape: the recording.
        note: is told why it is replayed as it is.
    """

    def __init__(self, tape: Tape, note: Callable[[str], None]) -> None:
        self._tape, self._note = tape, note
        self._replay: Callable[[Tensor], Tensor] | None = None

    @torch.no_grad()
    def __call__(self, v: Tensor) -> Tensor:
        """Evaluate the function at a vector."""
        if self._replay is not None:
            return self._replay(v)
        expected, self._replay = self._tape(v), self._tape
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what torch's own modules do
                compiled = torch.compile(self._tape.program)
                found, why = compiled(v), "it gives another product"
        except Exception as error:  # of whatever a compiler says
            why = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        else:
            if agree(found, expected, REORDERED):
                self._replay = compiled
                return expected
        self._note(f"products not compiled: {why}")
        return expected
