"""The layers of a model that are linear in their weight, and what rows they act on."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lossgeom.autodiff.batch_jacobian import pulled
from lossgeom.autodiff.layer_calls import LayerCalls, Pulled
from lossgeom.batches import Batch
from lossgeom.curvature.layer_summands import parameter_groups
from lossgeom.problem import Problem, checked_problem
from lossgeom.problem.agreement import ALONE, agree, under
from lossgeom.problem.isolation import measuring
from lossgeom.problem.model_facts import Key
from lossgeom.problem.nearby import drawn
from lossgeom.trust.trial import Trial, tried

Only = Callable[[Tensor], Tensor | None]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
SUMS = 4  # with random weights, of what a layer puts out: what differs does so in one of them
FORWARDS = [kind.forward for kind in (nn.Linear, *CONVOLUTIONS)]


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer that puts out its weight times its inputs, plus its bias.

    Attributes:
        name: of the module; of all modules that share its parameters.
        parameters: names of its weight and, where that is a parameter of the problem, its bias.
        modules: those that share the parameters.
    """

    name: str
    parameters: tuple[str, ...]
    modules: tuple[nn.Module, ...]

    def inputs(self, calls: LayerCalls, B: int, bias: bool = False) -> Float[Tensor, "B S n"]:
        """Lay out what the layer was called with at the positions of all calls.

        Args:
            calls: of the layers.
            B: how many examples there are.
            bias: whether a last input is 1.
        """
        parts = [_positions(m, x, bias) for m in self.modules for x in calls.inputs[m]]
        return _one([x.reshape(B, -1, x.shape[-1]) for x in parts], 1).to(calls.outputs.dtype)

    def gradients(self, pulled: Pulled, B: int) -> Float[Tensor, "K B S m"]:
        """Lay out gradients at what the layer put out at the same positions."""
        return _one([_rows(m, g, B) for m in self.modules for g in pulled[m]], 2)


def left_out(problem: Problem) -> dict[str, str]:
    """Say which modules' parameters there are no rows of, and why, by the first batch."""
    here = checked_problem(problem).local
    batch = here.first_batch()
    with measuring(here.theta.device):
        return _examined(here, batch)[1]


def layers_on(
    problem: Problem, batch: Batch, only: Only | None = None, of: Hashable = None
) -> tuple[list[Layer], LayerCalls, Pulled | None, float]:
    """Find the layers, the same ones in every batch, call them, and note what is left out.

    Args:
        problem: the model.
        batch: the data.
        only: from the outputs to the one vector that is to be pulled back, if there is one only.
            Whether examples are apart is then seen by it, and by a random one otherwise.
        of: what that vector depends on besides.

    Returns:
        Them, their calls, what the vector was pulled back to, if it was on the way, and the number
        of terms of the loss.
    """
    layers, why, calls, pulled, terms = _examined(problem, batch, only, of)
    reasons = _listed(_some(layers, why))
    names = [layer.name for layer in layers]
    if problem.cache.value(Key(layers_on), lambda: names) != names:
        raise ValueError(
            f"expected the same layers to act in every batch, but in batch {batch.index} other "
            f"ones are left out than in the first: {reasons or 'none'}. Put a batch of one "
            "example, which hides the dimension that examples lie along, into another one; or name "
            "the layers that act in every batch with problem.with_parameters"
        )
    _note(problem, why)
    return layers, calls, pulled, terms


def layers_of(problem: Problem, batch: Batch) -> list[Layer]:
    """Find the layers, as a few examples of a batch show them, and note what is left out."""
    with problem.network.undone():
        layers, why = _on_few(problem, batch)
    _note(problem, _some(layers, why))
    return layers


def _some(layers: list[Layer], why: dict[str, str]) -> dict[str, str]:
    """Return why others are left out, or raise where no layer is left."""
    if not layers:
        raise ValueError(
            "expected a model with linear layers or convolutions that have examples, the rows of "
            f"its outputs, along the first dimension, but there are none: {_listed(why)}"
        )
    return why


def _note(problem: Problem, why: dict[str, str]) -> None:
    if why:
        problem.cache.note(f"no part of what is measured layer by layer: {_listed(why)}")


def _listed(why: dict[str, str]) -> str:
    """Reasons, each with some of the names that it is one for."""
    names: dict[str, list[str]] = {}
    for name, reason in why.items():
        names.setdefault(reason, []).append(name)
    some = {reason: ", ".join(own[:3]) + ", ..." * (len(own) > 3) for reason, own in names.items()}
    return "; ".join(f"{reason} ({listed})" for reason, listed in some.items())


def _examined(
    problem: Problem, batch: Batch, only: Only | None = None, of: Hashable = None
) -> tuple[list[Layer], dict[str, str], LayerCalls, Pulled | None, float]:
    """Find the layers whose rows are right on a batch, and why other modules have none."""
    terms = 0.0
    with problem.network.undone():
        layers, why = _on_few(problem, batch)
        calls, parts = LayerCalls(problem, modules_of(layers), problem.theta, batch), None
        if layers:  # the rows of a few examples may be laid out otherwise than those of all
            outputs = calls.outputs.detach()
            _, terms = problem.terms(outputs, batch)  # or its error where the loss is not finite
            u = None if only is None else only(outputs)

            def look() -> dict[str, str]:
                nonlocal parts
                v = drawn(outputs) if u is None else u
                parts = calls.pulled(v[None])
                return _apart(problem, layers, calls, v, parts)

            key = Key(_apart, (batch.index, None if u is None else of))
            why = why | problem.cache.value(key, look)
            parts = None if u is None else parts
    return [layer for layer in layers if layer.name not in why], why, calls, parts, terms


def _on_few(problem: Problem, batch: Batch) -> tuple[list[Layer], dict[str, str]]:
    """Find the layers whose rows are right on a few examples, and why other modules have none."""
    layers, why = problem.cached(_candidates)
    if layers:
        why = why | tried(problem, batch, _wrong, remember=True)
        layers = [layer for layer in layers if layer.name not in why]
    return layers, why


def _candidates(problem: Problem) -> tuple[list[Layer], dict[str, str]]:
    """Find the modules that are layers by their type, and why others are not."""
    network = problem.network
    places = {(module, name): place for module, name, place in network.slots}
    found, why, attention = [], {}, _attention(problem)
    for modules, name, _ in parameter_groups(problem):
        own = {(places.get((m, "weight")), places.get((m, "bias"))) for m in modules}
        weight, bias = next(iter(own))
        if any(module in attention for module in modules):
            why[name] = (
                "MultiheadAttention uses its weights without calling layers; write its projections "
                "as nn.Linear"
            )
        elif others := [m for m in modules if type(m).forward not in FORWARDS]:
            why[name] = _of_another_type(others[0])
        elif any(isinstance(m, CONVOLUTIONS) and m.groups > 1 for m in modules):
            why[name] = "a convolution in groups"
        elif len(own) > 1:
            why[name] = "modules that share only some of their parameters"
        elif weight is None:
            why[name] = "its weight is held fixed, or made of others"
        else:
            parameters = tuple(network.names[i] for i in (weight, bias) if i is not None)
            found.append(Layer(name, parameters, tuple(modules)))
    return found, why


def _attention(problem: Problem) -> set[nn.Module]:
    """Find the modules whose weights torch's attention uses, and its projections."""
    modules = problem.network.module.modules()
    found = [m for m in modules if type(m).forward is nn.MultiheadAttention.forward]
    return {part for module in found for part in module.modules()}


def _of_another_type(module: nn.Module) -> str:
    name = type(module).__name__
    if any(True for _ in module.children()):
        return f"parameters of {name} itself, outside of its layers"
    return f"{name} is neither linear nor a convolution"


def _wrong(trial: Trial) -> dict[str, str]:
    """Find the layers whose rows do not make the gradient of a few examples, and say why."""
    problem, leaf = trial.problem, trial.problem.leaf()
    layers = _candidates(problem)[0]
    calls = LayerCalls(problem, modules_of(layers), leaf, trial.batch)
    problem.terms(calls.outputs.detach(), trial.batch)  # for its error, where it is not finite
    u = drawn(calls.outputs.detach())
    parts = calls.pulled(u[None])
    why = _apart(problem, layers, calls, u, parts)
    gradient = problem.unflatten(pulled(calls.outputs, leaf, u))
    for layer in (layer for layer in layers if layer.name not in why):
        x, g = layer.inputs(calls, len(u)), layer.gradients(parts, len(u))[0]
        made = [torch.einsum("bsm,bsn->mn", g, x), g.sum((0, 1))]
        expected = [gradient[name] for name in layer.parameters]
        if not all(trial.agree(a.view_as(b), b) for a, b in zip(made, expected, strict=False)):
            why[layer.name] = "its parameters act outside of its calls, too"
    return why


def _apart(
    problem: Problem, layers: list[Layer], calls: LayerCalls, u: Tensor, plain: Pulled
) -> dict[str, str]:
    """Find the layers with rows that are not those of one example after the other, and say why.

    Where a vector is weighted by examples, what it is pulled back to must be weighted alike, as
    some random sums over what a layer puts out show.
    """
    why, B = dict[str, str](), len(u)
    weights = drawn(u.reshape(B, -1)[:, 0])
    weighted = calls.pulled(torch.einsum("b,b...->b...", weights, u)[None])
    for layer in layers:
        called = [_in_rows(m, x, B) for m in layer.modules for x in calls.inputs[m]]
        if not called or not all(called):
            why[layer.name] = "not called with rows of the examples"
            continue
        rows, expected = (layer.gradients(parts, B)[0] for parts in (weighted, plain))
        sums = drawn(rows.new_empty(rows.shape[-1], SUMS))
        expected = weights[:, None, None] * (expected @ sums)
        if not agree(rows @ sums, expected, under(problem.autocast, ALONE)):
            why[layer.name] = "what it does for an example depends on others"
    return why


def modules_of(layers: list[Layer]) -> list[nn.Module]:
    return [module for layer in layers for module in layer.modules]


def _in_rows(module: nn.Module, x: Tensor, B: int) -> bool:
    """Whether a layer was called with a first dimension that examples may lie along."""
    own = len(module.kernel_size) if isinstance(module, CONVOLUTIONS) else 0
    return x.ndim >= 2 + own and x.numel() > 0 and len(x) % B == 0


def _one(parts: list[Tensor], dim: int) -> Tensor:
    """Put tensors into one, without a copy where there is one only."""
    return torch.cat(parts, dim) if len(parts) > 1 else parts[0]


def _positions(module: nn.Module, x: Tensor, bias: bool) -> Float[Tensor, "B S n"]:
    """Lay out inputs, or patches of them, as one row for each position."""
    own = 1  # dimensions of a row
    if isinstance(module, CONVOLUTIONS):
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        x = F.pad(x, module._reversed_padding_repeated_twice, mode=mode)
        settings = zip(module.kernel_size, module.stride, module.dilation, strict=True)
        for dim, (size, stride, dilation) in enumerate(settings, 2):
            x = x.unfold(dim, dilation * (size - 1) + 1, stride)[..., ::dilation]
        own = 1 + len(module.kernel_size)
        x = x.movedim(1, -own)
    n = x.shape[-own:].numel()
    if not bias:
        return x.reshape(len(x), -1, n)
    rows = x.new_ones(len(x), x.shape[1:-own].numel(), n + 1)
    rows[..., :-1].view(x.shape).copy_(x)  # patches once, and nothing else
    return rows


def _rows(module: nn.Module, g: Tensor, B: int) -> Float[Tensor, "K B S m"]:
    """Lay out what belongs to a layer's outputs as one row for each position of an example."""
    if isinstance(module, CONVOLUTIONS):
        g = g.movedim(2, -1)
    return g.reshape(len(g), B, -1, g.shape[-1])
