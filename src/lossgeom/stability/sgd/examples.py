"""The curvature that each example gives the loss, in the eigenbasis of their mean."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.curvature import OutputRoot, ParameterJacobian
from lossgeom.messages.reprs import short
from lossgeom.problem import Problem, checked_problem
from lossgeom.stability.sgd._outputs import ExampleOutputs, example_outputs

LARGEST = 2000  # outputs of all examples together
MEMORY = 2 * 2**30  # bytes of the Jacobian of all of them
RANK = 10.0  # units of rounding below which an eigenvalue is none


class TooLargeError(ValueError):
    """An error for more outputs than an exact computation can hold."""


@dataclass(frozen=True, eq=False)
class ExampleCurvatures:
    r"""The Gauss-Newton matrices of n examples, in the eigenbasis of their mean.

    .. math:: H = \frac1n \sum_i H_i = Q\, \mathrm{diag}(h)\, Q^\top, \qquad
        Q^\top H_i Q = A_i^\top A_i

    What SGD does near a minimum happens in the span of Q, of dimension r: the rank of H.

    Attributes:
        values: h, the positive eigenvalues of H, largest first; in float64, as all of it.
        factors: A_i, with c rows for each example.
        gradients: of each example, in the same basis; zero where they were not given.
        gradient_norms: of each example in all parameters.
        mean_gradient: the norm of the gradient of the loss.
        top: the eigenvector of the largest eigenvalue, in all parameters; zero where there is none.
    """

    values: Float[Tensor, " r"]
    factors: Float[Tensor, "n c r"]
    gradients: Float[Tensor, "n r"]
    gradient_norms: Float[Tensor, " n"]
    mean_gradient: float
    top: Float[Tensor, " P"]

    __repr__ = short

    @property
    def n(self) -> int:
        """The number of examples."""
        return len(self.factors)

    @property
    def rank(self) -> int:
        """r, the rank of H."""
        return len(self.values)

    @property
    def sharpness(self) -> float:
        """The largest eigenvalue of H; 0 where there is none."""
        return float(self.values[0]) if self.rank else 0.0

    @property
    def trace(self) -> float:
        """The trace of H."""
        return float(self.values.sum())

    @property
    def matrices(self) -> Float[Tensor, "n r r"]:
        """All H_i, in the eigenbasis: n r^2 numbers."""
        return self.factors.mT @ self.factors

    @property
    def norms(self) -> Float[Tensor, " n"]:
        """The largest eigenvalue of each H_i."""
        if not self.rank:
            return self.values.new_zeros(self.n)
        values: Tensor = torch.linalg.eigvalsh(self.factors @ self.factors.mT)
        return values[:, -1]

    @property
    def along_top(self) -> Float[Tensor, " n"]:
        """The curvature of each example along the top eigenvector, v^T H_i v."""
        return self.factors[:, :, :1].square().sum((1, 2))

    @classmethod
    def of(
        cls, factors: Float[Tensor, "n c P"], gradients: Float[Tensor, "n P"] | None = None
    ) -> ExampleCurvatures:
        r"""Turn factors F_i, with H_i = F_i^T F_i in all parameters, into the eigenbasis of H.

        The smaller of the two matrices F F^T / n and F^T F / n is decomposed. Eigenvalues below
        their rounding are taken for zero.

        Cost: n c P min(n c, P) + min(n c, P)^3 flops.

        Raises:
            ValueError: if there are no examples, or numbers that are not finite.

        >>> points = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0], [1.0, -1.0]])
        >>> ExampleCurvatures.of(points[:, None]).values
        tensor([1.5000, 0.7500], dtype=torch.float64)
        """
        n, c, P = factors.shape
        gradients = factors.new_zeros(n, P) if gradients is None else gradients
        if not n * c * P or not (factors.isfinite().all() and gradients.isfinite().all()):
            raise ValueError(
                "expected finite factors (n, c, P) of at least one example, and finite gradients "
                f"(n, P), got shapes {tuple(factors.shape)} and {tuple(gradients.shape)}"
            )
        rounding = RANK * max(n * c, P) * torch.finfo(factors.dtype).eps
        F, g = factors.reshape(n * c, P).double() / math.sqrt(n), gradients.double()
        values, V = torch.linalg.eigh(F @ F.T if n * c <= P else F.T @ F)
        kept = (values > rounding * values[-1].clamp(min=0)).nonzero()[:, 0].flip(0)
        h, V = values[kept], V[:, kept]
        if n * c <= P:
            rotated, inside = V * h.sqrt(), (F @ g.T).T @ V / h.sqrt()
            top = F.T @ (V[:, :1] / h[:1].sqrt()).sum(1)
        else:
            rotated, inside, top = F @ V, g @ V, V[:, :1].sum(1)
        return cls(
            values=h,
            factors=math.sqrt(n) * rotated.reshape(n, c, -1),
            gradients=inside,
            gradient_norms=g.norm(dim=1),
            mean_gradient=float(g.mean(0).norm()),
            top=top,
        )


def example_curvatures(problem: Problem, *, largest: int = LARGEST) -> ExampleCurvatures:
    r"""The Gauss-Newton matrix and the gradient of every example, for statements about SGD.

    .. math:: H_i = J_i^\top \nabla_f^2 \ell_i\, J_i, \qquad g_i = J_i^\top \nabla_f \ell_i

    with the Jacobian J_i of the outputs f of example i in the parameters, and its loss
    :math:`\ell_i`, in the units of the problem's loss: their means over the examples are the
    Gauss-Newton matrix and the gradient. An example is what SGD draws, a row of a batch: also where
    the loss is a mean over tokens.

    Cost: a gradient for each of the n C outputs (or P of them, where these are fewer), and
    n C P min(n C, P) flops; memory n C P numbers, and n C r for the result.

    Args:
        problem: at a minimum, with a loss that is a mean over examples.
        largest: n C above which it is refused.

    Raises:
        TooLargeError: where there are more outputs, or the Jacobian takes more than 2 GiB.
        ValueError: where a step of SGD is no mean over independent examples: if examples depend on
            each other, as by BatchNorm in train mode; if the loss is a sum, or none over examples,
            or has another number of terms for some of them; if it is not convex in the outputs.

    Source: Mulayoff and Michaeli, arXiv:2306.07850, section 2.

    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> data = [(torch.tensor([[1.0, 0.0], [0.0, 3.0]]), torch.zeros(2, 1))]
    >>> found = example_curvatures(Problem(model, "squared_error", data))
    >>> found.values, found.norms
    (tensor([4.5000, 0.5000], dtype=torch.float64), tensor([1.0000, 9.0000], dtype=torch.float64))
    """
    examples = example_outputs(checked_problem(problem))
    check_size(examples, problem, largest)
    n, c, P = examples.n, examples.outputs, problem.theta.numel()
    J = ParameterJacobian(problem).dense().reshape(n, c, P)
    root = OutputRoot(problem).dense().reshape(n, c, n, c)
    own = math.sqrt(n) * root[range(n), :, range(n)]
    gradients = (examples.residuals[:, None] @ J)[:, 0]
    return ExampleCurvatures.of(own @ J, gradients)


def check_size(examples: ExampleOutputs, problem: Problem, largest: int) -> None:
    """Raise for more outputs than can be held."""
    rows, P = examples.n * examples.outputs, problem.theta.numel()
    if rows > largest or rows * P * problem.theta.element_size() > MEMORY:
        raise TooLargeError(
            f"{examples.n:,} examples with {examples.outputs:,} outputs each and {P:,} parameters "
            f"are too large for exact numbers: expected n C of at most {largest:,}, and n C P "
            f"numbers in {MEMORY / 2**30:g} GiB. Take fewer examples with problem.take(n), or "
            "raise the limit"
        )
