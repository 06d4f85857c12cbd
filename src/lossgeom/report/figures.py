"""Matplotlib figures as inline SVG, and as files."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lossgeom.recording.crash_safety import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARK = "Made by lossgeom"  # in all files of a report; no others are replaced
FILES: dict[str, Any] = {  # besides the picture in the page, with what is said in them
    "pdf": {"CreationDate": None, "Creator": MARK},
    "png": {"Software": MARK},
}


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
