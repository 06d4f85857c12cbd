"""What holds for every test: one thread, the same random numbers in any order, marked doctests."""

import gc
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import jaxtyping
import numpy as np
import pytest
import torch

from tests.ranks import Pair

torch.set_num_threads(1)  # a worker to a core, and so the processes that tests start:
os.environ["OMP_NUM_THREADS"] = "1"  # two threads that wait for one core take three times as long


def seed_generators() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.default_generator.manual_seed(0)  # not torch.manual_seed, which notes where it is called


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """A file's parameters are the same whichever files were read before it."""
    seed_generators()
    return (yield)


@pytest.fixture(autouse=True)
def the_same_numbers_in_any_order() -> None:
    """A test draws the same numbers whichever tests ran before it in its worker."""
    seed_generators()


def pytest_collection_finish() -> None:
    """Leave what there is now, millions of objects, out of all searches for garbage."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.DoctestItem):
            item.add_marker("doctest")
    items.sort(key=lambda item: item.path.suffix != ".md")  # pages take long, and so come first


@pytest.fixture(autouse=True)
def in_no_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a process of git for every record."""
    monkeypatch.setattr("lossgeom.recording.environment._git_commit", lambda: None)


@pytest.fixture(scope="session", autouse=True)
def without_waiting_for_the_disk() -> Iterator[None]:
    """Without what only a power cut would show, which takes half of the time of many records."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture
def pages_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws figures for pages alone: the files beside them, which take twice as long, are empty."""
    monkeypatch.setattr("lossgeom.report.figures.as_file", lambda figure, kind: b"Made by lossgeom")


@contextmanager
def without_checks() -> Iterator[None]:
    """Without the run-time type checker."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Without the run-time type checker, where that is switched on.

    So that the library's own errors for bad types show, and because the checker itself draws from
    Python's generator.
    """
    with without_checks():
        yield


@pytest.fixture(scope="session")
def on_two() -> Iterator[Pair]:
    """Calls functions of test modules on two processes that share their data."""
    pair = Pair()
    yield pair
    pair.close()
