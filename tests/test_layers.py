"""A layer imports only from the layers before it."""

import ast
from pathlib import Path

import pytest

import lossgeom

ROOT = Path(lossgeom.__file__).parent
LAYERS = [
    {"choices", "estimate", "claim", "extras", "factories", "printable", "reprs"},
    {"linalg", "tape", "written"},
    {"undoing", "checkpoint_files", "checkpoint_names"},
    {"measuring", "private_copy", "batches", "double", "likelihoods"},
    {"network", "cross_entropy", "calling", "checkpoints", "passes"},
    {"losses", "probing", "repeatable"},
    {"evaluation", "examples"},
    {"sum_and_count"},
    {"first_look"},
    {"problem"},
    {"lines"},
    {"derivatives"},
    {"modules_alone"},
    {"diagnosis"},
    {"curvature"},
    {"smoothness"},
    {"stability", "geometry", "quadratic"},
    {"metrics"},
    {"files", "environment"},
    {"record_format"},
    {"record", "schedule"},
    {"tracker", "measurement"},
    {"_public"},
    {"lab"},
    {"report"},
    {"cli"},
    {"__main__"},
]
ORDER = {name: i for i, layer in enumerate(LAYERS) for name in layer}
REPORT_MAY_IMPORT = {
    "estimate",
    "extras",
    "files",
    "printable",
    "record",
    "record_format",
    "report",
}
LISTED_FOLDERS = [
    "curvature", "quadratic", "metrics", "lab/datasets", "lab/models", "lab/training",
    "lab/studies", "report/sections",
]  # fmt: skip


def modules():
    return [p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py"]


def layer_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """The parts of lossgeom that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lossgeom"):
            parts = (node.module or "").split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("lossgeom.")}
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_arrow_points_up(path):
    own = layer_of(path)
    assert own in ORDER, f"{own} is not in the list of layers"
    for name in imports(path) - {own}:
        assert ORDER[name] < ORDER[own], f"{own} imports {name}"
    if own == "report":
        assert imports(path) <= REPORT_MAY_IMPORT


def test_an_arrow_pointing_up_would_be_seen(tmp_path):
    file = tmp_path / "x.py"
    file.write_text("from lossgeom.lab import runner\nimport lossgeom.cli\n")
    assert imports(file) == {"lab", "cli"}


@pytest.mark.parametrize("folder", LISTED_FOLDERS)
def test_every_member_is_in_its_folders_list(folder):
    listed = imports_of_init(ROOT / folder / "__init__.py")
    members = {p.stem for p in (ROOT / folder).glob("*.py") if not p.stem.startswith("_")}
    assert members <= listed


def imports_of_init(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names |= {(node.module or "").split(".")[-1], *(alias.name for alias in node.names)}
    return names
