"""How near outputs are to targets, from the largest loss of an example."""

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.bounds import fit_of_cost

pytestmark = pytest.mark.quick


def model(seed=0):
    torch.manual_seed(seed)
    return nn.Linear(3, 4).double()


def batches(y):
    x = torch.randn(7, 3, dtype=torch.float64)
    return [(x[:5], y[:5]), (x[5:], y[5:])]


def outputs_and_targets(net, data):
    return net(torch.cat([x for x, _ in data])), torch.cat([y for _, y in data])


@pytest.mark.parametrize("loss", ["squared_error", nn.MSELoss(), nn.MSELoss(reduction="sum")])
def test_of_squared_errors_it_is_the_largest_distance(loss):
    net, data = model(), batches(torch.randn(7, 4, dtype=torch.float64))
    outputs, targets = outputs_and_targets(net, data)
    expected = (outputs - targets).norm(dim=1).max().item()
    assert fit_of_cost(lg.Problem(net, loss, data)) == pytest.approx(expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_of_cross_entropy_it_is_the_root_of_the_relative_entropy(smoothing):
    net, data = model(), batches(torch.randint(4, (7,)))
    outputs, targets = outputs_and_targets(net, data)
    q = (1 - smoothing) * torch.eye(4).double()[targets] + smoothing / 4
    p = outputs.softmax(1)
    kl = (torch.special.xlogy(q, q) - q * p.log()).sum(1).max()
    found = fit_of_cost(lg.Problem(net, "cross_entropy", data, label_smoothing=smoothing))
    assert found == pytest.approx(kl.sqrt().item())
    assert found >= (p - q).norm(dim=1).max()


def test_examples_without_a_target_are_left_out():
    net, labels = model(), torch.tensor([0, 1, 2, 3, 0, 1, 2])
    x = torch.randn(7, 3, dtype=torch.float64)
    loss = nn.CrossEntropyLoss(ignore_index=3, label_smoothing=0.2)
    kept = labels != 3
    whole, part = (
        fit_of_cost(lg.Problem(net, loss, [each], check=False))
        for each in ((x, labels), (x[kept], labels[kept]))
    )
    assert whole == pytest.approx(part)
    assert fit_of_cost(lg.Problem(net, loss, [(x[3:4], labels[3:4])], check=False)) == 0


def test_alpha_of_cross_entropy_cannot_be_larger():
    """With two classes that are close, KL is 1.0001 times the squared distance."""
    q = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)
    p = q + torch.tensor([0.005, -0.005, 0.0], dtype=torch.float64)
    ratio = (q * (q / p).log()).nansum() / (p - q).square().sum()
    assert 1 <= ratio < 1.001
    draws = torch.distributions.Dirichlet(torch.full((3,), 0.5)).sample((2, 10_000)).double()
    kl = (torch.special.xlogy(draws[0], draws[0]) - draws[0] * draws[1].log()).sum(1)
    assert (kl >= (1 - 1e-6) * (draws[0] - draws[1]).square().sum(1)).all()


@pytest.mark.parametrize("loss", [nn.L1Loss(), nn.CrossEntropyLoss(weight=torch.ones(4).double())])
def test_other_losses(loss):
    y = torch.randn(7, 4).double() if isinstance(loss, nn.L1Loss) else torch.randint(4, (7,))
    with pytest.raises(ValueError, match="expected a loss that bounds a squared distance"):
        fit_of_cost(lg.Problem(model(), loss, batches(y)))
