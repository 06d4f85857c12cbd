"""The structure of a model's layers at one point, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lossgeom.curvature import Layer, LayerBlocks, LayerErrors, LayerStructure, structure_of
from lossgeom.curvature.layer_rows import MOST_COLUMNS
from lossgeom.messages.checks import check_whole
from lossgeom.metrics.geometry import Found, Part
from lossgeom.problem import NonFiniteError, Problem, checked_problem

SHOWN = 24  # eigenvectors of factors that a map shows
IMAGES = 2  # top eigenvectors that are kept as images
SIDE = 64  # cells of an image, of the largest entries where a layer is larger


@dataclass(frozen=True)
class Structure:
    """What :func:`lossgeom.layer_structure` finds, for :func:`lossgeom.measure`.

    Cost: that of ``layer_structure``, part by part.

    Args:
        k: eigenpairs of each layer.
        tol: of eigenvalues.
        seed: of all probes and random starts.

    >>> from torch import nn
    >>> problem = Problem(nn.Linear(2, 1), "squared_error", [(torch.eye(2), torch.ones(2, 1))])
    >>> (part,) = Structure(k=2).parts(problem)
    >>> part.labels, round(part.measure().estimates["layer_0"].value, 4)
    ({'layer_0': 'weight'}, 0.5)
    """

    k: int = 20
    tol: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole(1, k=self.k)

    def parts(self, problem: Problem) -> Iterator[Part]:
        """A part for each layer; nothing is computed until it is told to measure.

        A model without linear layers or convolutions, or with too many outputs, has none, and
        ``problem.notes`` say so.
        """
        try:
            checked_problem(problem).loss()
        except NonFiniteError as error:
            yield _not_finite(error)
            return
        try:
            blocks = _blocks(problem)
        except ValueError as error:
            problem.cache.note(f"the structure of layers is not measured: {error}")
            return
        limit = max(100, 20 * self.k)
        for i, layer in enumerate(blocks.layers):
            name, labels = f"layer_{i}", {f"layer_{i}": layer.parameters[0]}
            measure = partial(self._found, blocks, layer, name)
            yield Part(name, f"structure of layer {layer.name}", "layers", labels, limit, measure)

    def _found(self, blocks: LayerBlocks, layer: Layer, name: str) -> Found:
        found = structure_of(blocks, layer, self.k, errors=True, tol=self.tol, seed=self.seed)
        return Found({name: found.eigenpairs.top}, arrays_of(found), facts=_facts(found))


def _blocks(problem: Problem) -> LayerBlocks:
    blocks = LayerBlocks(problem, "hessian")
    with torch.no_grad():
        outputs = problem.outputs(problem.theta, problem.first_batch())[0].numel()
    if outputs > MOST_COLUMNS:
        raise ValueError(
            f"expected at most {MOST_COLUMNS} outputs of an example for the structure of "
            f"layers, each of which takes a backward pass, got {outputs}; "
            "lossgeom.layer_eigenpairs measures layers without Kronecker factors"
        )
    return blocks


def _not_finite(error: NonFiniteError) -> Part:
    def measure() -> Found:
        raise error

    title, labels = "structure of the layers", {"layer_0": "every layer"}
    return Part("layer_0", title, "layers", labels, 0, measure)


def arrays_of(found: LayerStructure) -> dict[str, Tensor]:
    """What is kept of a layer to draw it: spectra, overlap, shares, maps and eigenvectors."""
    pairs, (outputs, inputs) = found.eigenpairs, found.maps
    vectors = pairs.vectors[:, :IMAGES].T.reshape(-1, *found.shape)
    names = ("overlap", "baseline", "rank_one_energy", "mean_input_energy")
    return {
        "values": pairs.values.double(),
        "residuals": pairs.residuals.double(),
        "converged": pairs.converged,
        "decoupled": found.decoupled.values.double(),
        **{name: getattr(found, name) for name in names},
        "output_spectrum": found.spectra[0],
        "input_spectrum": found.spectra[1],
        "output_map": outputs[:, :SHOWN],
        "input_map": inputs[:, :SHOWN],
        "images": _images(vectors.double()),
    }


def _images(X: Float[Tensor, "k m n"]) -> Float[Tensor, "k h w"]:
    """Matrices in at most 64 x 64 cells, each the entry of the largest size in it."""
    size = [min(n, SIDE) for n in X.shape[1:]]
    above, below = (F.adaptive_max_pool2d(Y, size) for Y in (X, -X))
    return torch.where(above >= below, above, -below)


def _facts(found: LayerStructure) -> dict[str, Any]:
    errors, outliers = cast(LayerErrors, found.errors), found.outliers
    return {
        "layer": found.name,
        "shape": list(found.shape),
        "outliers": None if outliers is None else asdict(outliers),
        "input_ratio": found.input_ratio,
        "mean_alignment": found.mean_alignment,
        "errors": {name: asdict(e) for name, e in errors.errors.items()},
        "trace_ratios": dict(errors.trace_ratios),
    }
