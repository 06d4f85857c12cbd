"""How much is held at a time."""

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.autodiff.linearized import Linearized
from lossgeom.smoothness import _pieces
from lossgeom.smoothness._input_function import InputFunction
from lossgeom.smoothness._parameter_function import ParameterFunction
from lossgeom.smoothness._pieces import pieces
from lossgeom.smoothness.search import Search
from tests.problems import CASES

BY_NAME = {case.name: case for case in CASES}


def values(found: lg.SobolevSeminorms) -> list[float]:
    return [*found.elementwise.values(), *found.euclidean.values()]


@pytest.mark.parametrize("of", ["input", "parameters"])
@pytest.mark.parametrize("memory_budget", [1, 1500, 5000])
def test_memory_budget_changes_nothing(of, memory_budget):
    for case in (BY_NAME["ragged"], BY_NAME["conv"], BY_NAME["lstm"]):
        found = lg.sobolev_seminorms(case.problem(), of, memory_budget=memory_budget)
        whole = lg.sobolev_seminorms(case.problem(), of)
        assert values(found) == pytest.approx(values(whole), rel=1e-12)


@pytest.fixture
def blocks(monkeypatch):
    """The gradients that are computed together."""
    found = []

    def recorded(compute):
        def record(*args):
            found.append(compute(*args))
            return found[-1]

        return record

    for owner, name in ((Linearized, "rows"), (ParameterFunction, "together")):
        monkeypatch.setattr(owner, name, recorded(getattr(owner, name)))
    return found


@pytest.mark.parametrize("of", ["input", "parameters"])
def test_memory_budget_is_kept(of, blocks):
    case = BY_NAME["conv"]
    for budget in (10_000, 40_000):
        blocks.clear()
        lg.sobolev_seminorms(case.problem(), of, memory_budget=budget)
        sizes = [block.nbytes for block in blocks]
        assert budget / 100 < max(sizes) <= budget  # graphs take most of it


def test_graphs_count_in_the_memory_budget(blocks):
    """Not only gradients, which for an input may be much smaller."""
    body = [layer for _ in range(8) for layer in (nn.Conv2d(4, 4, 3, padding=1), nn.Tanh())]
    model = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    data = [(torch.randn(60, 4, 8, 8), torch.zeros(60, 4))]
    problem = lg.Problem(model, "squared_error", data)
    expected = values(lg.sobolev_seminorms(problem))
    blocks.clear()
    found = lg.sobolev_seminorms(problem, memory_budget=2**18)
    assert values(found) == pytest.approx(expected)
    least = 8 * 4 * 8 * 8 * 4  # of an example, in the tanhs alone
    assert 1 < max(len(block) for block in blocks) <= 2**18 / least


def sizes_of_pieces(problem, **settings):
    """How many examples are worked on at a time."""
    sizes = []

    class Recorded(InputFunction):
        def at(self, batch):
            sizes.append(len(batch))
            return super().at(batch)

    function = Recorded(problem, "logits", None, None)
    batch = problem.first_batch()
    for point, _ in pieces(problem, function.at, batch, Search(**settings)):
        assert len(point) <= sizes[1]
    return max(sizes[1:])


def test_what_is_held_decides_how_many_examples_are_worked_on(monkeypatch):
    """Rows, Gram matrices and bases count; parameters that are held fixed do not."""
    monkeypatch.setattr(_pieces, "PIECE_BYTES", 2**16)
    problem = lg.Problem(
        nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)),
        "squared_error",
        [(torch.zeros(500, 64), torch.zeros(500, 64))],
    )
    few = sizes_of_pieces(problem, method="lanczos", max_steps=64)
    assert few * 2 * 64 * 64 * 4 <= 2**16
    assert sizes_of_pieces(problem, method="lanczos", max_steps=1) > 10 * few
    assert sizes_of_pieces(problem, method="exact") * 5 * 64 * 64 * 4 <= 2**17
    frobenius = sizes_of_pieces(problem, norm="frobenius", method="hutchinson")
    assert frobenius > 10 * few
    held = problem.with_parameters("1.bias")
    assert sizes_of_pieces(held, norm="frobenius", method="hutchinson") == frobenius
