"""Rows in the log of a run of Trackio."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lossgeom.messages.extras import required
from lossgeom.mirrors.numbers import logged, no_run
from lossgeom.recording.mirror import Mirror


class Trackio(Mirror):
    """Logs each row to a run of Trackio, at its step.

    Args:
        run: that is logged to; left out, the one that ``trackio.init`` has started.
        start: settings of ``trackio.init``, which is called with them; that run ends with this.
        verbose: log residuals, standard errors and seconds, too.

    Raises:
        ImportError: without trackio, which the extra ``trackio`` brings.
        ValueError: if there is no run, and ``start`` asks for none.
    """

    def __init__(
        self,
        run: Any = None,
        *,
        start: Mapping[str, Any] | None = None,
        verbose: bool = False,
    ) -> None:
        self._trackio = required("trackio")
        current = self._trackio.context_vars.current_run.get()
        self.run = self._trackio.init(**start) if start is not None else run or current
        if self.run is None:
            raise no_run("Trackio", "trackio.init", "Trackio")
        self.verbose = verbose
        self._own = start is not None

    def write(self, row: Mapping[str, Any]) -> None:
        if numbers := logged(row, verbose=self.verbose):
            self.run.log(numbers, step=row["step"])

    def close(self) -> None:
        """End the run that was started here; another one goes on."""
        if self._own:
            self._trackio.finish()
