"""Every public name has a page of the documentation site."""

import importlib
import re
from pathlib import Path

import pytest

import lossgeom as lg
from lossgeom.lab.studies import STUDIES

REFERENCE = Path(__file__).parent.parent / "docs/reference"
ROOMS = [
    "lossgeom",
    "lossgeom.bounds",
    "lossgeom.metrics",
    "lossgeom.mirrors",
    "lossgeom.plot",
    "lossgeom.quadratic",
]
LISTS = {
    "lossgeom.lab.datasets": "DATASETS",
    "lossgeom.lab.generators": "GENERATORS",
    "lossgeom.lab.models": "MODELS",
    "lossgeom.lab.regularizers": "REGULARIZERS",
    "lossgeom.lab.training": "TRAINING",
    "lossgeom.lab.training.schedules": "SCHEDULES",
    "lossgeom.lab.training.stop_rules": "STOP_RULES",
}

pytestmark = pytest.mark.quick


def listed():
    """What the pages list: each object by the name that it has there."""
    module = ""
    for page in sorted({*REFERENCE.glob("*.rst")} - {REFERENCE / "integrations.rst"}):  # seconds
        for room, names in re.findall(
            r"\.\. (?:currentmodule|module):: (\S+)|:toctree: names\n\n((?:   \w+\n)+)",
            page.read_text(),
        ):
            module = room or module
            for name in names.split():
                yield f"{module}.{name}", getattr(importlib.import_module(module), name)


def public():
    for room in ROOMS:
        module = importlib.import_module(room)
        names = lg.__all__ if module is lg else module.__all__
        for name in names:
            yield f"{room}.{name}", getattr(module, name)
    for room, its_list in LISTS.items():
        for name, member in getattr(importlib.import_module(room), its_list).items():
            yield f"{room}.{name}", member


def is_module(member):
    return type(member).__name__ == "module"


def test_every_public_name_has_a_page():
    pages = [id(member) for _, member in listed()]
    missing = [n for n, member in public() if not is_module(member) and id(member) not in pages]
    assert missing == [], "list them in docs/reference"


def test_nothing_is_listed_twice():
    shown = {}
    for name, member in listed():
        assert id(member) not in shown, f"{name} is {shown[id(member)]}"
        shown[id(member)] = name


def test_every_page_is_in_the_index():
    index = (REFERENCE / "index.rst").read_text()
    for page in REFERENCE.glob("*.rst"):
        assert page.stem == "index" or f"\n   {page.stem}\n" in index


def test_the_verdicts_of_every_study_are_on_its_page():
    page = (REFERENCE.parent / "studies/verdicts.md").read_text()
    assert re.findall(r"^## (\w+)$", page, flags=re.MULTILINE) == list(STUDIES)
    assert f"[{len(STUDIES)} studies" in (REFERENCE.parent / "index.md").read_text()


def test_every_page_is_in_the_sidebar():
    docs = REFERENCE.parent
    index = (docs / "index.md").read_text()
    for room in ("tutorials", "how-to", "explanation", "studies"):
        for page in (docs / room).iterdir():
            assert index.count(f"\n{room}/{page.stem}\n") == 1, page.name
