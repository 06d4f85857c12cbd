"""A figure that shows itself in a notebook without pyplot."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.figure import Figure

DOTS = 200  # an inch


class Shown(Figure):
    """A figure with a picture of itself for notebooks."""

    def _repr_png_(self) -> tuple[bytes, dict[str, Any]]:
        content = io.BytesIO()
        self.savefig(content, format="png", dpi=DOTS)
        width, height = (100 * inches for inches in self.get_size_inches())
        return content.getvalue(), {"width": round(width), "height": round(height)}
