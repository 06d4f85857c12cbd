"""The outputs of a batch as one row for each observation."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from lossgeom.problem import Problem


def rows(problem: Problem, outputs: Tensor) -> Float[Tensor, "M c"]:
    """One row for each target of a cross-entropy, and for each example of any other loss."""
    likelihood = problem.criterion.likelihood
    return outputs.reshape(len(outputs), -1) if likelihood is None else likelihood.rows(outputs)


def unrows(problem: Problem, rows: Float[Tensor, "M c"], outputs: Tensor) -> Tensor:
    """Rows back in the shape of the outputs."""
    likelihood = problem.criterion.likelihood
    return rows.reshape(outputs.shape) if likelihood is None else likelihood.unrows(rows, outputs)
