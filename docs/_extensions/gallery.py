"""The reports of studies that were run for this site: a picture, the result, and the page."""

import json
import shutil
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

MADE = "_build/gallery"
PAGE = """
{title}
{underline}

{source}. {summary}

``{command}``

.. image:: /{folder}/figures/{figure}
   :alt: {title}

.. raw:: html

   <p><a href="../gallery/{name}.html">The report: {shown} of {all} claims as expected</a></p>
"""


class Gallery(SphinxDirective):
    """A section for each study in ``docs/_build/gallery``, where ``make docs`` runs them."""

    def run(self) -> list[nodes.Node]:
        folders = sorted((Path(self.env.srcdir) / MADE).glob("*/report.html"))
        if not folders:
            raise self.error(f"there is no report in docs/{MADE}: make docs runs studies into it")
        return [node for page in folders for node in self.section(page.parent)]

    def section(self, folder: Path) -> list[nodes.Node]:
        told = json.loads((folder / "manifest.json").read_text())
        claims = json.loads((folder / "claims.json").read_text())
        figures = sorted((folder / "figures").glob("*.png"))
        text = PAGE.format(
            title=told["title"],
            underline="-" * len(told["title"]),
            source=told["source"],
            summary=told["summary"],
            command=told["command"],
            folder=f"{MADE}/{folder.name}",
            figure=figures[0].name,
            name=folder.name,
            shown=sum(claim["as_expected"] for claim in claims),
            all=len(claims),
        )
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def copy_reports(app: Sphinx, error: Exception | None) -> None:
    """Reports are whole pages, and stand beside those of the site as they are."""
    (Path(app.outdir) / "gallery").mkdir(exist_ok=True)
    for page in (Path(app.srcdir) / MADE).glob("*/report.html"):
        shutil.copy(page, Path(app.outdir) / "gallery" / f"{page.parent.name}.html")


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("gallery", Gallery)
    app.connect("build-finished", copy_reports)
    return {"parallel_read_safe": True}
