"""A layer imports only from the layers before it, and files stay short."""

import ast
import functools
import graphlib
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

import lossgeom
from tools.draw_architecture import FLOORS

pytestmark = pytest.mark.quick
ROOT = Path(lossgeom.__file__).parent
LAYERS = [
    {"messages"},
    {"estimate", "batches", "distributed"},
    {"linalg", "losses"},
    {"problem"},
    {"checkpoints", "autodiff"},
    {"trust"},
    {"curvature", "smoothness"},
    {"lipschitz", "quadratic"},
    {"adversarial", "stability"},
    {"bounds"},
    {"metrics"},
    {"recording"},
    {"mirrors", "plot"},
    {"integrations"},
    {"_public"},
    {"lab"},
    {"report"},
    {"cli"},
    {"__main__"},
]
ORDER = {name: i for i, layer in enumerate(LAYERS) for name in layer}
REPORT_MAY_IMPORT = {"estimate", "messages", "plot", "recording", "report"}
LONGEST = 300  # lines of a file
LISTED_FOLDERS = [
    "curvature", "quadratic", "metrics", "lab/datasets", "lab/generators", "lab/models",
    "lab/regularizers", "lab/training", "lab/studies", "report/sections",
]  # fmt: skip


@functools.cache
def modules():
    return [p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py"]


def layer_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@functools.cache
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text())))


def imports(path: Path) -> set[str]:
    """The parts of lossgeom that a file imports."""
    found = set()
    for node in nodes(path):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lossgeom"):
            parts = (node.module or "").split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("lossgeom.")}
    return found


def of_every_file(faults: Callable[[Path], Iterable[str]]) -> str:
    """What is wrong with the files, one below the other."""
    return "\n".join(
        f"{path.relative_to(ROOT)}: {fault}" for path in modules() for fault in faults(path)
    )


def test_no_arrow_points_up():
    assert {layer_of(path) for path in modules()} <= set(ORDER), "not in the list of layers"
    assert not of_every_file(arrows_pointing_up)


def arrows_pointing_up(path: Path) -> Iterator[str]:
    own = layer_of(path)
    for name in imports(path) - {own}:
        if ORDER[name] >= ORDER[own] or (own == "report" and name not in REPORT_MAY_IMPORT):
            yield f"imports {name}"


def test_an_arrow_pointing_up_would_be_seen(tmp_path):
    file = tmp_path / "x.py"
    file.write_text("from lossgeom.lab import runner\nimport lossgeom.cli\n")
    assert imports(file) == {"lab", "cli"}


@pytest.mark.parametrize("folder", LISTED_FOLDERS)
def test_every_member_is_in_its_folders_list(folder):
    listed = imports_of_init(ROOT / folder / "__init__.py")
    files = {p.stem for p in (ROOT / folder).glob("*.py")}
    folders = {p.parent.name for p in (ROOT / folder).glob("*/__init__.py")}
    assert {name for name in files | folders if not name.startswith("_")} <= listed


def imports_of_init(path: Path) -> set[str]:
    names = set()
    for node in nodes(path):
        if isinstance(node, ast.ImportFrom):
            names |= {(node.module or "").split(".")[-1], *(alias.name for alias in node.names)}
    return names


@functools.cache
def names_of_modules() -> set[str]:
    names = {".".join(p.relative_to(ROOT).with_suffix("").parts) for p in modules()}
    return names | {name.removesuffix(".__init__") for name in names}


def modules_imported_by(path: Path) -> set[str]:
    """The files of lossgeom that a file imports, with their packages' names, dotted."""
    found = set()
    for node in nodes(path):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lossgeom."):
            module = node.module.removeprefix("lossgeom.")
            for alias in node.names:  # a file of a package, or a name in a file or package
                file = f"{module}.{alias.name}"
                found.add(file if file in names_of_modules() else module)
    return found & names_of_modules()


def test_no_room_reaches_into_the_underscored_files_of_another():
    def faults(path: Path) -> Iterator[str]:
        for module in modules_imported_by(path):
            room, *rest = module.split(".")
            if room != layer_of(path) and any(part.startswith("_") for part in rest):
                yield f"imports {module}"

    assert not of_every_file(faults)


def test_the_imports_have_no_circle():
    """Those for type checkers count, too."""
    graph = {}
    for path in modules():
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        graph[name] = modules_imported_by(path) - {name}
    order = graphlib.TopologicalSorter(graph)
    order.prepare()  # raises where there is one


def test_the_rooms_can_be_counted_on_one_page():
    subjects = {layer_of(path) for path in modules()} - {"__main__", "_public"}
    assert len(subjects) <= 25


def test_no_file_is_too_long_to_be_read():
    lengths = {path: len(path.read_text().splitlines()) for path in modules()}
    assert not {path.relative_to(ROOT): n for path, n in lengths.items() if n > LONGEST}


def test_docstrings_begin_with_a_summary():
    def faults(path: Path) -> Iterator[str]:
        tree, *_ = nodes(path)
        if tree.body and not ast.get_docstring(tree):
            yield "it does not say what is in it"
        for node in nodes(path):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                summary = (ast.get_docstring(node) or "Without one.").partition("\n\n")[0]
                if len(summary) < 2 or not summary.endswith("."):
                    yield f"no summary in {getattr(node, 'name', 'the file')}: {summary}"

    assert not of_every_file(faults)


HOOKS = {
    "register_forward_hook": "autodiff/hooks.py",
    "register_forward_pre_hook": "autodiff/hooks.py",
    "register_step_pre_hook": "recording/optimizer_hooks.py",
    "register_step_post_hook": "recording/optimizer_hooks.py",
}


def test_hooks_of_a_kind_are_registered_in_one_place():
    found = {
        (node.attr, path.relative_to(ROOT).as_posix())
        for path in modules()
        for node in nodes(path)
        if isinstance(node, ast.Attribute) and re.fullmatch(r"register_\w*hook", node.attr)
    }
    assert found == set(HOOKS.items())


def test_every_room_is_in_the_picture():
    names = [name for floor in FLOORS for room in floor for name in room.split(", ")]
    rooms = [name for layer in LAYERS for name in layer if not name.startswith("_")]
    assert sorted(names) == sorted(rooms)
    order = [[name for room in floor for name in room.split(", ")] for floor in FLOORS]
    assert [set(floor) for floor in order] == [layer for layer in LAYERS if layer <= set(names)]


@pytest.mark.parametrize("room", sorted(name for name in ORDER if (ROOT / name).is_dir()))
def test_every_room_has_a_quick_test(room):
    """So that `make check` says something of each."""
    files = (Path(__file__).parent / room).glob("test_*.py")
    assert any("pytest.mark.quick" in path.read_text() for path in files)


def test_tests_stand_in_the_room_that_they_are_about():
    here = Path(__file__).parent
    folders = {path.parent.name for path in here.glob("*/test_*.py")}
    rooms = {name for name in ORDER if (ROOT / name).is_dir()}
    assert folders == rooms | {"contracts", "real_models"}
    about = {path.stem.removeprefix("test_") for path in here.glob("test_*.py")}
    assert about <= {
        *ORDER,
        "benchmarks",
        "distribution",
        "layers",
        "path",
        "public_face",
        "readme",
        "site",
    }
