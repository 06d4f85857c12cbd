"""Errors beside a training that goes on."""

from __future__ import annotations

import warnings
from typing import Literal

OnError = Literal["record", "raise"]
ON_ERROR: tuple[OnError, ...] = ("record", "raise")


def described(error: Exception) -> str:
    """An error in one line.

    >>> described(ZeroDivisionError("of one's own"))
    "ZeroDivisionError: of one's own"
    """
    return f"{type(error).__name__}: {error}".strip()


class Heard:
    """Errors that are counted, with a warning of the first one; or raised.

    Attributes:
        raises: whether they are raised.
        errors: how many there were.
    """

    def __init__(self, on_error: OnError) -> None:
        if on_error not in ON_ERROR:
            raise ValueError(f"expected on_error to be 'record' or 'raise', got {on_error!r}")
        self.raises = on_error == "raise"
        self.errors = 0
        self._warned: set[str] = set()

    def error(self, name: str, step: int, error: Exception) -> None:
        """Count an error in what has this name, or raise it."""
        if self.raises:
            raise error
        self.errors += 1
        self.warn(
            "error",
            f"{name} could not be measured at step {step} ({described(error)}); training goes on, "
            "and rows with the status 'failed' say so, this time and later; on_error='raise' "
            "raises the error",
        )

    def warn(self, about: str, text: str) -> None:
        """Warn once about something."""
        if about not in self._warned:
            self._warned.add(about)
            warnings.warn(text, stacklevel=3)
