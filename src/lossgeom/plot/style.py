"""How figures look: nothing of matplotlib's own settings is changed, and pyplot is not imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from torch import Tensor

from lossgeom.messages.extras import required
from lossgeom.messages.wording import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "font.family": "sans-serif",
    "font.size": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 3,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "lossgeom",
}
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)))
MARKERS = ("o", "s", "^", "D", "v")
SHORT_DASHES = (0, (2, 2))
THRESHOLD: dict[str, Any] = {"color": "black", "linestyle": SHORT_DASHES, "linewidth": 1}
PAPER = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.5}
BEHIND: dict[str, Any] = {"zorder": 1.5, "bbox": PAPER}  # curves, and before the lines
LEGEND, LINE = 16, 0.18  # characters of a legend to an inch, and inches of a line of it

Numbers = Tensor | np.ndarray | Sequence[Any]
T = TypeVar("T")


def plain() -> AbstractContextManager[None]:
    """Draw in a style of our own, whatever the user's is, which is the same again afterwards."""
    context: AbstractContextManager[None] = required("matplotlib.style").context(["default", STYLE])
    return context


@contextmanager
def drawing(ax: Any, width: float, height: float, title: str = "") -> Iterator[Any]:
    """Give axes to draw on, and name what has a label in the end, where it is more than one thing.

    Args:
        ax: a user's, which keep their own style; None for a figure of our own, with the legend
            above.
        width: of a figure of our own, in inches.
        height: of the same.
        title: of the legend.
    """
    if ax is not None:
        yield checked_axes(ax)
        handles, labels = ax.get_legend_handles_labels()
        if len(labels) > 1:
            ax.legend(handles, labels, title=title)
        return
    with plain():
        figure, axes = panels(width, height)
        yield axes[0, 0]
        if len(axes[0, 0].get_legend_handles_labels()[1]) > 1:
            legend(figure, axes, title)


def checked_axes(ax: Any) -> Any:
    """Return axes that can be drawn on, or raise a TypeError for anything else."""
    if not isinstance(ax, required("matplotlib.axes").Axes) or ax.name == "3d":
        raise TypeError(
            f"expected axes of matplotlib in a plane, as of figure.subplots(), for ax, got {ax!r}"
        )
    return ax


def panels(
    width: float, height: float, *, rows: int = 1, columns: int = 1, **sharing: Any
) -> tuple[Figure, np.ndarray]:
    """Make a figure of a width and a height in inches, with axes (rows, columns)."""
    required("matplotlib")
    from lossgeom.plot._shown import Shown

    figure = Shown(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **sharing)
    for axis in axes.flat:
        axis.tick_params(labelsize=STYLE["font.size"])  # of ticks that are made when it is drawn
    return figure, axes


def legend(figure: Any, axes: np.ndarray, title: str) -> None:
    """Name each colour once above a figure, whichever panels it is in."""
    found: dict[str, Any] = {}
    for axis in axes.flat:
        for handle, text in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(text, handle)
    room = int(LEGEND * figure.get_figwidth())
    columns = max(1, min(6, len(found), room // (5 + max(map(len, found), default=0))))
    place = {"title": title, "loc": "outside upper center"}
    made = figure.legend(found.values(), found, ncols=columns, **place)
    while columns > 1 and made.get_window_extent().width > figure.bbox.width:
        made.remove()
        columns -= 1
        made = figure.legend(found.values(), found, ncols=columns, **place)
    figure.set_figheight(figure.get_figheight() + LINE * (-(-len(found) // columns) - 1))


def label(axis: Any, drawing: Any) -> None:
    """Write the title and the labels of a drawing around its panel."""
    axis.set_title(words(drawing.title))
    axis.set_xlabel(words(drawing.x_label))
    axis.set_ylabel(words(drawing.y_label))


def colours(n: int) -> list[Any]:
    """Colours of increasing lightness, distinct in grey and for colour-blind readers."""
    viridis = required("matplotlib").colormaps["viridis"]
    return [viridis(0.85 * i / max(n - 1, 1)) for i in range(n)]


def looks(n: int) -> list[tuple[Any, Any, str]]:
    """A colour, dashes and a marker for each of some things."""
    shades = colours(max(n, 3))  # of two, the lighter one is not too light for points
    return [(shades[i], DASHES[i % len(DASHES)], MARKERS[i % len(MARKERS)]) for i in range(n)]


def named(things: T | Mapping[str, T]) -> dict[str, T]:
    """Things by name; a single one without."""
    return dict(things) if isinstance(things, Mapping) else {"": things}


def numbers(values: Numbers) -> np.ndarray:
    """Numbers as matplotlib takes them, from any device and of any real type."""
    if values.is_complex() if isinstance(values, Tensor) else np.iscomplexobj(values):
        raise ValueError("expected real numbers to draw, got complex ones; take .real or .abs()")
    found = values.detach().cpu().double() if isinstance(values, Tensor) else values
    return np.asarray(found, dtype=float)


def words(key: object) -> str:
    """Write a key as people read it, with nothing left that matplotlib would typeset."""
    return literal({"lr": "learning rate"}.get(str(key), str(key).replace("_", " ")))


def literal(text: str) -> str:
    """Escape what matplotlib would typeset or could not write."""
    return printable(text, keep="\n").replace("$", r"\$")


def level(value: object) -> str:
    """Write the value of a setting as a legend shows it."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def threshold(formula: str, value: float) -> str:
    """Name a threshold and its value.

    >>> threshold("2/lr", 2.857142)
    '2/lr = 2.86'
    """
    return f"{formula} = {value:.3g}"
