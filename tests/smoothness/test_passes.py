"""What a measurement asks of the model: forward passes, and derivatives of derivatives."""

import pytest
import torch
from torch import nn

import lossgeom as lg
from tests.problems import CubeOnce

DATA = [(torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(6).long())]


class Counted(nn.Linear):
    examples = 0

    def forward(self, x):
        Counted.examples += len(x)
        return super().forward(x)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_a_second_measurement_looks_at_the_model_no_more(mode, monkeypatch):
    problem = lg.Problem(Counted(3, 2), "cross_entropy", DATA, mode=mode)
    spent = []
    for _ in range(2):
        monkeypatch.setattr(Counted, "examples", 0)
        lg.jacobian_norms(problem)
        spent.append(Counted.examples)
    looks = 6 + 2 * 3 + (4 + 4)  # all, and half twice; the ends beside each alone
    assert spent == [looks + 4 + 6, 4 + 6]  # a few, and all


def test_a_few_examples_are_looked_at_once_for_a_shape(monkeypatch):
    x, y = torch.randn(22, 3), torch.zeros(22).long()
    batches = [*zip(x.split(6), y.split(6), strict=True)]  # the last one of four
    problem = lg.Problem(Counted(3, 2), "cross_entropy", batches)
    lg.jacobian_norms(problem)
    monkeypatch.setattr(Counted, "examples", 0)
    lg.jacobian_norms(problem)
    assert Counted.examples == 4 + 22


def test_a_problem_in_its_own_mode_is_itself():
    problem = lg.Problem(nn.Linear(3, 2), "cross_entropy", DATA)
    assert problem.in_mode("eval") is problem
    assert problem.in_mode("train").in_mode("train").mode == "train"


def test_operations_without_second_derivatives():
    """All rows and random signs need none."""

    class Cubed(nn.Linear):
        def forward(self, x):
            return CubeOnce.apply(super().forward(x))

    model = Cubed(3, 2)
    problem = lg.Problem(model, "cross_entropy", DATA)
    message = 'operation without second derivatives .* method="exact" does not'
    for measure in (lg.jacobian_norms, lg.parameter_jacobian_norms):
        with pytest.raises(ValueError, match=message):
            measure(problem, method="lanczos")
    z = nn.functional.linear(DATA[0][0], model.weight, model.bias)
    J = (3 * z.square())[:, :, None] * model.weight
    expected = torch.linalg.matrix_norm(J, ord=2).detach()
    torch.testing.assert_close(lg.jacobian_norms(problem).values.float(), expected)
    lg.jacobian_norms(problem, norm="frobenius", method="hutchinson")
