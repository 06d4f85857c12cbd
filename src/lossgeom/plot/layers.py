"""Layers beside each other, and what one of them is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from lossgeom.curvature import BlockSharpness, LayerStructure, LayerSummand, Mediators
from lossgeom.estimate import Estimate
from lossgeom.metrics.structure import arrays_of
from lossgeom.plot.structure import draw_structure
from lossgeom.plot.style import checked_axes, colours, drawing, literal, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT, LINE = 6.4, 1.1, 0.32  # inches of a figure, of it without layers, and of a layer
MARKERS = ("o", "|", "^", "s", "x")

Layers = (
    LayerStructure
    | Sequence[LayerSummand | LayerStructure]
    | Mapping[str, LayerSummand | LayerStructure | Mediators | BlockSharpness]
)


def layers(found: Layers, *, ax: Axes | None = None) -> Figure:
    r"""Draw what was found of each layer, one below the other, with standard errors or residuals.

    - Of summands of the conjugate Gauss-Newton matrix, or their mediators: the largest eigenvalue
      of :math:`K_l`, its bound :math:`\|C\|^2 \|T_l\|^2 \|D_l\|^2`, and the last two factors, which
      tell a layer that is sharp by what follows it from one that is sharp by its inputs. The first
      is the same for all layers. With all norms squared, distances along the axis multiply.
    - Of :func:`lossgeom.layer_structure`: the largest eigenvalue of each layer's block of the
      Hessian, and of its decoupling.
    - Of :func:`lossgeom.block_sharpness`: the average sharpness of each part.
    - Of a single layer of ``layer_structure``: eight panels with the spectra of both factors, the
      largest eigenvalues of block and decoupling, the overlap of their top eigenspaces beside that
      of random ones, the shares of the block's eigenvectors that are of rank one and along the mean
      input, how each divides among the eigenvectors of both factors, and the first two as matrices.

    What is not positive has no place on the logarithmic axis. Estimates that have not converged are
    hollow.

    Cost: of summands, that of :meth:`lossgeom.LayerSummand.mediators` with its defaults; of
    anything else, nothing is measured.

    Args:
        found: as it was returned, or by the names of layers; or one of ``layer_structure``.
        ax: matplotlib's axes to draw on, which keep their style; a new figure by default. The place
            of axes made by ``subplots`` is divided among the panels of a single layer.

    Returns:
        The figure, with the layers on the y axis, the first at the top.

    Raises:
        ImportError: without matplotlib, which the extra ``plot`` brings.
        ValueError: if there are no layers, or the axes for a single one are not of a grid.
        TypeError: if they are anything else.

    >>> import torch, lossgeom as lg
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    >>> problem = lg.Problem(model, "squared_error", [(torch.randn(5, 2), torch.zeros(5, 2))])
    >>> figure = lg.plot.layers(lg.layer_summands(problem))
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['0', '2']
    """
    if isinstance(found, LayerStructure):
        return _alone(found, ax)
    if isinstance(found, Mapping):
        rows = {name: _numbers(each) for name, each in found.items()}
    else:
        drawn = [_numbers(each) for each in found]  # raises for what is no layer, and has no name
        rows = {each.name: row for each, row in zip(found, drawn, strict=True)}
    if not rows:
        raise ValueError("expected some layers to draw, got none")
    kinds = list(dict.fromkeys(kind for row in rows.values() for kind in row))
    with drawing(ax, WIDTH, HEIGHT + LINE * len(rows)) as axis:
        for kind, marker, colour in zip(kinds, MARKERS, colours(len(kinds) + 1), strict=False):
            _draw(axis, [row.get(kind) for row in rows.values()], kind, marker, colour)
        axis.set(xscale="log", ylim=(len(rows) - 0.5, -0.5), xlabel=_unit(kinds), ylabel="layer")
        axis.set_yticks(range(len(rows)), map(literal, rows))
        axis.grid(axis="y", color="0.9", linewidth=0.8)
        axis.set_axisbelow(True)
    figure: Figure = axis.figure
    return figure


def _alone(layer: LayerStructure, ax: Any) -> Figure:
    """A figure of one layer, or its panels in place of a user's axes."""
    outliers = None if layer.outliers is None else asdict(layer.outliers)
    if ax is None:
        with plain():
            return draw_structure(arrays_of(layer), outliers)
    if checked_axes(ax).get_subplotspec() is None:
        raise ValueError(
            "expected axes of figure.subplots, whose place is divided among the panels of a layer, "
            "got axes without a place in a grid"
        )
    axes = ax.get_subplotspec().subgridspec(2, 4).subplots(squeeze=False)
    ax.remove()
    return draw_structure(arrays_of(layer), outliers, axes)


def _numbers(layer: LayerSummand | LayerStructure | Mediators | BlockSharpness) -> dict[str, Any]:
    """What is drawn of a layer, by what it is."""
    if isinstance(layer, LayerSummand):
        layer = layer.mediators()
    if isinstance(layer, LayerStructure):
        return {"block": layer.eigenpairs.top, "decoupling": layer.decoupled.top}
    if isinstance(layer, BlockSharpness):
        return {"average sharpness": layer.average}
    if not isinstance(layer, Mediators):
        raise TypeError(
            "expected layers of layer_summands, layer_structure or block_sharpness, got a "
            f"{type(layer).__name__}"
        )
    root, tail, own = layer.root, layer.tail_jacobian, layer.layer_jacobian
    return {
        "eigenvalue": layer.eigenvalue,
        "its bound C²T²D²": Estimate((root.value * tail.value * own.value) ** 2),
        "T²: what follows the layer": _squared(tail),
        "D²: the layer itself": _squared(own),
    }


def _squared(norm: Estimate) -> Estimate:
    """The square of a norm, with a residual to first order."""
    return Estimate(norm.value**2, None, 2 * norm.value * (norm.residual or 0.0), norm.converged)


def _unit(kinds: Sequence[str]) -> str:
    """What the axis shows, with its unit; numbers in the unit of each, where it is factors."""
    if len(kinds) > 2:
        return "largest eigenvalue, or squared norm of a factor of it"
    return f"{kinds[0] if len(kinds) == 1 else 'largest eigenvalue'} (loss / θ²)"


def _draw(
    axis: Any, column: Sequence[Estimate | None], label: str, marker: str, colour: Any
) -> None:
    """Draw one quantity of all layers."""
    for y, estimate in enumerate(column):
        if estimate is None or not 0 < estimate.value < np.inf:
            continue
        axis.errorbar(
            estimate.value, y, xerr=estimate.stderr or estimate.residual or 0.0, fmt=marker,
            color=colour, markersize=14 if marker == "|" else 5, elinewidth=1, label=label,
            markerfacecolor=colour if estimate.converged else "none",
        )  # fmt: skip
        label = f"_{label}"  # is named once
