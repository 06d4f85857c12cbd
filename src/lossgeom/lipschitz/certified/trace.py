"""The graph of a model, by torch.fx."""

from __future__ import annotations

import inspect
import operator
from dataclasses import replace
from typing import Any

from torch import fx, nn

from lossgeom.lipschitz.certified.functions import FUNCTIONS, METHODS, Handler
from lossgeom.lipschitz.certified.graph import Builder, Graph, Shape, Value
from lossgeom.lipschitz.certified.rearranging import UnknownArguments

IN_PLACE = (operator.iadd, operator.isub, operator.imul, operator.itruediv)
ADVICE = "A lower estimate exists for any model: lipschitz_lower"


def traced(model: nn.Module, shape: Shape) -> Graph:
    """The graph of a model in float64 and eval mode, for examples of one shape.

    Raises:
        TypeError: if it cannot be traced, or does something that no bound is known for.
    """
    model = nn.Sequential(model)  # torch.fx looks into the outermost module, even one of torch's
    try:
        graph = _Tracer().trace(model)
    except Exception as error:
        raise TypeError(
            f"the model cannot be traced by torch.fx ({error}); a certified bound needs one whose "
            f"forward does not branch on its input. {ADVICE}"
        ) from error
    walk = _Walk(model, Builder(shape))
    for node in graph.nodes:
        walk.visit(node)
    if not isinstance(walk.output, Value):
        raise TypeError(
            "expected a model that puts out one tensor that depends on its input, got "
            f"{type(walk.output).__name__}"
        )
    return walk.builder.graph(walk.output)


class _Proxy(fx.Proxy):
    """One that records ``y += x`` as work in place, which torch.fx takes for ``y = y + x``."""

    def __iadd__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})

    def __isub__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.isub, (self, other), {})

    def __imul__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.imul, (self, other), {})

    def __itruediv__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.itruediv, (self, other), {})


class _Tracer(fx.Tracer):
    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)


class _Walk:
    """Visits the nodes that torch.fx has seen, and builds the graph."""

    def __init__(self, model: nn.Module, builder: Builder) -> None:
        self.model = model
        self.builder = builder
        self.seen: dict[fx.Node, Any] = {}
        self.output: Any = None

    def visit(self, node: fx.Node) -> None:
        """Take one node over into the graph, or compute it where no input is involved."""
        arguments, options = fx.node.map_arg((node.args, node.kwargs), self.seen.__getitem__)
        result: Any
        match node.op:
            case "placeholder":
                result = self.builder.input()
            case "get_attr":
                result = operator.attrgetter(str(node.target))(self.model)
            case "call_module":
                result = self._module(str(node.target), arguments, options)
            case "call_method":
                result = self._method(str(node.target), arguments, options)
            case "call_function":
                result = self._function(node.target, arguments, options)
            case _:
                result = self.output = arguments[0]
        self.seen[node] = result
        if node.args and isinstance(arguments[0], Value) and self._works_in_place(node):
            self._overwrite(arguments[0], result)

    def _overwrite(self, old: Value, result: Value) -> None:
        """Let all names of a tensor mean what has taken its place."""
        for node, value in self.seen.items():
            if not isinstance(value, Value) or value.storage != old.storage:
                continue
            if value.index in (old.index, result.index):
                self.seen[node] = replace(result, storage=old.storage)
            elif any(user not in self.seen for user in node.users):
                raise TypeError(
                    f"the model overwrites {node.name}, of which it goes on to use another view; "
                    f"work out of place for a certified bound. {ADVICE}"
                )

    def _module(self, target: str, arguments: Any, options: Any) -> Value:
        module = self.model.get_submodule(target)
        if options or len(arguments) != 1 or not isinstance(arguments[0], Value):
            raise TypeError(
                f"expected {type(module).__name__} ({target}) to be called with one tensor that "
                f"depends on the input; no bound is known for other calls. {ADVICE}"
            )
        return self.builder.layer(module, arguments[0])

    def _function(self, target: Any, arguments: Any, options: Any) -> Any:
        if not _depends(arguments, options):
            return target(*arguments, **options)
        name = f"the function {getattr(target, '__name__', target)}"
        return self._call(FUNCTIONS.get(target), name, arguments, options)

    def _method(self, target: str, arguments: Any, options: Any) -> Any:
        if not _depends(arguments, options):
            return getattr(arguments[0], target)(*arguments[1:], **options)
        return self._call(METHODS.get(target), f"the method {target}", arguments, options)

    def _call(self, handler: Handler | None, name: str, arguments: Any, options: Any) -> Any:
        if handler is None:
            raise TypeError(
                f"no bound is known for {name}, which the model calls; a certified bound needs "
                f"layers, activations, pooling, rearranging, sums and concatenations. {ADVICE}"
            )
        try:
            inspect.signature(handler).bind(self.builder, *arguments, **options)
        except TypeError:
            handler = _unknown
        try:
            return handler(self.builder, *arguments, **options)
        except UnknownArguments:
            raise TypeError(
                f"no bound is known for {name} with the arguments that the model gives it. {ADVICE}"
            ) from None

    def _works_in_place(self, node: fx.Node) -> bool:
        """Whether what it was computed from is overwritten by the result."""
        if node.op == "call_module":
            return bool(getattr(self.model.get_submodule(str(node.target)), "inplace", False))
        if node.op == "call_function":
            named = str(getattr(node.target, "__name__", "")).endswith("_")
            return bool(node.kwargs.get("inplace")) or node.target in IN_PLACE or named
        return node.op == "call_method" and str(node.target).endswith("_")


def _unknown(*arguments: Any, **options: Any) -> Any:  # noqa: ARG001
    raise UnknownArguments


def _depends(*tree: Any) -> bool:
    """Whether a value that depends on the input is among the arguments."""
    found: list[Any] = []
    fx.node.map_aggregate(tree, found.append)
    return any(isinstance(part, Value) for part in found)
