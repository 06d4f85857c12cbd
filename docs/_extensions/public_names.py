"""Links to what is public by the name that users type, where code says from which file it comes."""

from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

AFTER_NAPOLEON = 600


def public(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, shown: nodes.TextElement
) -> nodes.Node | None:
    """`lossgeom.curvature.hessian.Hessian`, of an annotation, is `lossgeom.Hessian` here."""
    parts = node.get("reftarget", "").split(".")
    if node.get("refdomain") != "py" or parts[0] != "lossgeom":
        return None
    python = env.domains.python_domain
    document = node.get("refdoc", env.docname)
    for length in range(len(parts) - 1, 0, -1):
        name = ".".join([*parts[:length], parts[-1]])
        if name in python.objects:
            return python.resolve_xref(env, document, app.builder, "obj", name, node, shown)
    in_an_annotation = "refwarn" not in node
    return shown if in_an_annotation else None


def escape_stars(
    app: Sphinx, kind: str, name: str, what: Any, options: Any, lines: list[str]
) -> None:
    """`*shape` of an annotation is no emphasis."""
    lines[:] = [line.replace("*", r"\*") if line.startswith(":vartype") else line for line in lines]


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("missing-reference", public)
    app.connect("autodoc-process-docstring", escape_stars, priority=AFTER_NAPOLEON)
    return {"parallel_read_safe": True}
