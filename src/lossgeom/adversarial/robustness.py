"""Whether small changes of an input change its class."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from jaxtyping import Bool, Float
from torch import Tensor

from lossgeom.adversarial._classes import classes
from lossgeom.adversarial._own_attack import AttackFunction, attacked_inputs
from lossgeom.adversarial._worst_case import Eps, WorstCase
from lossgeom.adversarial.certified_radius import radii
from lossgeom.adversarial.logit_change import LogitChange, measured
from lossgeom.lipschitz.ball import Box, Norm
from lossgeom.lipschitz.certified.frozen_model import all_inputs, frozen_model
from lossgeom.messages.reprs import short
from lossgeom.problem import Problem, checked_problem
from lossgeom.problem.agreement import EXACT
from lossgeom.problem.isolation import measuring
from lossgeom.problem.minibatches import whole


@dataclass(frozen=True, eq=False)
class Robustness:
    """Whether the classes of N examples withstand K attack sizes, by several measures.

    A margin is the output of the right class less the largest other one; an example counts as right
    where it is positive. Of each size, ``certified_accuracy`` <= the true robust accuracy <=
    ``accuracy_under_attack`` <= ``clean_accuracy``.

    Attributes:
        norm: of the changes.
        eps: (K,), the attack sizes.
        margins: at the examples.
        attacked_margins: the smallest that were found; the true minimum is at most that.
        certified_radii: within which no class changes, in the norm of the attack; ``None`` where
            that was not asked for or is not known.
        logit_change: how far the outputs move.
        notes: what else there is to know, such as why nothing is certified.
    """

    norm: Norm
    eps: Float[Tensor, " K"]
    margins: Float[Tensor, " N"]
    attacked_margins: Float[Tensor, "K N"]
    certified_radii: Float[Tensor, " N"] | None
    logit_change: LogitChange

    __repr__ = short

    @property
    def notes(self) -> tuple[str, ...]:
        """What else there is to know, such as why nothing is certified."""
        return self.logit_change.notes

    @property
    def withstood(self) -> Bool[Tensor, "K N"]:
        """Which examples are right at all inputs that were tried, or proved to be.

        Where that is proved, a margin that is barely not positive is rounding.
        """
        tried, proved = self.attacked_margins > 0, self._certified
        rounding = EXACT * self.margins.abs().max()
        return tried if proved is None else tried | (proved & (self.attacked_margins >= -rounding))

    @property
    def _certified(self) -> Bool[Tensor, "K N"] | None:
        return None if self.certified_radii is None else self.certified_radii > self.eps[:, None]

    @property
    def clean_accuracy(self) -> float:
        """The share of examples that are right."""
        return (self.margins > 0).double().mean().item()

    @property
    def accuracy_under_attack(self) -> Float[Tensor, " K"]:
        """The share of examples that no attack flipped: at least the true robust accuracy."""
        return self.withstood.double().mean(1)

    @property
    def certified_accuracy(self) -> Float[Tensor, " K"] | None:
        """The share of examples with a certified radius above eps: at most the true one."""
        proved = self._certified
        return None if proved is None else proved.double().mean(1)


def robustness(
    problem: Problem,
    eps: Eps,
    *,
    norm: Norm = "l2",
    steps: int = 40,
    restarts: int = 4,
    seed: int = 0,
    bounds: Box | None = None,
    attack: AttackFunction | None = None,
    certify: bool = True,
) -> Robustness:
    r"""How a classifier withstands changes of its inputs: found, predicted and certified.

    .. math:: \min_{\|x' - x\| \le \epsilon} f_y(x') - \max_{c \ne y} f_c(x')

    is searched for by projected gradient descent, and the largest change of the outputs as in
    :func:`logit_change`; every input that either looks at counts for both, and what is found
    within a smaller eps for every larger one. Attacks find upper estimates of the robust accuracy:
    nothing says how far above it they are. Certified are the radii of :func:`certified_radius`.
    The model is evaluated in float64 and eval mode.

    Cost: for each eps, 2 restarts (steps + 1) forward and backward passes over the data; that of
    :func:`certified_radius` with ``certify``, where no attack is needed.

    Args:
        problem: any model with a single floating-point input and outputs (N, C), with targets that
            are classes (N,) or their probabilities (N, C), of which the likeliest is taken.
        eps: one or several sizes of attack, in units of the input.
        norm: that they are in, ``"l2"`` or ``"linf"``.
        steps: of each descent, from eps / 2 on shorter and shorter.
        restarts: descents for each example. The first begins at the example and goes where the
            margin falls most, the others at random points, each towards one class, in the order of
            the outputs: with as many restarts as classes, towards every one.
        seed: of these, drawn on the CPU.
        bounds: lowest and highest valid input, numbers or tensors like one example, for attacks to
            stay within. What is certified or predicted to first order holds for the whole ball.
        attack: one more attack, ``(model, inputs, targets, eps) -> attacked inputs``, such as one
            of a library's; model, inputs and what it returns are in float64.
        certify: whether to compute what is certified. Where no bound is known for the model, that
            is left out and said in the notes.

    Returns:
        All of it side by side, see :class:`lossgeom.Robustness`.

    Raises:
        TypeError: if the model takes several inputs, or ``attack`` returns no tensor.
        ValueError: for settings out of their range, inputs that are integers or not within the
            bounds, outputs or targets that are not those of a classifier, or an ``attack`` whose
            inputs are outside of the ball by more than rounding.
        NonFiniteError: if outputs are NaN or infinite, also at an input that an attack tries.

    Source: Madry et al., Towards deep learning models resistant to adversarial attacks,
    arXiv:1706.06083, for the attack; Tsuzuku et al., arXiv:1802.04034, for the radius.

    >>> import torch
    >>> model = torch.nn.Linear(2, 2, bias=False)
    >>> _ = torch.nn.init.eye_(model.weight)
    >>> data = [(torch.tensor([[3.0, 1.0], [1.0, 0.5]]), torch.tensor([0, 0]))]
    >>> found = robustness(Problem(model, "cross_entropy", data), eps=[0.1, 1.0])
    >>> found.clean_accuracy, found.accuracy_under_attack.tolist()
    (1.0, [1.0, 0.5])
    >>> found.certified_radii, found.logit_change.lower[:, 0]
    (tensor([1.4142, 0.3536], dtype=torch.float64), tensor([0.1000, 1.0000], dtype=torch.float64))
    """
    search = WorstCase(eps, norm, steps, restarts, seed, bounds)
    problem = whole(checked_problem(problem))
    inputs, targets = all_inputs(problem), classes(problem)
    own = None
    if attack is not None:
        own = partial(attacked_inputs, attack, frozen_model(problem), inputs.shape[1:])
    change, found, graph = measured(problem, search, inputs, targets, own, certify=certify)
    certain = None
    if graph is not None:
        with measuring(inputs.device):
            certain = radii(graph, inputs, targets, norm)
    return Robustness(norm, change.eps, found.at_example, found.margin, certain, change)
