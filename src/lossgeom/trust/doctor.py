"""Which derivatives of a model can be trusted, and which layer is to blame if not."""

from __future__ import annotations

from dataclasses import dataclass

from lossgeom.problem import Problem, checked_problem
from lossgeom.trust.finite_differences import Finding, Order
from lossgeom.trust.module_by_module import ModuleFinding, examine_modules
from lossgeom.trust.trial import ORDERS, check_order, examined

NEEDED_FOR: dict[Order, str] = {
    "first": "gradients",
    "second": "Hessian, Gauss-Newton and Fisher matrices, tangent kernels, sharpness",
    "third": "gradients of curvature, such as that of sharpness",
    "nested forward": "second derivatives by jvp of jvp",
}


@dataclass(frozen=True)
class Diagnosis:
    """Derivatives of a model and of its modules, compared with finite differences.

    Attributes:
        model: findings on the loss of the whole model, by order of derivative.
        modules: findings on each type of module, alone with the inputs that it gets.
        notes: what is measured differently from how the model runs.
    """

    model: dict[Order, Finding]
    modules: tuple[ModuleFinding, ...]
    notes: tuple[str, ...] = ()

    @property
    def trusted(self) -> tuple[Order, ...]:
        """Orders that are right in the model and in every module."""
        return tuple(
            order
            for order, finding in self.model.items()
            if finding.status == "right" and not self.blamed(order)
        )

    @property
    def healthy(self) -> bool:
        """Whether all that was asked for can be trusted."""
        return len(self.trusted) == len(self.model)

    def blamed(self, order: Order) -> tuple[ModuleFinding, ...]:
        """The types of modules whose derivative of an order is wrong or does not exist."""
        return tuple(module for module in self.modules if module.bad(order))

    def __str__(self) -> str:
        lines = ["derivative      relative error  verdict"]
        lines += [_line(order, finding) for order, finding in self.model.items()]
        kinds = ", ".join(module.kind for module in self.modules)
        lines += ["", f"types of modules examined: {kinds or 'none'}"]
        for module in self.modules:
            for order, finding in module.findings.items():
                if module.bad(order):
                    lines.append(f"  {module.kind} ({module.name or 'model'}), {order}:")
                    lines.append(f"    {_said(finding)}")
        for title, wanted in (("can be trusted", True), ("not to be trusted", False)):
            orders = [order for order in self.model if (order in self.trusted) is wanted]
            if orders:
                lines += ["", f"{title}:", *(f"  {o}: {NEEDED_FOR[o]}" for o in orders)]
        if "third" not in self.model:
            lines += ["", "not examined: third derivatives and nested forward mode"]
        if self.notes:
            lines += ["", "notes:", *(f"  {note}" for note in self.notes)]
        return "\n".join(lines)


def _line(order: Order, finding: Finding) -> str:
    return f"{order:<16}{finding.error:<16.1e}{finding.status} {finding.message}".rstrip()


def _said(finding: Finding) -> str:
    if finding.status == "unsupported":
        return f"autograd raises {finding.message}"
    return f"{finding.status.upper()}, relative error {finding.error:.1e}"


def doctor(problem: Problem, *, third: bool = False, seed: int = 0) -> Diagnosis:
    r"""Compare the derivatives of a model with finite differences, also type by type of module.

    PyTorch returns silently wrong derivatives of higher order for some layers: the third derivative
    through LayerNorm and BatchNorm, for example, and nested forward mode through both. Autograd
    cannot notice, because it is autograd that is wrong. Here the gradient is compared with
    differences of the loss, the Hessian's product with differences of the gradient, J v with
    differences of the outputs and, if asked, the third derivative with differences of the Hessian's
    product. Random directions are used, at a random point near the parameters (so that no unit sits
    exactly at a kink), in a float64 copy, on the first few examples. Each type of module is then
    examined alone, in its parameters and inputs.

    A derivative is called right if the relative difference is at most 1e-3 for some step size.

    Cost: some 5 gradients on a few examples for the model, and as many for a module of each type;
    some 10 more with ``third``, and more where something disagrees.

    Args:
        problem: model, loss and batches.
        third: whether to examine third derivatives and nested forward mode, too.
        seed: of the directions.

    Returns:
        The diagnosis; ``print`` it. ``.healthy`` and ``.trusted`` say what follows.

    Source: pytorch/pytorch issues 198017, 175754 and 186256.

    >>> import torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Linear(5, 2))
    >>> data = [(torch.ones(4, 3), torch.tensor([0, 1, 1, 0]))]
    >>> diagnosis = doctor(Problem(model, "cross_entropy", data), third=True)
    >>> diagnosis.trusted, [module.kind for module in diagnosis.blamed("third")]
    (('first', 'second'), ['LayerNorm'])
    """
    orders = (*ORDERS[3], "nested forward") if third else ORDERS[2]

    def diagnoses(here: Problem) -> list[Diagnosis]:
        small, model = examined(here, here.first_batch(), orders, seed)
        return [Diagnosis(model, tuple(examine_modules(small, model, seed)), problem.notes)]

    return min(checked_problem(problem).rows(diagnoses), key=lambda one: one.healthy)


def check_derivatives(problem: Problem, order: int = 2) -> None:
    """Raise if derivatives up to an order disagree with finite differences, as :func:`doctor` does.

    Every matrix calls this for order 2 before its first product, unless the problem was made with
    ``check=False``. Code of your own that differentiates a curvature should call it for order 3.

    Args:
        problem: model, loss and batches.
        order: 1, 2 or 3.

    Raises:
        DerivativeError: naming the type of module whose derivative is wrong or does not exist.
        ValueError: for another order.

    >>> import torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Linear(5, 2))
    >>> data = [(torch.ones(4, 3), torch.tensor([0, 1, 1, 0]))]
    >>> check_derivatives(Problem(model, "cross_entropy", data), order=2)
    """
    if order not in ORDERS:
        raise ValueError(f"expected order 1, 2 or 3, got {order}")

    def checked(here: Problem) -> list[None]:
        check_order(here, here.first_batch(), order)
        return [None]

    checked_problem(problem).rows(checked)
