"""What a reader of one sharpness has to open stays short."""

import multiprocessing

import pytest

from tools.count_path import Count, first_sharpness


@pytest.fixture(scope="module")
def found() -> Count:
    """The count of a fresh process: what others have imported opens further paths."""
    with multiprocessing.get_context("spawn").Pool(1) as process:
        return process.apply(first_sharpness)


def test_a_first_sharpness_passes_through_few_files_and_functions(found):
    listing = "\n".join(f"{len(names)} {file}" for file, names in found.functions.items())
    assert found.files <= 29, listing
    assert found.total <= 185, listing


def test_the_count_sees_what_is_called(found):
    assert "Problem.__init__" in " ".join(found.functions["problem/problem.py"])
    assert "sharpness" in found.functions["curvature/sharpness.py"]
    assert 0 < found.depth < 60
    assert found.deep_copies >= 1
    assert found.forward_passes >= 2  # there are two batches
