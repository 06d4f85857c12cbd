"""Inputs of linear and convolutional layers, and the loss Hessian's root pulled back to them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lossgeom.autodiff.batch_jacobian import pulled
from lossgeom.autodiff.layer_calls import LayerCalls, Pulled
from lossgeom.batches import Batch
from lossgeom.curvature.empirical_fisher import observed_gradients
from lossgeom.curvature.layer_summands import parameter_groups
from lossgeom.curvature.monte_carlo_fisher import SampledScores
from lossgeom.curvature.output_root import batch_root
from lossgeom.problem import Problem, checked_problem
from lossgeom.problem.model_facts import Key
from lossgeom.problem.nearby import drawn
from lossgeom.trust.trial import Trial, guard, tried
from lossgeom.wording import unknown

Curvature = Literal["exact", "sampled", "empirical"]
Columns = tuple[int, Callable[[int], Tensor]]  # how many, and each in the shape of the outputs

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
FORWARDS = [kind.forward for kind in (nn.Linear, *CONVOLUTIONS)]
MOST_COLUMNS = 2048  # of the root for each example: as many backward passes
CHUNK_BYTES = 256 * 2**20  # of gradients at what layers put out that are held at once


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

    def inputs(self, calls: LayerCalls, B: int) -> Float[Tensor, "B S n"]:
        """Lay out what the layer was called with at the positions of all calls."""
        parts = [_positions(m, x, B) for m in self.modules for x in calls.inputs[m]]
        return torch.cat(parts, 1).to(calls.outputs.dtype)

    def gradients(self, pulled: Pulled, B: int) -> Float[Tensor, "K B S m"]:
        """Lay out gradients at what the layer put out at the same positions."""
        return torch.cat([_rows(m, g, B) for m in self.modules for g in pulled[m]], 2)


@dataclass(frozen=True, eq=False)
class LayerRows:
    r"""What a batch gives for a layer.

    The layer's block of the batch's summed Gauss-Newton matrix, in its weight, is

    .. math:: \sum_{k, b} \mathrm{vec}(G_{kb}) \mathrm{vec}(G_{kb})^\top, \quad
        G_{kb} = \sum_s g_{kbs} x_{bs}^\top

    with vec in row-major order: the entry of output i and input j is at i n + j.

    Attributes:
        layer: whose they are.
        inputs: x at S positions, of the examples with a target that counts: the input of a linear
            layer, the patch of a convolution; a last 1 where the bias is joined.
        gradients: g, the columns of the root pulled back to what the layer puts out.
        first: whether these are the first columns for these inputs. Where all of them take more
            memory than is held at once, the same inputs come again with others.
        joined: whether the last input is the 1 that the bias is the weight of.
    """

    layer: Layer
    inputs: Float[Tensor, "B S n"]
    gradients: Float[Tensor, "K B S m"]
    first: bool
    joined: bool


def layer_rows(
    problem: Problem,
    take: Callable[[tuple[LayerRows, ...]], None],
    *,
    curvature: Curvature = "exact",
    bias: bool = False,
    seed: int = 0,
    samples: int = 1,
) -> float:
    """Go over the data, and hand on the rows of all layers, batch after batch.

    Layers are modules that are linear or convolutions without groups. One that is called several
    times, and modules that share their parameters, have the positions of all calls. What is left
    out, and why, is in the notes of the problem: see :func:`left_out`.

    Cost: one forward pass, and one backward pass for each column: as many as an example has outputs
    for ``"exact"``, ``samples`` for ``"sampled"``, one for each target of an example for
    ``"empirical"``.

    Args:
        problem: the loss and where to take it.
        take: is given the rows of every layer.
        curvature: what the columns are of, as of :func:`lossgeom.kronecker_factors`.
        bias: whether to join the bias, as the weight of an input that is 1.
        seed: of sampled targets.
        samples: of the targets of each observation.

    Returns:
        The number of terms of the loss, for ``Problem.reduced``.

    Raises:
        ValueError: if there is no such layer, or one in some batches only; if the loss has no such
            root; for more than 2048 columns.
    """
    if curvature not in get_args(Curvature):
        raise ValueError(unknown("curvature", curvature, get_args(Curvature)))
    sampled = curvature == "sampled"
    scores = SampledScores(checked_problem(problem), seed, samples) if sampled else None

    def on_batch(batch: Batch) -> float:
        guard(problem, batch, order=1)
        layers = _layers_on(problem, batch)
        calls = LayerCalls(problem, _modules(layers), problem.theta, batch)
        outputs, B = calls.outputs.detach(), len(calls.outputs)
        if scores is not None:
            columns = _sampled(scores, outputs, batch)
        else:
            columns = (_exact if curvature == "exact" else _empirical)(problem, outputs, batch)
        counted = _counted(problem, outputs, batch)
        joined = [bias and len(layer.parameters) == 2 for layer in layers]
        inputs = [
            F.pad(layer.inputs(calls, B)[counted], (0, int(one)), value=1.0)
            for layer, one in zip(layers, joined, strict=True)
        ]
        for place, U in enumerate(_chunks(columns, calls.nbytes)):
            found = calls.pulled(U)
            gradients = [layer.gradients(found, B).to(U)[:, counted] for layer in layers]
            parts = zip(layers, inputs, gradients, joined, strict=True)
            take(tuple(LayerRows(layer, x, g, not place, one) for layer, x, g, one in parts))
        return problem.terms(outputs, batch)[1]

    return math.fsum(problem.over_batches(on_batch))


def left_out(problem: Problem) -> dict[str, str]:
    """Say which modules' parameters there are no rows of, and why, by the first batch."""
    return _examined(checked_problem(problem), problem.first_batch())[1]


def _exact(problem: Problem, outputs: Tensor, batch: Batch) -> Columns:
    """Columns of the root of the loss Hessian: one for each output of an example."""
    root = batch_root(problem, outputs, batch)
    K = outputs[0].numel()
    if K > MOST_COLUMNS:
        raise ValueError(
            f"curvature='exact' takes a backward pass for each of the {K} outputs of an example, "
            f"expected at most {MOST_COLUMNS}; curvature='sampled' takes one for each of samples= "
            "and is right in expectation"
        )

    def column(k: int) -> Tensor:
        unit = torch.zeros_like(outputs, memory_format=torch.contiguous_format)
        unit.view(len(outputs), -1)[:, k] = 1
        return root.transposed(unit)

    return K, column


def _sampled(scores: SampledScores, outputs: Tensor, batch: Batch) -> Columns:
    """Gradients at targets that the model draws, independently for all its observations."""
    draws = scores.of(outputs, batch)
    S = len(draws)
    return S, lambda k: scores.likelihood.unrows(draws[k] / S**0.5, outputs)


def _empirical(problem: Problem, outputs: Tensor, batch: Batch) -> Columns:
    """Gradients at the true targets, one column for each observation of an example."""
    U, _ = observed_gradients(problem, outputs, batch)
    likelihood, B = problem.criterion.likelihood, len(outputs)
    T = len(U) // B

    def column(k: int) -> Tensor:
        only = torch.zeros_like(U).view(B, T, -1)
        only[:, k] = U.view(B, T, -1)[:, k]
        rows = only.view_as(U)
        return rows.view_as(outputs) if likelihood is None else likelihood.unrows(rows, outputs)

    return T, column


def _chunks(columns: Columns, nbytes: int) -> Iterator[Tensor]:
    """Yield as many columns at once as memory allows, of so many bytes each."""
    K, column = columns
    size = max(1, CHUNK_BYTES // max(nbytes, 1))
    for start in range(0, K, size):
        yield torch.stack([column(k) for k in range(start, min(start + size, K))])


def _counted(problem: Problem, outputs: Tensor, batch: Batch) -> slice | Tensor:
    """Find the examples that have a target with a weight."""
    likelihood = problem.criterion.likelihood
    if likelihood is None:
        return slice(None)
    weights = likelihood.weights(outputs, batch)
    counted = (weights != 0).view(len(outputs), -1).any(1)
    return slice(None) if counted.all() else counted


def _layers_on(problem: Problem, batch: Batch) -> list[Layer]:
    """Find the layers, the same ones in every batch, and note what is left out."""
    layers, why = _examined(problem, batch)
    reasons = "; ".join(f"{name} ({reason})" for name, reason in why.items())
    if not layers:
        raise ValueError(
            "expected a model with linear layers or convolutions that act on the examples in the "
            f"rows of what they are called with, but there are none: {reasons}"
        )
    names = [layer.name for layer in layers]
    if problem.cache.value(Key(_layers_on), lambda: names) != names:
        raise ValueError(
            f"expected the same layers to act in every batch, but in batch {batch.index} other "
            f"ones are left out than in the first: {reasons or 'none'}"
        )
    if why:
        problem.cached(_note, f"no part of what is measured layer by layer: {reasons}")
    return layers


def _note(problem: Problem, text: str) -> None:
    problem.cache.notes.append(text)


def _examined(problem: Problem, batch: Batch) -> tuple[list[Layer], dict[str, str]]:
    """Find the layers that are right on a batch, and why other modules are none."""
    candidates, why = _candidates(problem)
    if candidates:
        why = why | tried(problem, batch, _wrong)
    return [layer for layer in candidates if layer.name not in why], why


def _candidates(problem: Problem) -> tuple[list[Layer], dict[str, str]]:
    """Find the modules that should be layers by what they are, and why others are not."""
    network = problem.network
    places = {(module, name): place for module, name, place in network.slots}
    found, why = [], {}
    for modules, name, _ in parameter_groups(problem):
        own = {(places.get((m, "weight")), places.get((m, "bias"))) for m in modules}
        weight, bias = next(iter(own))
        if others := [m for m in modules if type(m).forward not in FORWARDS]:
            why[name] = f"{type(others[0]).__name__} is neither linear nor a convolution"
        elif any(isinstance(m, CONVOLUTIONS) and m.groups > 1 for m in modules):
            why[name] = "a convolution in groups"
        elif len(own) > 1:
            why[name] = "modules that share only some of their parameters"
        elif weight is None:
            why[name] = "its weight is held fixed"
        else:
            parameters = tuple(network.names[i] for i in (weight, bias) if i is not None)
            found.append(Layer(name, parameters, tuple(modules)))
    return found, why


def _wrong(trial: Trial) -> dict[str, str]:
    """Find the layers whose rows do not make the gradient of the first example, and say why."""
    problem, leaf = trial.problem, trial.problem.leaf()
    layers, why = _candidates(problem)[0], {}
    calls = LayerCalls(problem, _modules(layers), leaf, trial.batch)
    u, B = drawn(calls.outputs), len(calls.outputs)
    u[1:] = 0
    parts, gradient = calls.pulled(u[None]), problem.unflatten(pulled(calls.outputs, leaf, u))
    for layer in layers:
        called = [x for m in layer.modules for x in calls.inputs[m]]
        if not called or any(len(x) % B for x in called):
            why[layer.name] = "not called with rows for the examples"
            continue
        x, g = layer.inputs(calls, B), layer.gradients(parts, B)[0]
        own = torch.cat([g[:1], torch.zeros_like(g[1:])])
        made = [torch.einsum("bsm,bsn->mn", g, x), g.sum((0, 1))]
        expected = [gradient[name] for name in layer.parameters]
        if not trial.agree(own, g):
            why[layer.name] = "an example depends on other rows of it than its own"
        elif not all(trial.agree(a.view_as(b), b) for a, b in zip(made, expected, strict=False)):
            why[layer.name] = "its parameters act outside of its calls, too"
    return why


def _modules(layers: list[Layer]) -> list[nn.Module]:
    return [module for layer in layers for module in layer.modules]


def _positions(module: nn.Module, x: Tensor, B: int) -> Float[Tensor, "B S n"]:
    """Lay out inputs, or patches of them, as one row for each position of an example."""
    if not isinstance(module, CONVOLUTIONS):
        return x.reshape(B, -1, x.shape[-1])
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    x = F.pad(x, module._reversed_padding_repeated_twice, mode=mode)
    for dim, (size, stride, dilation) in enumerate(
        zip(module.kernel_size, module.stride, module.dilation, strict=True), 2
    ):
        x = x.unfold(dim, dilation * (size - 1) + 1, stride)[..., ::dilation]
    d = len(module.kernel_size)
    patches = x.movedim(1, d + 1)  # B, positions, channels, kernel
    return patches.reshape(B, -1, patches.shape[d + 1 :].numel())


def _rows(module: nn.Module, g: Tensor, B: int) -> Float[Tensor, "K B S m"]:
    """Lay out what belongs to a layer's outputs as one row for each position of an example."""
    if isinstance(module, CONVOLUTIONS):
        g = g.movedim(2, -1)
    return g.reshape(len(g), B, -1, g.shape[-1])
