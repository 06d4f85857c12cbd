"""What a watched run says of itself: a few lines, and one that lives on a terminal."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import TextIO

from torch.optim import Optimizer

from lossgeom.estimate import Estimate
from lossgeom.messages.wording import printable

WIDTH = 100  # characters of a line on a terminal


def values_in_words(found: Mapping[str, Estimate]) -> str:
    """What was measured at a step, on one line; a loss also where it is not finite.

    >>> values_in_words({"loss": Estimate(0.25), "edge_ratio": Estimate(0.98765)})
    'loss 0.25, edge ratio 0.988'
    """
    return ", ".join(
        f"{name.replace('_', ' ')} {each:.3g}"
        for name, each in found.items()
        if name == "loss" or not math.isnan(each)
    )


def count_of(n: int, what: str) -> str:
    """A number of things.

    >>> count_of(1, "step"), count_of(3, "step")
    ('1 step', '3 steps')
    """
    return f"{n} {what}{'s' * (n != 1)}"


def no_step_in_words(optimizers: Sequence[Optimizer], seen: Collection[int]) -> str:
    """Why nothing was measured, probably.

    Args:
        optimizers: that were watched.
        seen: places of those that have made steps.
    """
    kinds = [type(each).__name__ for each in optimizers]
    if seen:
        stepped = " and ".join(kinds[place] for place in sorted(seen))
        return (
            f"no step was seen to end, so nothing was measured: {stepped} stepped, but {kinds[-1]} "
            "did not, and a step ends with the last optimiser; pass them in the order in which "
            "they step, without those that do not"
        )
    return (
        f"no step of {' and '.join(kinds)} was seen, so nothing was measured: did the loop run, "
        "and step the optimiser that is watched, not one that was made later or copied? What a "
        "CUDA graph replays is not seen"
    )


def out_of_order_in_words(step: int, kinds: Sequence[str]) -> str:
    """That not all optimisers stepped before the last one did."""
    return (
        f"step {step} ended without a step of each of {', '.join(kinds)}: a step ends with the "
        "last of them; pass optimisers in the order in which they step"
    )


def skipped_in_words(steps: int, share: float | None) -> str:
    """How many steps were left out for the budget."""
    return (
        f"{count_of(steps, 'due step')} not measured, to keep to {share:.3g} of the time; "
        "budget=None measures all"
    )


class LiveLine:
    """One line at the bottom of a terminal, written over and over.

    Args:
        stream: the terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def show(self, text: str) -> None:
        """Write a text in the place of the last one."""
        shown = printable(text)
        self._write(shown if len(shown) <= WIDTH else f"{shown[: WIDTH - 3]}...")

    def end(self, text: str) -> None:
        """Write some lines in the place of it, which stay."""
        self._write(f"{printable(text, keep=chr(10))}\n")

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError):  # of a terminal that is gone
            self.stream.write(f"\r\x1b[K{text}")
            self.stream.flush()
