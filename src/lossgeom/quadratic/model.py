"""Models that are quadratic in their parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from lossgeom.messages.checks import check_number
from lossgeom.messages.reprs import short
from lossgeom.quadratic._checks import check_same_dtype, check_tensor
from lossgeom.quadratic.point import Expansion, Loss, Point, squared_error
from lossgeom.quadratic.second_derivative import Rows, SecondDerivative


class Ensemble(ABC):
    """Runs that are made a few at a time, so that they never have to be in memory together."""

    @property
    @abstractmethod
    def runs(self) -> int:
        """The number of runs, R."""

    @property
    @abstractmethod
    def bytes_per_run(self) -> int:
        """Memory of a run's model and state, which decides how many are advanced together."""

    @property
    def loss(self) -> Loss:
        """A function from z to one loss for each run: half its square."""
        return squared_error

    @abstractmethod
    def rows(self, index: Rows) -> Model:
        """The models of some of the runs."""


class Model(Ensemble):
    """A function z of parameters for each of R runs. A Taylor model of a network is one, too."""

    @property
    @abstractmethod
    def origin(self) -> Float[Tensor, "R P"]:
        """Parameters zero, in the dtype and on the device of the model."""

    @abstractmethod
    def at(self, theta: Float[Tensor, "R P"]) -> Point:
        """Residuals and Jacobians at parameters."""


@dataclass(frozen=True, eq=False)
class QuadraticModel(Model):
    r"""The second-order regression model, with R runs side by side.

    .. math:: z(\theta) = y + G\theta + \tfrac12 Q(\theta, \theta), \qquad
        J(\theta) = G + Q(\theta, \cdot), \qquad L(\theta) = \tfrac12 \|z(\theta)\|^2

    The loss is a sum over the D outputs; for a mean over n examples divide residuals by
    :math:`\sqrt n`. z is the residual, output minus target. Descent can start at theta = 0 without
    loss of generality: :meth:`expanded` around any other point is a model of this form again.

    *Rescaled units* are :math:`\tilde z = \eta z`, :math:`\tilde J = \sqrt\eta J`,
    :math:`\tilde\theta = \sqrt\eta\,\theta` with Q as it is: the learning rate is then 1 and the
    edge of stability is at :math:`\lambda_{\max}(\tilde J \tilde J^\top) = 2`.

    Attributes:
        y: (R, D) residuals at theta = 0.
        G: (R, D, P) Jacobians at theta = 0.
        Q: the second derivative, shared by all runs or one for each.

    Raises:
        TypeError: if y, G and Q are not all in float32 or all in float64.
        ValueError: if shapes do not fit, or a number is not finite.

    Source: Agarwala, Pedregosa and Pennington, Second-order regression models exhibit progressive
    sharpening to the edge of stability, arXiv:2210.04860.

    >>> import torch
    >>> from lossgeom.quadratic import Dense
    >>> Q = Dense(torch.tensor([[[1.0, 0.0], [0.0, -0.5]]]))
    >>> model = QuadraticModel(torch.tensor([[-1.0]]), torch.tensor([[[1.0, 1.0]]]), Q)
    >>> model.at(torch.tensor([[2.0, 2.0]])).z.tolist()
    [[4.0]]
    """

    y: Float[Tensor, "R D"]
    G: Float[Tensor, "R D P"]
    Q: SecondDerivative

    __repr__ = short

    def __post_init__(self) -> None:
        D, P = self.Q.outputs, self.Q.parameters
        check_tensor("y", self.y, (self.Q.runs, D), "(R, D)")
        check_tensor("G", self.G, (len(self.y), D, P), "(R, D, P)")
        check_same_dtype(y=self.y.dtype, G=self.G.dtype, Q=self.Q.dtype)

    @property
    def runs(self) -> int:
        return len(self.y)

    @property
    def bytes_per_run(self) -> int:
        state = self.Q.outputs * (self.Q.parameters + 1) + self.Q.parameters
        return state * self.y.itemsize + self.Q.bytes_per_run

    @property
    def origin(self) -> Float[Tensor, "R P"]:
        return self.y.new_zeros(self.runs, self.Q.parameters)

    def rows(self, index: Rows) -> QuadraticModel:
        return QuadraticModel(self.y[index], self.G[index], self.Q.rows(index))

    def at(self, theta: Float[Tensor, "R P"]) -> Expansion:
        """Residuals and Jacobians at parameters, for one product with Q."""
        J = self.G + self.Q.contract(theta)
        z = self.y + ((self.G + J) @ theta[:, :, None])[:, :, 0] / 2
        return Expansion(z, J)

    def expanded(self, theta: Float[Tensor, "R P"]) -> QuadraticModel:
        """The same function, of the parameters relative to these."""
        point = self.at(theta)
        return QuadraticModel(point.z, point.J, self.Q)

    def rescaled(self, learning_rate: float) -> QuadraticModel:
        """The same model in units in which the learning rate is 1."""
        check_number("learning_rate", learning_rate, 0)
        return QuadraticModel(learning_rate * self.y, learning_rate**0.5 * self.G, self.Q)
