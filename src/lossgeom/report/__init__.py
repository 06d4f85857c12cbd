"""Pages and figures from records alone."""

from lossgeom.report.render import render
from lossgeom.report.summary import summary
from lossgeom.report.text import as_text
