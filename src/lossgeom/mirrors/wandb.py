"""Rows in the history of a run of W&B."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lossgeom.messages.extras import required
from lossgeom.mirrors.numbers import PREFIX, logged, no_run
from lossgeom.recording.mirror import Mirror

STEP = f"{PREFIX}step"


class WandB(Mirror):
    """Logs each row to a run of W&B, over an axis of its own, ``lossgeom/step``.

    What you log yourself keeps its steps, as long as it is logged as often as steps are measured
    or without ``step=``: the numbers of a step join the entry of the history that is open then,
    and only where that is still open at the next step does this end it.

    Args:
        run: that is logged to; left out, the one that ``wandb.init`` has started.
        start: settings of ``wandb.init``, which is called with them; that run ends with this.
        verbose: log residuals, standard errors and seconds, too.

    Raises:
        ImportError: without wandb, which the extra ``wandb`` brings.
        ValueError: if there is no run, and ``start`` asks for none.
    """

    def __init__(
        self,
        run: Any = None,
        *,
        start: Mapping[str, Any] | None = None,
        verbose: bool = False,
    ) -> None:
        wandb = required("wandb")
        self.run = wandb.init(**start) if start is not None else run or wandb.run
        if self.run is None:
            raise no_run("W&B", "wandb.init", "WandB")
        self.verbose = verbose
        self._own = start is not None
        self._last: tuple[int, int] | None = None  # the step of the last row, and W&B's own then
        self.run.define_metric(STEP)
        self.run.define_metric(f"{PREFIX}*", step_metric=STEP)

    def write(self, row: Mapping[str, Any]) -> None:
        numbers, step = logged(row, verbose=self.verbose), row["step"]
        if not numbers:
            return
        if self._last is not None and self._last[0] != step and self._last[1] == self.run.step:
            self.run.log({}, commit=True)  # or the row would take the place of the last one
        self.run.log({STEP: step, **numbers}, commit=False)
        self._last = step, self.run.step

    def close(self) -> None:
        """End the run that was started here; another one goes on."""
        if self._own:
            self.run.finish()
