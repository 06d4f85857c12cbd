from collections.abc import Iterator
from contextlib import contextmanager

import jaxtyping
import pytest
import torch

torch.set_num_threads(1)


@contextmanager
def without_checks() -> Iterator[None]:
    """Without the run-time type checker."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Without the run-time type checker.

    So that the library's own errors for bad types show, and because the checker itself draws from
    Python's generator.
    """
    with without_checks():
        yield
