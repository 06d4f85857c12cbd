"""Matplotlib figures as inline SVG, and as files."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lossgeom.extras import required
from lossgeom.recording.crash_safety import write_atomically
from lossgeom.wording import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARK = "Made by lossgeom"  # in all files of a report; no others are replaced
FILES: dict[str, Any] = {  # besides the picture in the page, with what is said in them
    "pdf": {"CreationDate": None, "Creator": MARK},
    "png": {"Software": MARK},
}
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
SHORT_DASHES = (0, (2, 2))
THRESHOLD: dict[str, Any] = {"color": "black", "linestyle": SHORT_DASHES, "linewidth": 1}


def panels(
    width: float, height: float, *, rows: int = 1, columns: int = 1, **sharing: Any
) -> tuple[Figure, np.ndarray]:
    """Make a figure of a width and a height in inches, with axes (rows, columns)."""
    figure = required("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **sharing)


def label(axis: Any, drawing: Any) -> None:
    """Write the title and the labels of a drawing around its panel."""
    axis.set_title(words(drawing.title))
    axis.set_xlabel(words(drawing.x_label))
    axis.set_ylabel(words(drawing.y_label))


def colours(n: int) -> list[Any]:
    """Colours of increasing lightness, distinct in grey and for colour-blind readers."""
    viridis = required("matplotlib").colormaps["viridis"]
    return [viridis(0.85 * i / max(n - 1, 1)) for i in range(n)]


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


def save(figure: Figure, folder: Path, name: str) -> str:
    """Write the figure as PDF and PNG, and return it as SVG to put into a page."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {kind: folder / f"{name}.{kind}" for kind in FILES}
    for path in paths.values():
        check_ours(path)
    for kind, path in paths.items():
        write_atomically(path, as_file(figure, kind))
    text = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(text, format="svg", metadata=nothing)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]  # without the XML header and the reference to a DTD
    width = f"{figure.get_figwidth():g}in"  # in which its text has the size of a page's small print
    svg = svg.replace("<svg", f'<svg style="--natural: {width}"', 1)
    return re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)


def as_file(figure: Figure, kind: str) -> bytes:
    """Draw a figure as PDF or PNG."""
    content = io.BytesIO()
    figure.savefig(content, format=kind, dpi=200, metadata=FILES[kind])
    return content.getvalue()


def check_ours(path: Path) -> None:
    """Raise if a file that would be replaced is not a report or a figure of one."""
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_file() or MARK.encode() not in path.read_bytes():
        raise ValueError(
            f"{path} is no file that lossgeom wrote, and only those are replaced; choose another "
            "file, or move that one away"
        )
