"""The norms of the Jacobians of examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lossgeom.plot.style import drawing, literal, looks, named, numbers
from lossgeom.smoothness import JacobianNorms

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (6.4, 3.2)  # inches
LABEL = "norm of the Jacobian (output / input, or / parameter)"


def jacobians(
    norms: JacobianNorms | Mapping[str, JacobianNorms], *, ax: Axes | None = None
) -> Figure:
    """Draw how the norms of Jacobians are distributed over examples, and which one is the largest.

    The curve is the share of all examples whose norm is at most as large, so that its middle is the
    median. Bars are standard errors. Hollow points have not converged; norms that are NaN or
    infinite are counted in the legend, and the curve ends below 1.

    Args:
        norms: of :func:`lossgeom.jacobian_norms` or :func:`lossgeom.parameter_jacobian_norms`; or
            several by name, such as those of training and of test data.
        ax: matplotlib's axes to draw on, which keep their style; a new figure by default.

    Returns:
        The figure, with norms on the x axis, in units of outputs by those of inputs or parameters.

    Raises:
        ImportError: without matplotlib, which the extra ``plot`` brings.

    >>> import torch, lossgeom as lg
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    >>> problem = lg.Problem(model, "squared_error", [(torch.randn(5, 2), torch.zeros(5, 1))])
    >>> figure = lg.plot.jacobians(lg.jacobian_norms(problem))
    >>> [round(float(y), 1) for y in figure.axes[0].lines[0].get_ydata()]
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    found = named(norms)
    with drawing(ax, *SIZE) as axis:
        for (name, each), look in zip(found.items(), looks(len(found)), strict=True):
            _draw(axis, each, literal(name), *look)
        axis.set_ylim(0, 1.02)
        axis.set_xlabel(LABEL)
        axis.set_ylabel("share of the examples")
    figure: Figure = axis.figure
    return figure


def _draw(
    axis: Any, norms: JacobianNorms, name: str, colour: Any, dashes: Any, marker: str
) -> None:
    values = numbers(norms.values)
    order = np.argsort(values)[: int(np.isfinite(values).sum())]  # NaN and infinity come last
    x, share = values[order], np.arange(1, len(order) + 1) / len(values)
    lost = len(values) - len(order)
    label = f"{name}{', ' * bool(name)}{lost} not finite" if lost else name
    axis.plot(
        np.append(x[:1], x), np.append(0 * share[:1], share), drawstyle="steps-post",
        color=colour, linestyle=dashes, label=label or None,
    )  # fmt: skip
    errors = numbers(norms.values * 0 if norms.stderr is None else norms.stderr)[order]
    seen = np.isfinite(errors) & (errors > 0)
    axis.errorbar(x[seen], share[seen], xerr=errors[seen], fmt="none", ecolor=colour,
                  elinewidth=0.8, alpha=0.5)  # fmt: skip
    doubtful = ~(numbers(norms.converged)[order] > 0)
    axis.plot(x[doubtful], share[doubtful], marker, color=colour, markerfacecolor="none",
              markersize=5)  # fmt: skip
    if len(x):
        axis.plot(x[-1], share[-1], marker, color=colour, markersize=5, clip_on=False)
        axis.annotate(f"{x[-1]:.3g}, example {norms.argmax if not lost else order[-1]}",
                      (x[-1], share[-1]), (0, 5), textcoords="offset points", ha="right",
                      va="bottom", color=colour)  # fmt: skip
