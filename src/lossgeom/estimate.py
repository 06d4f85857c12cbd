"""The number every measurement returns, with what is known of its error."""

import math
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "not_converged", "nonfinite"]


@dataclass(frozen=True)
class Estimate:
    """A measured number together with how good it is.

    Attributes:
        value: the number.
        stderr: standard error of a randomised estimate; ``None`` if nothing was sampled.
        residual: ``||A v - value * v||`` of an eigenvalue; ``None`` for anything else.
        converged: whether the method met the tolerance it was given.
        matvecs: how many matrix-vector products were spent.

    >>> estimate = Estimate(4.0, residual=1e-3, matvecs=9)
    >>> float(estimate), estimate.status
    (4.0, 'ok')
    """

    value: float
    stderr: float | None = None
    residual: float | None = None
    converged: bool = True
    matvecs: int = 0

    def __float__(self) -> float:
        return self.value

    @property
    def status(self) -> Status:
        """``"ok"``, ``"not_converged"``, or ``"nonfinite"`` for NaN and infinity."""
        if not math.isfinite(self.value):
            return "nonfinite"
        return "ok" if self.converged else "not_converged"
