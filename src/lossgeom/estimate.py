"""The number every measurement returns, with what is known of its error."""

import math
from dataclasses import dataclass
from typing import Literal

from lossgeom.messages.reprs import in_table

Status = Literal["ok", "not_converged", "nonfinite"]


@dataclass(frozen=True)
class Estimate:
    """A measured number together with how good it is.

    A format is that of the value, as for a float; without one, the error is told with it.

    Attributes:
        value: the number.
        stderr: standard error of a randomised estimate: 0 where it is exact, infinite where so few
            samples agree that they tell no error; of a predicted value, how far it may be off,
            judged by earlier predictions; ``None`` for anything else.
        residual: at least ``||A v - value * v||`` of an eigenvalue; ``None`` for anything else.
        converged: whether the method met the tolerance it was given.
        matvecs: how many matrix-vector products were spent.
        verified: of an eigenvalue, whether a search for a better one was made, and found none;
            ``None`` for anything else.
        predicted: whether the value was extrapolated from values at other points, and nothing was
            computed here.

    >>> estimate = Estimate(4.0, residual=1e-3, matvecs=9)
    >>> float(estimate), estimate.status
    (4.0, 'ok')
    >>> f"{estimate:.3f}", f"{estimate}", f"{Estimate(2.5, stderr=0.25)}"
    ('4.000', '4, residual 0.001', '2.5 +- 0.25')
    """

    value: float
    stderr: float | None = None
    residual: float | None = None
    converged: bool = True
    matvecs: int = 0
    verified: bool | None = None
    predicted: bool = False

    _repr_html_ = in_table

    def __float__(self) -> float:
        return self.value

    def __format__(self, spec: str) -> str:
        return format(self.value, spec) if spec else self._told()

    def _told(self) -> str:
        """The value with its error and what speaks against it."""
        error = f" +- {self.stderr:.2g}" if self.stderr is not None else ""
        residual = f", residual {self.residual:.2g}" if self.residual is not None else ""
        doubt = ", not converged" if self.status == "not_converged" else ""
        unverified = ", not verified" if self.verified is False else ""
        predicted = ", predicted" if self.predicted else ""
        return f"{self.value:.6g}{error}{residual}{doubt}{unverified}{predicted}"

    @property
    def status(self) -> Status:
        """``"ok"``, ``"not_converged"``, or ``"nonfinite"`` for NaN and infinity."""
        if not math.isfinite(self.value):
            return "nonfinite"
        return "ok" if self.converged else "not_converged"
