"""The derivatives of a model that is too large to be looked at as a whole in float64.

A chain of functions has right derivatives if each of them has. So every kind of module is examined
alone, in float64, in its parameters and with the inputs that it gets in the model; a module that
calls others has stand-ins for these (:mod:`lossgeom.trust.alone`), so that its own code is examined
without the cost of theirs. Of modules of one class with the same settings, of whatever sizes, the
smallest is taken. A loss that is not one of the library's, and ``forward=``, are examined in the
same way, with a stand-in for the model.

Only what is found right in this way counts. Whatever is not, or cannot be taken out of the model,
has to be looked at in the model as a whole.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from lossgeom.autodiff.hooks import hooked
from lossgeom.batches import Batch, map_tensors
from lossgeom.problem import Problem
from lossgeom.problem.evaluation import call_model
from lossgeom.problem.isolation import measuring
from lossgeom.trust.alone import acted, alone, floating, frozen, stripped
from lossgeom.trust.finite_differences import Order, Point, examine

LARGEST = 4 * 10**6  # numbers in the parameters and inputs of a piece
ROWS = 2**16  # numbers in the part of a linear layer that is taken for all of it
SIZES = (
    "in_features", "out_features", "in_channels", "out_channels", "num_embeddings",
    "embedding_dim", "num_features", "num_channels", "normalized_shape", "nx", "nf", "layer_idx",
)  # fmt: skip
PLAIN = (str, bool, int, float, torch.dtype, torch.device)

_right: set[Hashable] = set()  # kinds of modules, with modes and orders, that were found right


@dataclass(frozen=True)
class _Piece:
    """What is examined: a kind of module, if it is one that tells it from all others, or none."""

    kind: Hashable | None
    problem: Problem | None


@dataclass
class _Calls:
    """The first arguments of the modules that are examined, and all outputs of what they call."""

    wanted: set[nn.Module]
    called: dict[nn.Module, None] = field(default_factory=dict)
    arguments: dict[nn.Module, Any] = field(default_factory=dict)
    outputs: dict[nn.Module, list[Any]] = field(default_factory=dict)

    def before(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self.called[module] = None
        if module in self.wanted and module not in self.arguments:
            self.arguments[module] = copy.deepcopy((frozen(args), frozen(kwargs)))

    def after(self, module: nn.Module, args: Any, outputs: Any) -> None:  # noqa: ARG002
        if module in self.wanted:
            self.outputs.setdefault(module, []).append(frozen(outputs))


def right_in_pieces(problem: Problem, batch: Batch, orders: Sequence[Order]) -> bool:
    """Whether all pieces of a model are found to have right derivatives.

    Args:
        problem: the model.
        batch: a few examples.
        orders: of derivatives.
    """
    if problem.autocast is not None:  # whose rounding hides what a difference shows
        return False
    try:
        with measuring(problem.theta.device):
            return all(_is_right(piece, orders) for piece in _pieces(problem, batch))
    except Exception:  # of whatever a module is, out of its place
        return False


def _is_right(piece: _Piece, orders: Sequence[Order]) -> bool:
    """Whether a piece has right derivatives; one in which nothing is differentiated has."""
    known = {(piece.kind, order) for order in orders}
    if piece.problem is None or known <= _right:
        return True
    if piece.problem.theta.numel() > LARGEST:
        return False
    found = examine(Point(piece.problem), orders).values()
    right = all(finding.status == "right" for finding in found)
    if right and piece.kind is not None:
        _right.update(known)
    return right


def _pieces(problem: Problem, batch: Batch) -> Iterator[_Piece]:
    """Yield each kind of module that is called, and what is around the model."""
    root, evaluation = problem.network.module, problem.evaluation
    kinds = {module: kind_of(module) for module in root.modules()}
    smallest = dict[Hashable, nn.Module]()
    for module in sorted(kinds, key=_numbers):
        smallest.setdefault(kinds[module], module)
    wanted = {part for module in smallest.values() for part in (module, *_called_by(module))}
    calls = _Calls({root, *wanted})
    with torch.no_grad(), hooked(list(root.modules()), calls.after, calls.before):
        problem.outputs(problem.theta, batch)
    for kind in dict.fromkeys(kinds[module] for module in calls.called):
        module = smallest[kind]
        if module not in calls.outputs:
            raise LookupError("another module of this kind is called, and not the smallest")
        if not floating(calls.outputs[module]):
            continue
        part, arguments = _in_part(module, *calls.arguments[module])
        taken_out = alone(problem, stripped(part, calls.outputs), *arguments)
        yield _Piece(_lasting(kind, problem.mode), taken_out)
    if not evaluation.criterion.known or evaluation.forward is not None:
        around = _Around(problem, acted(root, calls.outputs[root]), batch)
        yield _Piece(None, alone(problem, around, (), {}))


def _numbers(module: nn.Module) -> int:
    return sum(p.numel() for p in module._parameters.values() if p is not None)


def _called_by(module: nn.Module) -> Iterator[nn.Module]:
    """What a module may call: its children, and those of lists of modules among them."""
    for child in module.children():
        yield child
        if type(child).forward is nn.Module.forward:
            yield from _called_by(child)


def kind_of(module: nn.Module) -> Hashable:
    """What modules have in common that run the same code."""
    own = vars(module)
    settings = tuple(
        (name, _comparable(value))
        for name, value in sorted(own.items())
        if name not in SIZES and not name.startswith("_") and name != "training"
    )
    hooks = tuple(
        id(hook) for name in ("_forward_pre_hooks", "_forward_hooks") for hook in own[name].values()
    )
    tensors = tuple(
        (name, tensor is None)
        for kind in (module._parameters, module._buffers)
        for name, tensor in kind.items()
    )
    return type(module), type(module).forward, settings, hooks, tensors


def _comparable(value: Any) -> Hashable:
    """A setting, or which object it is."""
    if value is None or isinstance(value, (*PLAIN, FunctionType, BuiltinFunctionType)):
        return type(value), value
    if isinstance(value, (tuple, list)):
        return tuple(map(_comparable, value))
    return "object", id(value)


def _lasting(kind: Any, mode: str) -> Hashable | None:
    """A kind that tells the module from all others, also after it is gone."""
    _, _, settings, hooks, _ = kind
    return None if hooks or "object" in str([value for _, value in settings]) else (kind, mode)


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
