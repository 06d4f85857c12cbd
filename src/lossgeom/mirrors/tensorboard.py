"""Rows as scalars of TensorBoard."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lossgeom.messages.extras import required
from lossgeom.mirrors.numbers import logged
from lossgeom.recording.mirror import Mirror


class TensorBoard(Mirror):
    """Writes each row as a scalar of TensorBoard, at its step.

    Args:
        folder: where to; or a ``SummaryWriter`` of yours, which stays open.
        verbose: write residuals, standard errors and seconds, too.
        purge_step: from which step on what the folder holds already is not shown any more, of a
            writer that is made here; such as the step at which a run goes on.

    Raises:
        ImportError: without tensorboard, which the extra ``tensorboard`` brings.

    >>> import tempfile
    >>> mirror = TensorBoard(tempfile.mkdtemp())
    >>> mirror.write({"step": 50, "metric": "sharpness", "value": 17.31})
    >>> mirror.close()
    """

    def __init__(
        self, folder: str | Path | Any, *, verbose: bool = False, purge_step: int | None = None
    ) -> None:
        self.verbose = verbose
        self._own = isinstance(folder, (str, Path))
        self.writer: Any = folder
        if self._own:
            required("tensorboard")
            made = importlib.import_module("torch.utils.tensorboard").SummaryWriter
            self.writer = made(folder, purge_step=purge_step)

    def write(self, row: Mapping[str, Any]) -> None:
        for key, value in logged(row, verbose=self.verbose).items():
            self.writer.add_scalar(key, value, row["step"])

    def close(self) -> None:
        """Write what is left, and close the writer that was made here."""
        self.writer.flush()
        if self._own:
            self.writer.close()
