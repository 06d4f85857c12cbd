"""Pages and figures from records alone."""

from lossgeom.report.render import render

__all__ = ["render"]
