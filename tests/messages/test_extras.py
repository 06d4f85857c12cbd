"""What is imported where it is used comes with the extra that the error names."""

import ast
import re
import sys
from pathlib import Path

import pytest

import lossgeom
from lossgeom.messages.extras import EXTRAS, LAB, required

pytestmark = pytest.mark.quick
ROOT = Path(__file__).parent.parent.parent
NAMED = {
    "PIL": "pillow",
    "pytorch_lightning": "lightning",  # its older name
    "skdim": "scikit-dimension",
    "sklearn": "scikit-learn",
}


@pytest.fixture(scope="module")
def extras():
    """The libraries that each extra brings."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def brought(extra):
        for each in told["optional-dependencies"][extra]:
            name, others = re.match(r"([\w-]+)(?:\[(.*)\])?", each).groups()
            yield from (
                [name] if name != "lossgeom" else (x for o in others.split(",") for x in brought(o))
            )

    return {extra: set(brought(extra)) for extra in told["optional-dependencies"]}


def test_the_extra_that_is_named_is_the_smallest_that_brings_it(extras):
    for module, extra in EXTRAS.items():
        name = NAMED.get(module, module)
        fitting = {each: len(of) for each, of in extras.items() if name in of}
        assert fitting[extra] == min(fitting.values()), module
    assert {NAMED.get(module, module) for module in LAB} == extras["lab"]
    assert "all" not in extras


def test_every_library_that_is_required_is_in_the_table():
    asked = {
        node.args[0].value
        for path in Path(lossgeom.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "required"
        and isinstance(node.args[0], ast.Constant)
    }  # fmt: skip
    assert {"matplotlib", "pandas", "scipy.stats"} <= asked
    assert {name.partition(".")[0] for name in asked} <= set(EXTRAS)


def test_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    message = (
        r"scipy.stats is needed here and comes with the extra 'numerics': "
        r"pip install 'lossgeom\[numerics\]'"
    )
    with pytest.raises(ImportError, match=message):
        required("scipy.stats")
