"""Recorded products that are compiled."""

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.curvature import _memory


def hessian(compiled):
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(72, 3)
    data = [(torch.randn(4, 1, 8, 8), torch.arange(4) % 3)]
    problem = lg.Problem(nn.Sequential(*layers), "cross_entropy", data, mode="eval")
    return lg.Hessian(problem, compiled=compiled)


def products(matrix):
    vectors = torch.linspace(-1, 1, 3 * matrix.shape[0]).view(3, -1)
    return torch.stack([matrix @ v for v in vectors])


class Wrong:
    def __init__(self, program):
        self.program = program

    def __call__(self, v):
        return 1.01 * self.program(v)


def refused(program):
    raise RuntimeError("no compiler\nand more")


@pytest.mark.parametrize(
    ("compiler", "note"),
    [
        (lambda program: program, None),
        (Wrong, "products not compiled: it gives another product"),
        (refused, "products not compiled: RuntimeError: no compiler"),
    ],
)
def test_compiled_products_are_compared_at_their_first_use(compiler, note, monkeypatch):
    monkeypatch.setattr(_memory, "TAPE_BYTES", 0)
    used = []
    monkeypatch.setattr(torch, "compile", lambda f: used.append(f) or compiler(f))
    matrix = hessian(compiled=True)
    torch.testing.assert_close(products(matrix), products(hessian(compiled=False)))
    assert len(used) == 1
    assert [said for said in matrix.problem.notes if "compiled" in said] == ([note] if note else [])


@pytest.mark.slow
def test_products_that_torch_has_compiled(monkeypatch):
    monkeypatch.setattr(_memory, "TAPE_BYTES", 0)
    matrix = hessian(compiled=True)
    torch.testing.assert_close(products(matrix), products(hessian(compiled=False)))
    assert not [said for said in matrix.problem.notes if "compiled" in said]
