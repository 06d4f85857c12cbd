"""Rows as lines of text."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from io import TextIOBase
from typing import Any

from lossgeom.messages.wording import spelled
from lossgeom.recording.mirror import Mirror


class Console(Mirror):
    """Prints a line for each step that is measured, with what has no finite value as such.

    Args:
        stream: where to; standard output by default.

    >>> console = Console()
    >>> console.write({"step": 50, "metric": "sharpness", "value": 17.31})
    >>> console.write({"step": 50, "metric": "edge_ratio", "value": float("nan")})
    >>> console.close()
    step 50: sharpness 17.3, edge ratio nan
    """

    def __init__(self, stream: TextIOBase | None = None) -> None:
        self.stream = stream
        self._step: int | None = None
        self._values = dict[str, float]()

    def write(self, row: Mapping[str, Any]) -> None:
        if row["step"] != self._step:
            self.close()
            self._step = row["step"]
        self._values[row["metric"]] = row["value"]

    def close(self) -> None:
        """Print the line of the last step."""
        if self._values:
            values = [f"{name.replace('_', ' ')} {x:.3g}" for name, x in self._values.items()]
            stream = self.stream or sys.stdout
            line = spelled(f"step {self._step}: {', '.join(values)}", stream.encoding or "utf-8")
            print(line, file=stream, flush=True)
            self._values.clear()
