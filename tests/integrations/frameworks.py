"""The frameworks, which take seconds to import, for the tests that train with them alone."""

import doctest
import functools
import importlib
import importlib.metadata
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest

from lossgeom.stability.verdict_text import Kind


@functools.cache
def framework(name: str) -> ModuleType:
    """A framework, or a skipped test where it is not installed.

    It imports torchvision wherever that is installed, also where it was built for another torch and
    cannot be imported, as beside a torch for the CPU alone. So it is told that it is not there.
    """
    known = importlib.metadata.version

    def version(package: str) -> str:
        if package == "torchvision":
            raise importlib.metadata.PackageNotFoundError(package)
        return known(package)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torchvision", None)
        patch.setattr(importlib.metadata, "version", version)
        found: ModuleType = pytest.importorskip(name, reason=f"{name} is not installed")
        return found


def assert_examples_run(module: ModuleType) -> None:
    """Those of a module that imports a framework, so that no collection of tests has to."""
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    found = doctest.testmod(module, optionflags=flags)
    assert found.attempted
    assert not found.failed


def assert_page_runs(title: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The part of the how-to page under this title, which ends with a verdict."""
    page = Path(__file__).parent.parent.parent / "docs/how-to/in-your-framework.md"
    (part,) = re.findall(rf"^## {title}\n(.*?)^## ", page.read_text(), re.DOTALL | re.MULTILINE)
    blocks = re.findall(r"```python\n(.*?)```", part, re.DOTALL)
    assert len(blocks) == 2
    exec("\n".join(blocks), {"__name__": title})
    *_, last = capsys.readouterr().out.splitlines()
    assert last.partition(":")[0].partition(" since")[0] in get_args(Kind)
