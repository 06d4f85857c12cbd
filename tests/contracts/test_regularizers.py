"""What holds of every regulariser; what single ones are is in tests/lab/test_regularizers.py."""

import inspect

import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from lossgeom.lab.models import mlp
from lossgeom.lab.regularizers import (
    REGULARIZERS,
    HessianTrace,
    JacobianNorm,
    WarmSharpness,
    hold,
    sharpness,
)
from lossgeom.lab.training import objective_of, ramp

pytestmark = pytest.mark.quick
STRENGTHS = dict.fromkeys(REGULARIZERS, 0.3) | {"crop_and_flip": 1}
CURVE = ([0, 10], [2.0, 3.0])
OTHERS = {
    "jacobian_norm, exact": lambda: REGULARIZERS["jacobian_norm"](0.3, probes=None),
    "hessian_trace, 2 probes": lambda: REGULARIZERS["hessian_trace"](0.3, probes=2),
    "hold jacobian": lambda: hold(JacobianNorm(), CURVE, factor=ramp(0.5, 6)),
    "hold trace": lambda: hold(HessianTrace(4), CURVE),
}
MADE = {name: lambda name=name: REGULARIZERS[name](STRENGTHS[name]) for name in REGULARIZERS}
MADE |= OTHERS
CUT_ALIKE = [name for name in MADE if name.partition(",")[0] in (
    "weight_decay", "label_smoothing", "input_gradient", "hessian_trace", "hold trace",
) or name.endswith("exact")]  # fmt: skip


def network():
    return nn.Sequential(nn.Flatten(), *mlp(4, 3, [5, 4], "tanh", seed=0)).double()


def examples(n=6):
    numbers = torch.Generator().manual_seed(3)
    return torch.randn(n, 1, 2, 2, generator=numbers).double(), torch.arange(n) % 3


@pytest.fixture(params=MADE)
def make(request):
    """Makes it afresh, as one with a state has to be."""
    return MADE[request.param]


def objective(regularizer, model=None, batches=None, seed=0):
    batches = batches or [examples()]
    return objective_of(model or network(), "cross_entropy", batches, [regularizer], seed)


@pytest.mark.parametrize("name", [name for name in MADE if name != "sharpness"])
def test_its_gradient_is_that_of_its_value(name):
    """By finite differences along a random direction, at a step that is not the first."""
    _check_slope(objective(MADE[name]()), lambda: None)


@pytest.mark.parametrize("form", ["sharpness", "hold"])
def test_the_gradient_of_what_has_a_state(form):
    """Its vector v is a constant in a step, but turns from step to step: so it is put back."""
    quantity = WarmSharpness()
    made = sharpness(0.3, quantity) if form == "sharpness" else hold(quantity, CURVE, strength=1)
    found = objective(made)
    found.at(0)
    state = {name: part.clone() for name, part in quantity.state_dict().items()}
    _check_slope(found, lambda: quantity.load_state_dict(state))


def _check_slope(found, put_back):
    put_back()
    theta = parameters_to_vector(found.parameters).detach()
    _, gradient = found.at(3)
    direction = torch.randn(theta.shape, generator=torch.Generator().manual_seed(7)).double()
    values = []
    for h in (1e-5, -1e-5):
        put_back()
        vector_to_parameters(theta + h * direction, found.parameters)
        values.append(found.at(3)[0].item())
    slope = (values[0] - values[1]) / 2e-5
    assert parameters_to_vector(gradient) @ direction == pytest.approx(slope, rel=1e-6, abs=1e-9)
    assert slope != 0


def test_it_changes_the_gradient_of_the_loss(make):
    plain = objective(lambda same: same).at(3)[1]
    changed = objective(make()).at(3)[1]
    assert not torch.allclose(parameters_to_vector(plain), parameters_to_vector(changed))


@pytest.mark.parametrize("name", CUT_ALIKE)
def test_it_is_the_same_however_the_batch_is_cut(name):
    """Sum and count: parts of different sizes weigh what they should."""
    inputs, targets = examples()
    cut = list(zip(inputs.split([1, 2, 3]), targets.split([1, 2, 3]), strict=True))
    whole, parts = objective(MADE[name]()), objective(MADE[name](), batches=cut)
    for a, b in zip(whole.at(3), parts.at(3), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_the_vector_of_sharpness_is_that_of_all_batches():
    inputs, targets = examples()
    quantities = WarmSharpness(), WarmSharpness()
    cut = list(zip(inputs.split([1, 2, 3]), targets.split([1, 2, 3]), strict=True))
    whole = objective(sharpness(0.3, quantities[0]))
    parts = objective(sharpness(0.3, quantities[1]), batches=cut)
    whole.at(0)  # the first vector is of the first batch alone
    quantities[1].load_state_dict(quantities[0].state_dict())
    for step in (1, 2, 3):
        for a, b in zip(whole.at(step), parts.at(step), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_the_seed_and_the_step_make_all_that_is_random(make):
    state = torch.get_rng_state()
    value, gradient = objective(make(), seed=5).at(2)
    again, same = objective(make(), seed=5).at(2)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(value, again)
    assert all(map(torch.equal, gradient, same))


@pytest.mark.parametrize("name", ["mixup", "crop_and_flip", "dropout", "jacobian_norm"])
def test_other_seeds_and_steps_draw_others(name):
    values = {objective(MADE[name](), seed=s).at(t)[0].item() for s in (0, 1) for t in (0, 1)}
    assert len(values) == 4


def test_it_leaves_model_and_batches_alone(make):
    model, data = network(), [examples()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    inputs = data[0][0].clone()
    objective(make(), model, data).at(0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(data[0][0], inputs)
    assert not data[0][0].requires_grad
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("name", REGULARIZERS)
def test_is_documented(name):
    make = REGULARIZERS[name]
    assert next(iter(inspect.signature(make).parameters)) == "strength"
    assert make.__doc__.strip().split("\n")[0].endswith(".")
    assert "Args:" in make.__doc__
    assert "Raises:" in make.__doc__
