"""Short cuts, and derivatives, tried on a few examples before they are trusted."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from lossgeom.batches import Batch, tensors_of
from lossgeom.problem import Problem
from lossgeom.problem.agreement import ALONE, agree, under
from lossgeom.problem.first_look import LARGE
from lossgeom.problem.isolation import measuring
from lossgeom.problem.model_facts import Key
from lossgeom.problem.nearby import near_or_at
from lossgeom.problem.network import Network
from lossgeom.problem.remembered import facts_of
from lossgeom.trust.finite_differences import BAD, Finding, Order, Point, examine, unchecked
from lossgeom.trust.module_by_module import examine_modules
from lossgeom.trust.piece_by_piece import largest_piece, right_in_pieces

EXAMPLES = 4
IN_DOUBLE = 13  # vectors in float64 that are held while derivatives are compared
WHOLE = LARGE  # parameters of a model that is looked at in pieces only if it is larger
LARGEST = 2 * 10**8  # parameters that are copied in float64 without being asked to
UNCHECKED = (
    "derivatives not compared with differences: the model is too large for a copy in float64, and "
    "could not be looked at in pieces; lossgeom.check_derivatives(problem) does it all the same"
)

ORDERS: dict[int, tuple[Order, ...]] = {
    1: ("first",),
    2: ("first", "second"),
    3: ("first", "second", "third"),
}

T = TypeVar("T")


class DerivativeError(ValueError):
    """A derivative that PyTorch computes disagrees with finite differences, or does not exist."""


@dataclass(frozen=True, eq=False)
class Trial:
    """A few examples and a point near theta, at which two ways should give the same.

    Attributes:
        problem: at that point.
        batch: those examples.
    """

    problem: Problem
    batch: Batch

    def agree(self, found: Tensor, expected: Tensor) -> bool:
        """Whether a tensor is another one, up to rounding."""
        return agree(found, expected, under(self.problem.autocast, ALONE))


def tried(
    problem: Problem, batch: Batch, look: Callable[..., T], *given: Any, remember: bool = False
) -> T:
    """Make a trial, once for a model, its mode and the shapes in a batch, and return what it shows.

    It is made at a random point near theta, where no accident, such as weights of zero, hides what
    depends on what; at theta itself, where that point is outside of the domain of the model.

    Args:
        problem: the model, and where to take it.
        batch: of which the first examples are taken.
        look: ``(trial, *given)`` to what is found out; it says by its error that a model cannot be
            measured at all.
        given: settings of the look, which can be compared.
        remember: whether what it shows is so in other problems of the same model object, too.
    """
    at, (few, shapes) = problem.evaluation, few_of(batch)
    key = Key(look, (problem.network.names, shapes, *given))

    def found() -> T:
        return near_or_at(problem.theta, lambda at: look(Trial(problem.at(at), few), *given))

    def known() -> T:
        return facts_of(problem.model, at, batch).known(key, found) if remember else found()

    return at.facts.known(key, known)


def few_of(batch: Batch) -> tuple[Batch, tuple[torch.Size, ...]]:
    """The first examples of a batch, and their shapes."""
    few = batch.examples(0, EXAMPLES)
    return few, tuple(tensor.shape for tensor in tensors_of(few.raw))


def on_few(
    problem: Problem, batch: Batch, look: Callable[..., T], *given: Any, double: bool = False
) -> T:
    """Look at a few examples, or at the whole batch where a model runs on no fewer.

    On a copy of a model with hooks: what they write in there must not be seen by the pass that goes
    on.

    Args:
        problem: the model.
        batch: of which the first examples are taken, whatever the model does with them.
        look: ``(problem on them alone, *given)`` to what it sees; raises where that is nothing.
        given: settings of the look.
        double: whether to look at a copy in float64, where the model runs in it.
    """
    network, own = problem.evaluation.network, problem.theta.dtype
    names = [glob.escape(name) for name in network.names] if network.held else None
    dtypes = [torch.float64, own] if double and own != torch.float64 else [own]
    as_it_is = not any(
        part._forward_hooks or part._forward_pre_hooks for part in network.module.modules()
    )
    copies = (
        network if as_it_is and dtype == own else Network.of(network.module, names, dtype)
        for dtype in dtypes
    )
    batches, most = [batch], EXAMPLES
    if problem.theta.numel() > WHOLE:
        most = min(most, (len(batch) + 1) // 2)
    if len(batch) > most:
        with suppress(TypeError, ValueError):  # of tensors that are no rows of examples
            batches.insert(0, batch.examples(0, most))
    with measuring(problem.theta.device):
        for copied in copies:
            for few in batches:
                with suppress(Exception):  # whatever the model says to fewer examples
                    return look(problem.on(few, copied), *given)
        return look(problem.on(batch, copied), *given)  # for its error


def examined(
    problem: Problem, batch: Batch, orders: Iterable[Order], seed: int = 0
) -> tuple[Problem, dict[Order, Finding]]:
    """Compare derivatives with finite differences, on a few examples.

    Returns:
        The problem on those examples, in float64 where the model runs in it, and the findings.
    """
    try:
        point = on_few(problem, batch, Point, seed, double=True)
    except Exception as error:  # of whatever a module is, away from the user's own point
        return on_few(problem, batch, lambda small: small), unchecked(orders, error)
    return point.problem, examine(point, orders)


def guard(problem: Problem, batch: Batch, order: int = 2, rows_will_do: bool = False) -> None:
    """Compare derivatives on a batch, once for a model, unless the problem was told not to.

    A model that is too large to be copied in float64 is looked at in pieces alone; where that does
    not do, ``problem.notes`` say so.

    Args:
        problem: the loss and where to take it.
        batch: of which some examples are taken.
        order: of the derivatives.
        rows_will_do: whether gradients of the outputs one by one take the place of a second
            derivative that does not exist.
    """
    if not problem.check:
        return
    at = problem.evaluation
    names, facts = frozenset(at.network.names), at.facts
    checked: list[tuple[frozenset[str], bool]] = facts.known(Key(guard, order), list)
    if any(names <= others and (there or rows_will_do) for others, there in checked):
        return
    if problem.theta.numel() <= LARGEST:
        look = partial(check_order, problem, batch, order, rows_will_do)
        key = Key(check_order, (order, rows_will_do))
        checked.append((names, facts_of(problem.model, at, batch).known(key, look)))
        return
    if not on_few(problem, batch, right_in_pieces, ORDERS[order]):
        facts.first_look.model = [*(facts.first_look.model or []), UNCHECKED]
    checked.append((names, True))


def bytes_of_guard(problem: Problem, examples: int, each: float, again: float) -> float:
    """About what a comparison with differences takes.

    Args:
        problem: whose derivatives are compared.
        examples: that they are compared on.
        each: bytes that the graph of an example saves.
        again: what it would save besides if nothing were computed again, as nothing is here. Calls
            of modules that are looked at one by one do not hold it together.
    """
    P = problem.theta.numel()
    if not problem.check:
        return 0.0
    if P <= WHOLE:
        return IN_DOUBLE * 8 * P + 4 * examples * (each + again)
    return IN_DOUBLE * 8 * largest_piece(problem) + examples * (4 * each + again)


def check_order(problem: Problem, batch: Batch, order: int, rows_will_do: bool = False) -> bool:
    """Raise if a derivative is wrong, or missing and needed.

    Returns:
        Whether all of them are there.
    """
    all_there, in_pieces = True, problem.theta.numel() > WHOLE
    if in_pieces and on_few(problem, batch, right_in_pieces, ORDERS[order]):
        return True
    small, findings = examined(problem, batch, ORDERS[order])
    for name, finding in findings.items():
        if rows_will_do and name == "second" and finding.status == "unsupported":
            all_there = False
        elif finding.status in BAD:
            modules = examine_modules(small, findings, 0)
            blamed = [f"{m.kind} ({m.name or 'model'})" for m in modules if m.bad(name)]
            where = " in " + " and ".join(blamed) if blamed else ""
            raise DerivativeError(
                f"the {name} derivative{where} {_said(name, finding)}. "
                "lossgeom.doctor(problem) says more"
            )
    return all_there


def _said(order: Order, finding: Finding) -> str:
    """How a derivative is bad, and what follows."""
    if finding.status == "wrong":
        return (
            f"disagrees with finite differences (relative error {finding.error:.1e}); what needs "
            "it would be wrong, and Problem(..., check=False) measures it anyway"
        )
    return f"is not there ({finding.message}); " + (
        "what needs no second derivative of the model, such as GaussNewton, EmpiricalFisher and "
        "NTK, can be measured"
        if order == "second"
        else "what needs it cannot be measured"
    )
