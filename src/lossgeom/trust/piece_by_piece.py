"""The derivatives of a model that is too large to be looked at as a whole in float64.

A chain of functions has right derivatives if each of them has. So every kind of module is examined
alone, in float64, in its parameters and with the inputs that it gets in the model; a module that
calls others has stand-ins for these (:mod:`lossgeom.trust.alone`), so that its own code is examined
without the cost of theirs. Of calls of modules of one class with the same settings, of whatever
sizes, that call the same functions (:mod:`lossgeom.trust.calls`), that of the smallest module is
taken. A loss that is not one of the library's, and ``forward=``, are examined in the same way, with
a stand-in for the model.

Only what is found right in this way counts. Whatever is not, or cannot be taken out of the model,
has to be looked at in the model as a whole.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from lossgeom.batches import Batch, map_tensors
from lossgeom.problem import Problem
from lossgeom.problem.evaluation import call_model
from lossgeom.problem.isolation import measuring
from lossgeom.problem.remembered import lasting
from lossgeom.trust.alone import acted, alone, stripped
from lossgeom.trust.calls import Calls, passes_on
from lossgeom.trust.finite_differences import Order, Point, examine

LARGEST = 4 * 10**6  # numbers in the parameters and inputs of a piece
CLOSE = 1e-4  # of derivatives and differences, so that a part of a piece counts beside large ones
ROWS = 2**16  # numbers in the part of a linear layer that is taken for all of it

_right: set[Hashable] = set()  # kinds of calls, with modes and orders, that were found right


class _Piece(NamedTuple):
    """What is examined: a kind of call, if it is one that tells it from all others, or none."""

    kind: Hashable | None
    module: nn.Module
    arguments: tuple[Any, Any]


def right_in_pieces(small: Problem, orders: Sequence[Order]) -> bool:
    """Whether all pieces of a model are found to have right derivatives, on a few examples."""
    if small.autocast is not None:  # whose rounding hides what a difference shows
        return False
    try:
        with measuring(small.theta.device):
            return all(_is_right(small, piece, orders) for piece in _pieces(small))
    except Exception:  # of whatever a module is, out of its place
        return False


def largest_piece(problem: Problem) -> int:
    """About how many parameters the largest piece has."""
    return max(
        (
            min(p.numel(), ROWS if type(module) in (nn.Linear, nn.Embedding) else LARGEST)
            for module in problem.network.module.modules()
            for p in module._parameters.values()
            if p is not None
        ),
        default=0,
    )


def _is_right(problem: Problem, piece: _Piece, orders: Sequence[Order]) -> bool:
    """Whether a piece has right derivatives; one in which nothing is differentiated has."""
    known = {(piece.kind, problem.mode, order) for order in orders}
    if known <= _right:
        return True
    taken_out = alone(problem, piece.module, *piece.arguments)
    if taken_out is None:
        return True
    if taken_out.theta.numel() > LARGEST:
        return False
    found = examine(Point(taken_out, tolerance=CLOSE), orders).values()
    right = all(finding.status == "right" for finding in found)
    if right and piece.kind is not None:
        _right.update(known)
    return right


def _pieces(problem: Problem) -> Iterator[_Piece]:
    """Yield each kind of call of a module, and what is around the model."""
    batch = problem.first_batch()
    root, evaluation = problem.network.module, problem.evaluation
    calls = Calls(root)
    outside = calls.of(problem, batch)
    for kind, call in calls.alike.items():
        if passes_on(kind):
            continue
        part, arguments = _in_part(call.module, *call.arguments)
        yield _Piece(kind if lasting(kind[0]) else None, stripped(part, call.outputs), arguments)
    if not evaluation.criterion.known or evaluation.forward is not None:
        around = _Around(problem, acted(root, outside.outputs[root]), batch)
        yield _Piece(None, around, ((), {}))


def _in_part(module: nn.Module, args: Any, kwargs: Any) -> tuple[nn.Module, tuple[Any, Any]]:
    """A linear layer with some of its rows, an embedding of what is looked up; others as they are.

    Each row is computed as the others are.
    """
    own: Any = module
    if type(module) is nn.Linear and own.weight.numel() > ROWS:
        rows = max(1, ROWS // own.in_features)
        part: Any = copy.copy(module)
        part._parameters = {
            name: None if p is None else nn.Parameter(p.detach()[:rows])
            for name, p in module._parameters.items()
        }
        return part, (args, kwargs)
    if type(module) is nn.Embedding and own.padding_idx is None and len(args) == 1:
        rows, places = args[0].unique(return_inverse=True)
        part = copy.copy(module)
        part._parameters = {"weight": nn.Parameter(own.weight.detach()[rows])}
        return part, ((places,), kwargs)
    return module, (args, kwargs)


class _Around(nn.Module):
    """What is done with a model, in ``forward=`` and in the loss."""

    def __init__(self, problem: Problem, model: nn.Module, batch: Batch) -> None:
        nn.Module.__init__(self)
        self.model, self.batch = model, batch
        self.call, self.terms = problem.evaluation.forward, problem.criterion.terms

    def forward(self) -> tuple[Tensor, Tensor]:
        def widened(tensor: Tensor) -> Tensor:
            return tensor.double() if tensor.is_floating_point() else tensor

        batch = self.batch.made_of(map_tensors(widened, self.batch.raw))
        outputs = call_model(self.model, batch, self.call)
        return outputs, self.terms(outputs, batch)[0]
