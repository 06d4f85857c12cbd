"""Rows as metrics of a run of MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lossgeom.messages.extras import required
from lossgeom.mirrors.numbers import logged, no_run
from lossgeom.recording.mirror import Mirror


class MLflow(Mirror):
    """Logs each row to a run of MLflow, at its step.

    Where MLflow stores it is for you to say, with ``mlflow.set_tracking_uri`` or
    ``MLFLOW_TRACKING_URI``.

    Args:
        run_id: of the run that is logged to; left out, the one that is active.
        start: settings of ``mlflow.start_run``, which is called with them; that run ends with this.
        verbose: log residuals, standard errors and seconds, too.

    Raises:
        ImportError: without mlflow, which the extra ``mlflow`` brings.
        ValueError: if no run is active, and ``start`` asks for none.
    """

    def __init__(
        self,
        run_id: str | None = None,
        *,
        start: Mapping[str, Any] | None = None,
        verbose: bool = False,
    ) -> None:
        self._mlflow = required("mlflow")
        active = self._mlflow.active_run() if start is None else self._mlflow.start_run(**start)
        if run_id is None and active is None:
            raise no_run("MLflow", "mlflow.start_run", "MLflow", "run_id")
        self.run_id: str = run_id or active.info.run_id
        self.verbose = verbose
        self._own = start is not None

    def write(self, row: Mapping[str, Any]) -> None:
        numbers = logged(row, verbose=self.verbose)
        self._mlflow.log_metrics(numbers, step=row["step"], run_id=self.run_id)

    def close(self) -> None:
        """End the run that was started here; another one goes on."""
        if self._own:
            self._mlflow.end_run()
