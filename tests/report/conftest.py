"""Figures of most tests are drawn for the page alone."""

import pytest


@pytest.fixture
def whole_files() -> None:
    """Draws the files beside a page, too, for a test of what is in them."""


@pytest.fixture(autouse=True)
def unless_files_are_tested(request: pytest.FixtureRequest) -> None:
    if "whole_files" not in request.fixturenames:
        request.getfixturevalue("pages_alone")
