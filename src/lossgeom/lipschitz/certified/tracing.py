"""The graph of a model, by torch.fx."""

from __future__ import annotations

import inspect
import operator
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

from torch import Tensor, fx, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from lossgeom.lipschitz.certified.affine_maps import Shape
from lossgeom.lipschitz.certified.graph import Graph, Value
from lossgeom.lipschitz.certified.rearranging import UnknownArguments
from lossgeom.lipschitz.certified.torch_blocks import BLOCKS
from lossgeom.lipschitz.certified.torch_functions import Handler, handler_of
from lossgeom.lipschitz.certified.torch_modules import layer_of

IN_PLACE = (operator.iadd, operator.isub, operator.imul, operator.itruediv)
ADVICE = "A lower estimate exists for any model: lipschitz_lower"


def traced(model: nn.Module, shape: Shape) -> Graph:
    """The graph of a model in float64 and eval mode, for examples of one shape.

    Raises:
        TypeError: if it cannot be traced, or does something that no bound is known for.
    """
    model = nn.Sequential(model)  # torch.fx looks into the outermost module, even one of torch's
    try:
        graph = _graph(model)
    except Exception as error:
        raise TypeError(
            f"the model cannot be traced by torch.fx ({error}); a certified bound needs one whose "
            f"forward does not branch on its input. {ADVICE}"
        ) from error
    output = _Walk(model, Value(shape)).output_of(graph)
    if not isinstance(output, Value):
        raise TypeError(
            "expected a model that puts out one tensor that depends on its input, got "
            f"{type(output).__name__}"
        )
    return output.graph()


def _recorded(function: Any) -> Any:
    def record(self: fx.Proxy, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return record


class _Proxy(fx.Proxy):
    """A proxy that records ``y += x`` as work in place, which torch.fx takes for ``y = y + x``."""

    __iadd__, __isub__, __imul__, __itruediv__ = map(_recorded, IN_PLACE)


class _Tracer(fx.Tracer):
    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)


class _AttributeTracer(_Tracer):
    """A tracer that also records what is done to tensors of the model itself.

    Such as positions and masks that are cut to the length of an input, which is a proxy.
    """

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:  # noqa: ARG002
        for name, tensor in chain(self.root.named_parameters(), self.root.named_buffers()):
            if tensor is attr_val:
                return parameter_proxy_cache.setdefault(
                    name, self.create_proxy("get_attr", name, (), {})
                )
        return attr_val


def _graph(model: nn.Module) -> fx.Graph:
    try:
        return _Tracer().trace(model)
    except Exception:
        return _AttributeTracer().trace(model)


class _Walk:
    """A walk over the nodes that torch.fx has seen, which finds the value of each."""

    def __init__(self, model: nn.Module, given: Value) -> None:
        self.model = model
        self.given = given
        self.seen: dict[fx.Node, Any] = {}

    def output_of(self, graph: fx.Graph) -> Any:
        """Visit all nodes in order, and return the value of the last one."""
        result: Any = None
        for node in graph.nodes:
            arguments, options = fx.node.map_arg((node.args, node.kwargs), self.seen.__getitem__)
            self.seen[node] = result = self._result(node, arguments, options)
            if node.args and isinstance(arguments[0], Value) and self._works_in_place(node):
                self._overwrite(arguments[0], result)
        return result

    def _result(self, node: fx.Node, arguments: Any, options: Any) -> Any:
        target: Any = node.target
        match node.op:
            case "placeholder":
                return self.given
            case "get_attr":
                return operator.attrgetter(target)(self.model)
            case "call_module":
                return self._module(target, arguments, options)
            case "call_method" if not _depends(arguments, options):
                return getattr(arguments[0], target)(*arguments[1:], **options)
            case "call_method":
                handler = handler_of(getattr(Tensor, target, None))
                return _call(handler, f"the method {target}", arguments, options)
            case "call_function" if not _depends(arguments, options):
                return target(*arguments, **options)
            case "call_function":
                name = f"the function {getattr(target, '__name__', target)}"
                return _call(handler_of(target), name, arguments, options)
        return arguments[0]

    def _overwrite(self, old: Value, result: Value) -> None:
        """Replace a tensor that was overwritten, under all of its names."""
        for node, value in self.seen.items():
            if not isinstance(value, Value) or value.storage is not old.storage:
                continue
            if value.index in (old.index, result.index):
                self.seen[node] = replace(result, storage=old.storage)
            elif any(user not in self.seen for user in node.users):
                raise TypeError(
                    f"the model overwrites {node.name}, of which it goes on to use another view; "
                    f"work out of place for a certified bound. {ADVICE}"
                )

    def _module(self, target: str, arguments: Any, options: Any) -> Any:
        module = self.model.get_submodule(target)
        block = BLOCKS.get(type_before_parametrizations(module))
        if block is not None:
            name = f"the module {type(module).__name__} ({target})"
            return _call(partial(block, module), name, arguments, options)
        if options or len(arguments) != 1 or not isinstance(arguments[0], Value):
            raise TypeError(
                f"expected {type(module).__name__} ({target}) to be called with one tensor that "
                f"depends on the input; no bound is known for other calls. {ADVICE}"
            )
        return arguments[0].then(layer_of(module, arguments[0].shape))

    def _works_in_place(self, node: fx.Node) -> bool:
        """Whether a node overwrites its first argument with its result."""
        if node.op == "call_module":
            return bool(getattr(self.model.get_submodule(str(node.target)), "inplace", False))
        named = str(getattr(node.target, "__name__", node.target)).endswith("_")
        return bool(node.kwargs.get("inplace")) or node.target in IN_PLACE or named


def _call(handler: Handler | None, name: str, arguments: Any, options: Any) -> Any:
    if handler is None:
        raise TypeError(
            f"no bound is known for {name}, which the model calls; a certified bound needs "
            f"layers, activations, pooling, rearranging, sums and concatenations. {ADVICE}"
        )
    try:
        _check_fits(handler, arguments, options)
        return handler(*arguments, **options)
    except UnknownArguments:
        raise TypeError(
            f"no bound is known for {name} with the arguments that the model gives it. {ADVICE}"
        ) from None


def _check_fits(handler: Handler, arguments: Any, options: Any) -> None:
    try:
        inspect.signature(handler).bind(*arguments, **options)
    except TypeError:
        raise UnknownArguments from None


def _depends(*tree: Any) -> bool:
    """Whether a value that depends on the input is among the arguments."""
    found: list[Any] = []
    fx.node.map_aggregate(tree, found.append)
    return any(isinstance(part, Value) for part in found)
