"""The curvature beyond which an optimiser's iteration is unstable."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from torch.optim import SGD, Optimizer

from lossgeom.curvature.optimizers import known_kind, unwrapped_optimizer
from lossgeom.stability._rules import Rule, rules
from lossgeom.stability.linear_filter import edge

Of = Literal["data loss", "objective"]
MatrixName = Literal["Hessian", "ObjectiveHessian", "PreconditionedHessian"]
Status = Literal["ok", "nominal", "unknown"]
INSTEAD = "realised_edge, update_curvature"
SHARED = {"linear_filter": "momentum or betas", "maximize": "maximize"}


class Threshold(float):
    """A number that says how it was computed and what it is compared with: 4.0 by ``"2/lr"``.

    Where the threshold is not known it is NaN, which no number is above or below.

    Attributes:
        formula: how it is computed, or why it is not known.
        matrix: class of the matrix whose largest eigenvalue it is compared with.
        status: ``"ok"``; ``"nominal"`` where the optimiser changes too fast for a statement about
            its state now, such as in the first steps of Adam; or ``"unknown"``.
        instead: metrics that answer where it is unknown; ``None`` where it is known.

    >>> Threshold(4.0, "2/lr"), Threshold(None, "none known of Lion").value
    (4.0, None)
    """

    formula: str
    matrix: MatrixName
    status: Status
    instead: str | None

    def __new__(
        cls,
        value: float | None,
        formula: str = "threshold",
        matrix: MatrixName = "Hessian",
        *,
        nominal: bool = False,
    ) -> Threshold:
        made = super().__new__(cls, math.nan if value is None else value)
        made.formula, made.matrix = formula, matrix
        made.status = "unknown" if value is None else "nominal" if nominal else "ok"
        made.instead = INSTEAD if value is None else None
        return made

    @property
    def value(self) -> float | None:
        """The number, or ``None`` where it is not known."""
        return None if self.status == "unknown" else float(self)

    def __str__(self) -> str:
        if self.value is None:
            return f"unknown ({self.formula}); see {self.instead}"
        return repr(self.value)


def stability_threshold(*optimizers: Optimizer, of: Of = "data loss") -> Threshold:
    r"""The largest eigenvalue at which full-batch steps of live optimisers stop being stable.

    On a quadratic, with the preconditioner P held fixed, a mode of the matrix that
    :attr:`Threshold.matrix` names is stable below

    ==========================  ====================================  ========================
    SGD                         :math:`2 / \eta`                      ``Hessian``
    with momentum               :math:`\frac{2(1+\beta)}{\eta(1-d)}`  ``Hessian``
    with Nesterov momentum      :math:`\frac{2(1+\beta)}              ``Hessian``
                                {\eta(1+2\beta)}`
    with weight decay w         less w                                ``Hessian``
    with several w              not less w                            ``ObjectiveHessian``
    with several lr             times :math:`\eta`                    ``PreconditionedHessian``
    RMSprop, Adagrad            :math:`2 (1 + \beta)`                 ``PreconditionedHessian``
    Adam, AdamW, AMSGrad        :math:`\frac{2(1+\beta_1)}            ``PreconditionedHessian``
                                {1-\beta_1}`
    NAdam                       :math:`2 / (a + c\frac{1-\beta_1}     ``PreconditionedHessian``
                                {1+\beta_1})`
    ==========================  ====================================  ========================

    with learning rate :math:`\eta`, momentum :math:`\beta`, dampening d, and a and c of
    :meth:`lossgeom.stability.LinearFilter.nadam`. All are one root locus,
    :func:`lossgeom.stability.edge`. :class:`lossgeom.PreconditionedHessian` contains learning
    rates, weight decay of either kind, and the sign where a loss is maximised: with D = lr P,
    AdamW's edge is :math:`(2/\eta - w) (1 + \beta_1)/(1 - \beta_1)` of the eigenvalues of
    :math:`D^{-1} H`, and Adam's, whose decay is coupled, 2 (1 + b1) / (lr (1 - b1)) of those of
    :math:`D^{-1} (H + w I)`. :func:`lossgeom.effective_sharpness` is the number to compare.

    The status is ``"nominal"`` for Adagrad, which is observed far above it, and for adaptive
    optimisers in their first 10 / (1 - b1) steps (or 1 - momentum), while P may change by more
    than 5% within the memory of the averaged gradient.

    It is ``"unknown"``, without a value, for all optimisers but SGD, RMSprop, Adam, AdamW, NAdam
    and Adagrad of ``torch.optim``: also for subclasses of theirs with a ``step`` of their own, and
    where parameter groups differ in their momentum or in ``maximize``. The metrics of
    :attr:`Threshold.instead` answer for any. Optimisers of Accelerate and Lightning are looked
    into.

    The edge of stability is a statement about full-batch training; with small batches an optimiser
    becomes unstable earlier.

    Args:
        optimizers: all of one model; their current settings are read.
        of: ``"objective"`` for the threshold of :class:`lossgeom.ObjectiveHessian` where that of
            the data loss, less w, is asked of the Hessian.

    Returns:
        A float that says by its ``formula``, such as ``"2/lr"``, what it is, for figures; infinite
        where learning rates are 0.

    Raises:
        TypeError: if one is not an optimiser, or there is none.
        ValueError: for another ``of``, or a negative learning rate.

    Source: Cohen et al., arXiv:2103.00065, section 2 and appendix B (SGD, momentum);
    Cohen et al., arXiv:2207.14484, section 2 (RMSprop, Adam); Lee and Lee, 2026, proposition 2.1
    (linear filters); with weight decay derived here.

    >>> import torch
    >>> w = torch.zeros(1, requires_grad=True)
    >>> threshold = stability_threshold(SGD([w], lr=0.5))
    >>> threshold, threshold.formula, threshold.matrix
    (4.0, '2/lr', 'Hessian')
    >>> print(stability_threshold(torch.optim.LBFGS([w])))
    unknown (none is known of LBFGS); see realised_edge, update_curvature
    """
    if of not in ("data loss", "objective"):
        raise ValueError(f"expected of to be 'data loss' or 'objective', got {of!r}")
    live = [unwrapped_optimizer(each) for each in optimizers]
    if not live:
        raise TypeError("expected at least one optimiser, got none")
    found: list[Rule] = []
    for optimizer in live:
        kind = known_kind(optimizer)
        if kind is None:
            return Threshold(None, _why_unknown(optimizer))
        found += rules(optimizer, kind)
    return _of_rules(found, of)


def _of_rules(found: Sequence[Rule], of: Of) -> Threshold:
    for name, words in SHARED.items():
        if len({getattr(rule, name) for rule in found}) > 1:
            return Threshold(None, f"none, since parameter groups differ in {words}")
    first, rates = found[0], {rule.lr for rule in found}
    if {rule.kind for rule in found} == {SGD} and len(rates) == 1 and not first.maximize:
        return _of_sgd(first, {rule.coupled for rule in found}, of)
    if any(rule.lr * rule.decoupled >= 2 for rule in found):
        return Threshold(0.0, "0, since lr * weight decay >= 2", "PreconditionedHessian")
    value = edge(first.linear_filter, 1.0 if any(rates) else 0.0)
    nominal = any(rule.nominal for rule in found)
    return Threshold(value, first.formula(), "PreconditionedHessian", nominal=nominal)


def _of_sgd(rule: Rule, decays: set[float], of: Of) -> Threshold:
    """With one learning rate, which needs no preconditioner."""
    value, formula = edge(rule.linear_filter, rule.lr), rule.formula("lr")
    if of == "objective" or len(decays) > 1:
        return Threshold(value, formula, "ObjectiveHessian")
    decay = decays.pop()
    return Threshold(value - decay, f"{formula} - weight decay" if decay else formula)


def _why_unknown(optimizer: Optimizer) -> str:
    name = type(optimizer).__name__
    if "sam" in name.lower():
        return (
            f"none of the curvature alone is known of {name}: with radius rho, learning rate lr "
            "and gradient norm g, SAM's steps stop being stable at a sharpness of "
            "g / (2 rho) (sqrt(1 + 8 rho / (lr g)) - 1), below 2 / lr (Long and Bartlett, "
            "arXiv:2309.12488)"
        )
    return f"none is known of {name}"
