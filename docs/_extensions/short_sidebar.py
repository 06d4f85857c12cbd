"""A sidebar with groups of names, not with every name: theirs would be most of every page."""

from typing import Any

from sphinx.application import Sphinx

BEFORE_THE_THEME = 400
DEPTH = 2


def shorten(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    whole = context.get("toctree")
    if whole is not None:
        context["toctree"] = lambda **options: whole(**{**options, "maxdepth": DEPTH})


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("html-page-context", shorten, priority=BEFORE_THE_THEME)
    return {"parallel_read_safe": True}
