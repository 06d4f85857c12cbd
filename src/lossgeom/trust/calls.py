"""Every call of a module in a forward pass, and whether anything gets past its arguments."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.overrides import TorchFunctionMode

from lossgeom.autodiff.hooks import hooked
from lossgeom.batches import Batch, map_tensors
from lossgeom.losses.graphs import graph_nodes
from lossgeom.problem import Problem
from lossgeom.problem.remembered import kind_of, plain_value
from lossgeom.trust.alone import floating

PASSING = ("__getitem__", "size", "dim", "view", "reshape", "flatten", "transpose", "unsqueeze")
SHAPE = ("shape", "ndim", "dtype", "device")


@dataclass(eq=False)
class Call:
    """A call of a module, or what is done around all of them.

    Attributes:
        module: that is called.
        place: a number that no other call has.
        arguments: as they were.
        given: ids of the leaves of tensors in lists and the like.
        inputs: the tensors that it works on.
        outputs: of the calls that it makes itself.
        functions: names of those of torch that it calls itself, and whether with gradients.
        switches: the arguments that are single numbers or words.
    """

    module: nn.Module
    place: int
    arguments: Any = None
    given: frozenset[int] = frozenset()
    inputs: list[Tensor] = field(default_factory=list)
    outputs: dict[nn.Module, list[Any]] = field(default_factory=dict)
    functions: list[tuple[str, str, bool]] = field(default_factory=list)
    switches: Hashable = None

    def parameters(self, module: nn.Module) -> Iterator[Tensor | None]:
        """The parameters of a module and of those parts of it that were not called."""
        yield from module._parameters.values()
        for child in module.children():
            if child not in self.outputs:
                yield from self.parameters(child)


class Calls(TorchFunctionMode):
    """Cuts the graph at the arguments and the outputs of every call.

    So each call is seen to be a function of its arguments, of its own parameters and of what it
    calls, and of nothing that others keep, return in an object or write into their arguments.

    Attributes:
        alike: of the calls of one kind, the one of the module with the fewest numbers.
    """

    def __init__(self, root: nn.Module) -> None:
        TorchFunctionMode.__init__(self)
        self.alike: dict[tuple[Any, ...], Call] = {}
        self._modules = list(root.modules())
        self._kinds = {module: kind_of(module) for module in self._modules}
        self._open = [Call(root, 0)]
        self._made = 1

    def of(self, problem: Problem, batch: Batch) -> Call:
        """Evaluate a problem, and return what is done around all calls of modules.

        Raises:
            LookupError: if a call depends on something else than it should.
        """
        outside, known = self._open[0], problem.criterion.known
        with problem.network.undone(), hooked(self._modules, self.after, self.before), self:
            outputs = problem.outputs(problem.theta.detach(), batch)
            results = [outputs] if known else [outputs, problem.terms(outputs, batch)[0]]
        self._look_through(outside, results)
        return outside

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        of, name = getattr(func, "__self__", None), getattr(func, "__name__", "")
        if name == "__deepcopy__":  # of what an argument keeps in an object
            places = {call.place for call in self._open}
            if any(vars(leaf).get("place") in places for leaf in _leaves([args[0]])):
                raise LookupError("what is passed on is hidden in an object")
            return args[0].detach() if args[0].requires_grad else func(*args)
        called = getattr(of, "__name__", ""), name, torch.is_grad_enabled()
        self._open[-1].functions.append(called)
        return func(*args, **(kwargs or {}))

    def before(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """Note a call, and cut its arguments."""
        call = Call(module, self._made, self._copied((args, kwargs)))
        with torch._C.DisableTorchFunction():
            return self._begun(call, args, kwargs)

    def after(self, module: nn.Module, args: Any, outputs: Any) -> Any:  # noqa: ARG002
        """Look at what a call has made, and cut it."""
        call = self._open.pop()
        if call.module is not module:
            raise LookupError("a call has ended by an error")
        self._open[-1].outputs.setdefault(module, []).append(self._copied(outputs))
        with torch._C.DisableTorchFunction():
            return self._ended(call, outputs)

    def _begun(self, call: Call, args: Any, kwargs: Any) -> Any:
        if self._made == 1:
            self._cut_parameters()
        self._made += 1
        named = {**dict(enumerate(args)), **kwargs}
        rest = [value for value in named.values() if not isinstance(value, Tensor)]
        call.given = frozenset(id(leaf) for leaf in _leaves(floating(rest)))
        call.switches = tuple((name, plain_value(value)) for name, value in named.items())
        cut: dict[int, Tensor] = {}
        for tensor in named.values():
            if isinstance(tensor, Tensor) and id(tensor) not in cut:
                cut[id(tensor)] = self._cut(tensor, call.place)
        call.inputs = [tensor for tensor in cut.values() if tensor.is_floating_point()]
        self._open.append(call)
        return (
            tuple(cut.get(id(value), value) for value in args),
            {name: cut.get(id(value), value) for name, value in kwargs.items()},
        )

    def _ended(self, call: Call, outputs: Any) -> Any:
        module, within = call.module, self._open[-1].place
        found = floating(outputs)
        returned = {id(tensor) for tensor in found}
        if any(tensor._version and id(tensor) not in returned for tensor in call.inputs):
            raise LookupError("an argument is written to")
        graph = self._look_through(call, found)
        kind = self._kinds[module], tuple(call.functions), graph, call.switches
        if found:
            fewest = self.alike.setdefault(kind, call)
            if _numbers(module) < _numbers(fewest.module):
                self.alike[kind] = call
        return map_tensors(lambda tensor: self._cut(tensor, within), outputs, strict=False)

    def _copied(self, tree: Any) -> Any:
        """Arguments or outputs as they are now, also what objects among them keep."""
        functions = self._open[-1].functions
        count = len(functions)
        tree = copy.deepcopy(map_tensors(torch.detach, tree, strict=False))
        del functions[count:]
        return tree

    def _cut(self, tensor: Tensor, place: int) -> Tensor:
        """The same numbers with a leaf of their own, which the call at a place may depend on."""
        if not tensor.is_floating_point():
            return tensor
        leaf: Any = tensor.detach().requires_grad_()
        leaf.place = place
        cut: Tensor = leaf.clone()
        return cut

    def _cut_parameters(self) -> None:
        """Give each parameter that theta holds a leaf of its own, for this evaluation."""
        leaves: dict[int, Tensor] = {}
        for module in self._modules:
            for name, held in module._parameters.items():
                if held is not None and not isinstance(held, nn.Parameter):
                    leaf = leaves.setdefault(id(held), held.detach().requires_grad_())
                    module._parameters[name] = leaf

    def _look_through(self, call: Call, results: list[Tensor]) -> frozenset[type]:
        """The types of the nodes of a call's graph, whose leaves are its own."""
        nodes = list(graph_nodes(*results))
        if any(isinstance(node, BackwardCFunction) for node in nodes):
            raise LookupError("what a function of one's own depends on cannot be seen")
        own = {id(p) for p in call.parameters(call.module)} if call.place else set()
        for leaf in _leaves(results):
            if vars(leaf).get("place") != call.place and id(leaf) not in own | call.given:
                raise LookupError("a call depends on more than what it is given")
        return frozenset(map(type, nodes))


def _leaves(tensors: list[Tensor]) -> list[Any]:
    return [node.variable for node in graph_nodes(*tensors) if hasattr(node, "variable")]


def _numbers(module: nn.Module) -> int:
    return sum(p.numel() for p in module._parameters.values() if p is not None)


def passes_on(kind: Any) -> bool:
    """Whether calls hand on what they get and what others put out, and compute nothing."""
    (*_, hooks, _), functions, *_ = kind
    return not hooks and all(
        gradients and (name in PASSING if name != "__get__" else of in SHAPE)
        for of, name, gradients in functions
    )
