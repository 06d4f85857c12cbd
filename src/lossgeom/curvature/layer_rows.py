"""Inputs of linear and convolutional layers, and the loss Hessian's root pulled back to them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.batches import Batch
from lossgeom.curvature._layers import Layer, layers_on
from lossgeom.curvature._linear_losses import note_if_linear
from lossgeom.curvature.empirical_fisher import observed_gradients
from lossgeom.curvature.monte_carlo_fisher import SampledScores
from lossgeom.curvature.output_root import batch_root
from lossgeom.messages.checks import check_whole
from lossgeom.messages.wording import unknown
from lossgeom.problem import Problem, checked_problem
from lossgeom.trust.trial import guard

Curvature = Literal["exact", "sampled", "empirical"]
Columns = tuple[int, Callable[[int], Tensor]]  # how many, and each in the shape of the outputs

MOST_COLUMNS = 2048  # of the root for each example: as many backward passes
CHUNK_BYTES = 256 * 2**20  # of gradients at what layers put out that are held at once


@dataclass(frozen=True, eq=False)
class LayerRows:
    r"""The inputs of a layer on a batch, and the gradients at what it puts out.

    Its block of the batch's summed Gauss-Newton matrix, in its weight, is

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

    def flat(self) -> Float[Tensor, "j mn"]:
        """The gradients G, one in each row."""
        return (self.gradients.mT @ self.inputs).flatten(0, 1).flatten(1)


def layer_rows(
    problem: Problem,
    take: Callable[[LayerRows], None],
    *,
    curvature: Curvature = "exact",
    bias: bool = False,
    seed: int = 0,
    samples: int = 1,
) -> float:
    """Go over the data, and hand on the rows of each layer in each batch, one after the other.

    Layers are modules that are linear or convolutions without groups. One that is called several
    times, and modules that share their parameters, have the positions of all calls. What is left
    out, and why, is in the notes of the problem: see :func:`left_out`.

    Cost: one forward pass, and one backward pass for each column: as many as an example has outputs
    for ``"exact"``, ``samples`` for ``"sampled"``, one for each target of an example for
    ``"empirical"``. Once for a problem, two more backward passes, in which it shows which rows
    belong to which example.

    Args:
        problem: the loss and where to take it.
        take: is given rows, which are laid out one layer at a time.
        curvature: what the columns are of, as of :func:`lossgeom.kronecker_factors`.
        bias: whether to join the bias, as the weight of an input that is 1.
        seed: of sampled targets.
        samples: of the targets of each observation.

    Returns:
        The number of terms of the loss on the data of this process, for ``Problem.reduced``.

    Raises:
        ValueError: if there is no such layer, or one in some batches only; if the loss has no such
            root; for more than 2048 columns.
        NonFiniteError: where the loss is NaN or infinite.
    """
    columns_of = _columns_of(checked_problem(problem), curvature, seed, samples)
    here, names = problem.local, dict[str, None]()

    def on_batch(batch: Batch) -> float:
        guard(here, batch, order=1)
        columns: list[Columns] = []

        def only(outputs: Tensor) -> Tensor | None:
            columns.append(columns_of(outputs, batch))
            K, column = columns[0]
            return column(0) if K == 1 else None

        layers, calls, known, terms = layers_on(here, batch, only, (curvature, seed, samples))
        outputs, B, (K, column) = calls.outputs.detach(), len(calls.outputs), columns[0]
        names.update((layer.name, None) for layer in layers)
        counted = _counted(here, outputs, batch)
        size = max(1, CHUNK_BYTES // max(calls.nbytes, 1))
        for start in range(0, K, size):
            if (pulled := known) is None:
                last = min(start + size, K)
                pulled = calls.pulled(torch.stack([column(k) for k in range(start, last)]))
            for layer in layers:
                joined = bias and len(layer.parameters) == 2
                x, g = layer.inputs(calls, B, joined)[counted], layer.gradients(pulled, B)
                take(LayerRows(layer, x, g[:, counted], not start, joined))
                del x, g  # before those of the next layer are laid out
        return terms

    terms = problem.ranks.together(
        lambda: math.fsum(here.over_batches(on_batch)),
        lambda _: {"the layers": list(names) or None},
    )
    if curvature == "exact" and problem.criterion.likelihood is None:
        problem.cached(note_if_linear)
    return terms


def _columns_of(
    problem: Problem, curvature: Curvature, seed: int, samples: int
) -> Callable[[Tensor, Batch], Columns]:
    """What makes the columns of a batch from its outputs."""
    if curvature not in get_args(Curvature):
        raise ValueError(unknown("curvature", curvature, get_args(Curvature)))
    check_whole(0, seed=seed)
    check_whole(1, samples=samples)
    if curvature == "sampled":
        return partial(_sampled, SampledScores(problem, seed, samples))
    return partial(_exact if curvature == "exact" else _empirical, problem.local)


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
    likelihood, T = problem.criterion.likelihood, len(U) // len(outputs)

    def column(k: int) -> Tensor:
        rows = torch.zeros_like(U)
        rows[k::T] = U[k::T]
        return rows.view_as(outputs) if likelihood is None else likelihood.unrows(rows, outputs)

    return T, column


def _counted(problem: Problem, outputs: Tensor, batch: Batch) -> slice | Tensor:
    """Find the examples with a target that counts."""
    likelihood = problem.criterion.likelihood
    if likelihood is None:
        return slice(None)
    weights = likelihood.weights(outputs, batch)
    counted = (weights != 0).view(len(outputs), -1).any(1)
    return slice(None) if counted.all() else counted
