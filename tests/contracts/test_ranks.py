"""What two processes that share the data find is what one process with all of it finds."""

import pytest
import torch
from torch import nn

import lossgeom as lg
from tests.contracts.test_matrices import KINDS, NAMES, block, close, defined, make
from tests.problems import CASES, Case

SPLIT = (33, 8, 9)


def problem(ranks=None, **options) -> lg.Problem:
    """Of 50 examples: 33 on rank 0, or all on one process."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    x, y = torch.randn(50, 5).double(), torch.randint(3, (50,))
    batches = list(zip(x.split(SPLIT), y.split(SPLIT), strict=True))
    if ranks is None:
        return lg.Problem(model, "cross_entropy", batches, **options)
    mine = batches[:1] if ranks.rank == 0 else batches[1:]
    return lg.Problem(model, "cross_entropy", mine, ranks=ranks, **options)


def sharpness(alone=False):
    found = lg.sharpness(problem(None if alone else lg.ranks()))
    return found.value, found.matvecs


def test_sharpness_is_that_of_one_process_by_as_many_products(on_two):
    expected, matvecs = sharpness(alone=True)
    for value, spent in on_two(sharpness):
        assert value == pytest.approx(expected, rel=1e-12)
        assert spent == matvecs


# Every matrix, on cases that between them have what may go wrong

SHARED = [name for name in NAMES if {KINDS[name].rows, KINDS[name].columns} == {"parameters"}]
TWO = [case for case in CASES if len(case.data) > 1]
SEEN = [case for case in TWO if case.name in ("ragged", "language_model", "own_form", "conv")]


def shared(case: Case) -> lg.Problem:
    """With the first batch on rank 0, and the others on rank 1."""
    return case.problem([case.data[:1], case.data[1:]][lg.ranks().rank], ranks=lg.ranks())


def products(case_name: str, names: list[str], alone: bool = False) -> dict[str, torch.Tensor]:
    """With two blocks of vectors, of which the second meets what was kept of the first."""
    case = next(case for case in CASES if case.name == case_name)
    problem, found = case.problem() if alone else shared(case), {}
    for name in names:
        A = make(name, problem)
        found[name] = torch.cat([A @ block(A.shape[1]), A @ block(A.shape[1], k=1)], 1)
    return found


def test_products_are_those_of_one_process(on_two):
    for i, case in enumerate(TWO):
        names = [name for j, name in enumerate(SHARED) if (i + j) % 3 == 0 or case in SEEN]
        names = [name for name in names if defined(name, case)]
        expected = products(case.name, names, alone=True)
        for found in on_two(products, case.name, names):
            for name in names:
                close(found[name], expected[name], 1e-12)
