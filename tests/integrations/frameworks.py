"""The frameworks, which take seconds to import, for the tests that train with them alone."""

import doctest
import functools
import importlib
import importlib.metadata
import sys
from types import ModuleType

import pytest


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
