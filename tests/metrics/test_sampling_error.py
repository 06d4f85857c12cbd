"""The error of sampling beside a closed form, dense code, and samples that are drawn."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.metrics import SamplingError
from tests import reference
from tests.problems import CASES

LINEAR = nn.Linear(1, 1, bias=False).double()


def line(values, sizes):
    """One weight of 1 on inputs of some values, with targets of 0, in batches of some sizes."""
    nn.init.ones_(LINEAR.weight)
    x = torch.tensor(values, dtype=torch.float64)[:, None]
    batches = [(part, torch.zeros_like(part)) for part in x.split(sizes)]
    return lg.Problem(LINEAR, "squared_error", batches)


@pytest.mark.quick
@pytest.mark.parametrize("sizes", [[4], [3, 1], [1, 1, 1, 1]])
@pytest.mark.parametrize("of", ["loss", "sharpness"])
def test_is_the_standard_error_of_a_mean(of, sizes):
    """The loss of an example is x^2 / 2, its curvature x^2."""
    values = [1.0, 2.0, 3.0, 5.0]
    each = torch.tensor(values).square() * (0.5 if of == "loss" else 1.0)
    expected = each.std().item() / 2
    assert SamplingError(of)(line(values, sizes)).value == pytest.approx(expected, rel=1e-6)


def test_curvatures_are_those_of_single_examples():
    """Beside the dense Hessian of each."""
    case = next(case for case in CASES if case.name == "ragged")
    problem = case.problem()
    v = lg.top_eigenpairs(lg.Hessian(problem), tol=1e-6).vectors[:, 0]
    found = []
    for x, y in case.data:
        for i in range(len(y)):
            one = replace(case, data=[(x[i : i + 1], y[i : i + 1])])
            found.append(float(v @ reference.hessian(one) @ v))
    expected = torch.tensor(found).std().item() / math.sqrt(len(found))
    assert SamplingError("sharpness", tol=1e-6)(problem).value == pytest.approx(expected, rel=1e-3)


def test_terms_of_several_for_an_example_are_one_group():
    """Tokens of one text depend on each other: the error is that of texts."""
    model = nn.Embedding(5, 7)
    texts = torch.randint(5, (6, 9))
    problem = lg.Problem(model, "token_cross_entropy", [(texts, texts.roll(1, 1))])
    losses = []
    for i in range(6):
        alone = [(texts[i : i + 1], texts.roll(1, 1)[i : i + 1])]
        losses.append(lg.Problem(model, "token_cross_entropy", alone).loss())
    expected = torch.tensor(losses).std().item() / math.sqrt(6)
    assert SamplingError()(problem).value == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("of", ["loss", "sharpness"])
def test_many_examples_are_taken_in_random_groups(of):
    """Sorted data, of which groups in order or in turns would tell too much or too little."""
    values = torch.linspace(-1, 3, 5000).tolist()
    each = torch.tensor(values).square() * (0.5 if of == "loss" else 1.0)
    expected = each.std().item() / math.sqrt(5000)
    found = [SamplingError(of, seed=seed)(line(values, [5000])).value for seed in range(3)]
    assert found == pytest.approx([expected] * 3, rel=0.4)  # four times a tenth
    assert len(set(found)) == 3


def test_is_how_far_samples_are_from_each_other():
    generator = torch.Generator().manual_seed(1)
    values, squares = [], []
    for _ in range(50):
        problem = line(torch.randn(30, generator=generator).tolist(), [30])
        values.append(problem.loss())
        squares.append(SamplingError()(problem).value ** 2)
    mean_square = math.sqrt(sum(squares) / len(squares))
    assert torch.tensor(values).std().item() == pytest.approx(mean_square, rel=0.4)  # 4 / sqrt(100)


def test_batches_are_the_groups_where_batchnorm_ties_examples():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    batches = [(torch.randn(6, 3), torch.randint(2, (6,))) for _ in range(3)]
    problem = lg.Problem(model, "cross_entropy", batches, mode="train")
    losses = [lg.Problem(model, "cross_entropy", [b], mode="train").loss() for b in batches]
    expected = torch.tensor(losses).std().item() / math.sqrt(3)
    assert SamplingError()(problem).value == pytest.approx(expected, rel=1e-4)
    alone = lg.Problem(model, "cross_entropy", batches[:1], mode="train")
    with pytest.raises(lg.UndefinedError, match="two batches where they do, as with BatchNorm"):
        SamplingError()(alone)


def test_a_loss_of_whole_batches_has_its_batches_as_groups():
    def length(outputs, batch):
        return outputs.norm(), 1.0

    model = nn.Linear(3, 1)
    batches = [(torch.randn(6, 3), torch.zeros(6)) for _ in range(3)]
    losses = [lg.Problem(model, length, [batch]).loss() for batch in batches]
    expected = torch.tensor(losses).std().item() / math.sqrt(3)
    found = SamplingError()(lg.Problem(model, length, batches)).value
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_sum_has_none():
    problem = lg.Problem(LINEAR, nn.MSELoss(reduction="sum"), line([1.0, 2.0], [2]).batches)
    with pytest.raises(lg.UndefinedError, match="is a sum, which has no value for other data"):
        SamplingError()(problem)
