"""Networks and their Taylor models in the loops."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lossgeom import Problem
from lossgeom.lab.training import gradient_descent
from lossgeom.quadratic import (
    Dense,
    Descent,
    QuadraticModel,
    compare_with_taylor,
    descend,
    descend_parameters,
    distance,
    gradient_flow,
    network,
    residuals,
    taylor,
    taylor_error,
)
from tests.problems import mlp
from tests.quadratic.models import double, random_model
from tests.quadratic.networks import classification, dense_expansion, regression
from tests.reference import fingerprint

pytestmark = pytest.mark.usefixtures("unchecked")


def flat(model: nn.Module) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()


@pytest.mark.parametrize("make", [regression, classification])
def test_as_the_lab_trains(make):
    problem = make()
    model, copied = network(problem), copy.deepcopy(problem.model)
    found = descend_parameters(model, Descent(30, 0.3, every=10))
    loss = problem.criterion.name
    for step in gradient_descent(copied, loss, problem.batches, lr=0.3, steps=30):
        if step % 10 == 0:
            there = problem.at(flat(copied)).loss()
            assert found.losses[step // 10, 0].item() == pytest.approx(there, rel=1e-10)
    torch.testing.assert_close(problem.theta + found.final["theta"][0], flat(copied))


@pytest.mark.parametrize("make", [regression, classification])
def test_as_torch_trains_with_momentum(make):
    problem = make()
    model, copied = network(problem), copy.deepcopy(problem.model)
    settings = Descent(25, 0.2, momentum=0.9, observe={"z": residuals})
    found = descend_parameters(model, settings)
    sgd = torch.optim.SGD(copied.parameters(), lr=0.2, momentum=0.9)
    x, y = (torch.cat(part) for part in zip(*problem.batches, strict=True))
    for _ in range(25):
        sgd.zero_grad()
        f = copied(x)
        loss = F.cross_entropy(f, y) if y.ndim == 1 else (f - y).square().sum() / (2 * len(x))
        loss.backward()
        sgd.step()
    torch.testing.assert_close(problem.theta + found.final["theta"][0], flat(copied))


@pytest.mark.parametrize("momentum", [0.0, 0.6])
@pytest.mark.parametrize("name", ["tanh", "layer norm"])
def test_as_the_model_with_all_entries(name, momentum):
    """The quadratic model of a network, as the explicit model with its y, G and Q."""
    problem = regression(name, sizes=(4, 2))
    f, J, Q = dense_expansion(problem)
    y = torch.cat([targets.reshape(-1) for _, targets in problem.batches])
    s, descent = 1 / math.sqrt(6), Descent(20, 0.3, momentum, every=5)
    explicit = QuadraticModel(s * (f - y)[None], s * J[None], Dense(s * Q))
    found = descend_parameters(taylor(problem), descent)
    expected = descend(explicit, descent)
    torch.testing.assert_close(found.losses, expected.losses, rtol=1e-6, atol=1e-10)
    torch.testing.assert_close(found.ntk, expected.ntk, rtol=1e-6, atol=1e-10)
    flat_model = QuadraticModel(explicit.y, explicit.G, Dense(0 * explicit.Q.Q))
    found, expected = descend_parameters(taylor(problem, 1), descent), descend(flat_model, descent)
    torch.testing.assert_close(found.losses, expected.losses, rtol=1e-6, atol=1e-10)
    assert (found.ntk == found.ntk[0]).all()


@pytest.mark.parametrize("make", [regression, classification])
@pytest.mark.parametrize("of", [network, taylor])
def test_divergence_is_recorded(make, of):
    model = of(make())
    descent = Descent(200, 50.0, momentum=0.99, every=20, bound=1e3)
    found = descend_parameters(model, descent)
    step = int(found.diverged_at[0])
    assert 0 < step <= 200
    assert found.losses[found.steps < step].isfinite().all()
    assert found.losses[found.steps >= step].isnan().all()
    assert found.ntk[found.steps >= step].isnan().all()


@pytest.mark.parametrize("make", [regression, classification])
def test_numbers_that_are_none(make):
    """A step so long that the next outputs are NaN or infinite."""
    for of in (network, taylor):
        model = of(make())
        found = descend_parameters(model, Descent(5, 1e300, loss=model.loss, every=1))
        assert 0 < int(found.diverged_at[0]) <= 2
    z = double(*[math.nan] * 18)[None]
    assert network(classification()).loss(z).isnan().all()
    assert network(classification()).loss(math.inf * torch.ones(2, 18).double()).isnan().all()


def test_convergence():
    model = taylor(regression(), 1)
    found = descend_parameters(model, Descent(2000, 0.5, every=1000, tol=0.1))
    assert found.converged.all()
    assert found.ntk.isfinite().all()


@pytest.mark.parametrize("make", [regression, classification])
def test_gradient_flow_is_descent_in_small_steps(make):
    problem = make()
    for model in (network(problem), taylor(problem, 1), taylor(problem, 2)):
        flow = gradient_flow(model, [0.0, 0.25, 0.5], rtol=1e-5, atol=1e-7)
        losses = [
            descend_parameters(model, Descent(n, 0.5 / n, loss=model.loss)).losses[-1, 0]
            for n in (20, 40)
        ]
        torch.testing.assert_close(flow.losses[-1, 0], 2 * losses[1] - losses[0], rtol=1e-3, atol=0)
        assert (flow.losses.diff(dim=0) < 0).all()


@pytest.mark.parametrize("make", [regression, classification])
def test_comparison(make):
    problem = make()
    descent = Descent(40, 0.3, every=10)
    found = compare_with_taylor(problem, descent)
    true, linear, quadratic = network(problem), taylor(problem, 1), taylor(problem)
    runs = zip(
        (found.network, found.linear, found.quadratic), (true, linear, quadratic), strict=True
    )
    for run, model in runs:
        alone = descend_parameters(model, descent)
        assert torch.equal(run.losses, alone.losses)
        assert torch.equal(run.ntk, alone.ntk)
        assert run.losses[0].item() == pytest.approx(problem.loss())
    recorded = {name: values[:, 0] for name, values in found.network.recorded.items()}
    assert set(recorded) == {"loss", "ntk", "linear_error", "quadratic_error", "distance"}
    d = found.network.final["theta"]
    moved = (true.at(d).z - true.start).norm()
    for name, model in (("linear_error", linear), ("quadratic_error", quadratic)):
        expected = (model.at(d).z - true.at(d).z).norm() / moved
        torch.testing.assert_close(recorded[name][-1], expected)
        assert recorded[name][0] == 0
    torch.testing.assert_close(recorded["distance"][-1], d.norm())
    assert (recorded["quadratic_error"][1:] < recorded["linear_error"][1:]).all()


def test_comparison_of_a_run_that_diverges():
    found = compare_with_taylor(regression(), Descent(60, 30.0, every=5))
    step = int(found.network.diverged_at[0])
    assert step > 0
    for name in ("loss", "linear_error", "quadratic_error", "distance"):
        values = found.network.recorded[name]
        assert values[found.network.steps >= step].isnan().all()
        assert not values[found.network.steps < step].isnan().any()


def test_no_trace_is_left():
    problem = regression("batch norm", mode="train")
    before = fingerprint(problem.model)
    compare_with_taylor(problem, Descent(5, 0.1, every=2))
    assert fingerprint(problem.model) == before


def test_only_networks_are_observed():
    observe = {"error": taylor_error(taylor(regression()))}
    for observed in (observe, {"distance": distance}):
        with pytest.raises(TypeError, match="a network or a Taylor model of one, got a Expansion"):
            descend(random_model(R=1), Descent(1, observe=observed))


def test_seeded_dropout_trains():
    data = [(torch.ones(4, 3).double(), torch.zeros(4, 2).double())]
    torch.manual_seed(0)
    model = nn.Sequential(mlp(3, 8, 2), nn.Dropout(0.5)).double()
    problem = Problem(model, "squared_error", data, mode="train", seed=3)
    found = compare_with_taylor(problem, Descent(60, 0.05, every=50))
    assert found.network.losses[-1] < 0.1 * found.network.losses[0]
