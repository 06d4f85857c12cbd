"""What single regularisers are, in closed form."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.func import jacrev, vmap

from lossgeom import Hessian, Problem
from lossgeom.batches import Batch
from lossgeom.lab.models import mlp, resnet18
from lossgeom.lab.regularizers import (
    HessianTrace,
    JacobianNorm,
    WarmSharpness,
    crop_and_flip,
    dropout,
    hessian_trace,
    hold,
    input_gradient,
    jacobian_norm,
    label_smoothing,
    mixup,
    weight_decay,
)
from lossgeom.lab.training import objective_of, optimize, ramp
from lossgeom.lab.training.objective import OF_OUTPUTS

pytestmark = pytest.mark.quick


def network():
    return mlp(4, 3, [6], "tanh", seed=1).double()


def examples(n=5):
    numbers = torch.Generator().manual_seed(2)
    return torch.randn(n, 4, generator=numbers).double(), torch.arange(n) % 3


def of(*regularizers, model=None, data=None, loss="cross_entropy", seed=0):
    return objective_of(model or network(), loss, [data or examples()], regularizers, seed)


def added(regularizer, **options):
    """What it adds to the loss at step 0."""
    return (of(regularizer, **options).at(0)[0] - of(**options).at(0)[0]).item()


def test_weight_decay_is_that_of_torch():
    ours, theirs = network(), network()
    for model, decay in ((ours, 0.0), (theirs, 0.1)):
        optimizer = torch.optim.SGD(model.parameters(), 0.2, 0.9, weight_decay=decay)
        used = [] if decay else [weight_decay(0.1)]
        for _ in optimize(
            model, "cross_entropy", [examples()],
            optimizers=[optimizer], steps=5, regularizers=used,
        ):  # fmt: skip
            pass
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_label_smoothing_is_that_of_torch():
    (inputs, targets), model = examples(), network()
    smooth = nn.functional.cross_entropy(model(inputs), targets, label_smoothing=0.2)
    torch.testing.assert_close(of(label_smoothing(0.2), model=model).at(0)[0], smooth.detach())


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_mixup_is_the_loss_of_mixed_labels(smoothing):
    """With the mixtures that it has drawn, and their labels as probabilities."""
    model, batch = network(), Batch.of(examples())
    found = of(label_smoothing(smoothing), mixup(0.4), model=model)
    mixed = found.augmentations[0](batch, found.numbers(1, 0, 0, 0))
    first, second, share = mixed.targets
    assert 0 < share < 1
    one_hot = nn.functional.one_hot(torch.stack([first, second]), 3).double()
    labels = share * one_hot[0] + (1 - share) * one_hot[1]
    expected = nn.functional.cross_entropy(model(mixed.input), labels, label_smoothing=smoothing)
    torch.testing.assert_close(found.at(0)[0], expected.detach())


def test_mixup_mixes_inputs_as_it_mixes_labels():
    inputs, batch = torch.eye(5), Batch.of((torch.eye(5), torch.arange(5)))
    found = of(mixup(0.4))
    mixed = found.augmentations[0](batch, found.numbers(7))
    first, second, share = mixed.targets
    torch.testing.assert_close(mixed.input, share * inputs[first] + (1 - share) * inputs[second])
    assert sorted(second.tolist()) == list(range(5))


def test_crop_and_flip_shifts_and_reflects_each_image():
    image = torch.arange(1.0, 13).reshape(1, 1, 3, 4).expand(200, 2, 3, 4)
    found = of(crop_and_flip(1), model=nn.Flatten())
    [augment] = found.augmentations
    moved = augment(Batch.of((image, torch.zeros(200))), found.numbers(0)).input
    padded = nn.functional.pad(image[0], (1, 1, 1, 1))
    windows = [padded[:, i : i + 3, j : j + 4] for i in range(3) for j in range(3)]
    possible = {tuple(w.flatten().tolist()) for v in windows for w in (v, v.flip(-1))}
    assert {tuple(each.flatten().tolist()) for each in moved} == possible
    [augment] = of(crop_and_flip(1, 0.5, flip=False), model=nn.Flatten()).augmentations
    moved = augment(Batch.of((image, torch.zeros(200))), found.numbers(0)).input
    shifted = {tuple(window.flatten().tolist()) for window in windows}
    assert {tuple(each.flatten().tolist()) for each in moved} == shifted
    still = (moved == image).flatten(1).all(1).double().mean().item()
    assert abs(still - (0.5 + 0.5 / 9)) < 4 * 0.5 / 200**0.5


def test_dropout_has_the_models_parameters_and_its_mean():
    model = nn.Sequential(nn.Linear(4, 400), nn.ReLU(), nn.Linear(400, 1)).double()
    found = of(dropout(0.25), model=model).model
    assert all(a is b for a, b in zip(found.parameters(), model.parameters(), strict=True))
    hidden = found[:2](torch.ones(200, 4).double())
    share = (hidden[:, model[0](torch.ones(4).double()) > 0] == 0).double().mean().item()
    assert abs(share - 0.25) < 0.02
    assert model[:2](torch.ones(1, 4).double()).shape == (1, 400)


def test_input_gradient_is_that_of_single_examples():
    (inputs, targets), model = examples(), network()

    def loss(x, y):
        return nn.functional.cross_entropy(model(x), y)

    squares = vmap(torch.func.grad(loss))(inputs, targets).square().sum(1)
    assert added(input_gradient(0.3), model=model) == pytest.approx(0.3 * squares.mean().item())


def jacobians(model):
    return vmap(jacrev(model))(examples()[0]).detach()


def test_the_exact_jacobian_norm():
    model = network()
    expected = jacobians(model).square().sum((1, 2)).mean().item()
    assert added(jacobian_norm(0.3, probes=None), model=model) == pytest.approx(0.3 * expected)


def test_random_estimates_have_the_right_mean():
    """And that with another count of outputs, or a matrix of half the size, would be seen."""
    model = network()
    problem = Problem(model, "cross_entropy", [examples()])
    exact = {
        JacobianNorm(probes=2): jacobians(model).square().sum((1, 2)).mean().item(),
        HessianTrace(probes=2): Hessian(problem).dense().trace().item(),
    }
    for quantity, expected in exact.items():
        found = of(model=model)
        values = torch.stack([found.mean(quantity, step)[0] for step in range(100)])
        error = values.std().item() / math.sqrt(len(values))
        assert abs(values.mean().item() - expected) < 4 * error
        assert abs(values.mean().item() - expected / 2) > 4 * error


def test_warm_sharpness_finds_the_largest_eigenvalue():
    model = network()
    problem = Problem(model, "squared_error", [(examples()[0], torch.zeros(5, 3))])
    largest = torch.linalg.eigvalsh(Hessian(problem).dense())[-1].item()
    found = of(model=model, data=(examples()[0], torch.zeros(5, 3).double()), loss="squared_error")
    quantity = WarmSharpness()
    values = [found.mean(quantity, step)[0].item() for step in range(100)]
    assert values[-1] == pytest.approx(largest, rel=1e-6)


def test_hold_is_the_square_of_a_logarithm():
    curve = ([0, 10], [4.0, 2.0])
    norm = jacobians(network()).square().sum((1, 2)).mean().item()
    for step, target in ((0, 4.0), (5, 3.0 * 0.75), (10, 2.0 * 0.5), (99, 2.0 * 0.5)):
        held = of(hold(JacobianNorm(None), curve, strength=0.1, factor=ramp(0.5, 10)))
        penalty = held.at(step)[0] - of().at(step)[0]
        assert penalty.item() == pytest.approx(0.1 * math.log(norm / target) ** 2)


def test_hold_moves_a_quantity_to_its_curve():
    """While the loss alone takes it elsewhere."""
    ends = {}
    for name, used in {
        "free": [],
        "held": [hold(JacobianNorm(None), ([0], [0.3]), strength=1.0)],
    }.items():
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in optimize(
            model, "cross_entropy", [examples()],
            optimizers=[optimizer], steps=100, regularizers=used,
        ):  # fmt: skip
            pass
        ends[name] = jacobians(model).square().sum((1, 2)).mean().item()
    assert ends["free"] > 1
    assert ends["held"] == pytest.approx(0.3, rel=0.15)


@pytest.mark.usefixtures("unchecked")
def test_a_factor_that_is_no_function():
    with pytest.raises(TypeError, match=r"function of the step, such as ramp\(0.4, 200\), got 0.5"):
        hold(JacobianNorm(), ([0, 5], [1.0, 2.0]), factor=0.5)


def test_errors():
    good = JacobianNorm(), ([0, 5], [1.0, 2.0])
    for steps, values in (([], []), ([0, 0], [1.0, 1.0]), ([0, 1], [1.0]), ([0, 1], [1.0, 0.0])):
        with pytest.raises(ValueError, match="expected a curve of increasing steps and a positive"):
            hold(good[0], (steps, values))
    with pytest.raises(ValueError, match="expected strength > 0"):
        hold(*good, strength=0)
    model = nn.Sequential(nn.Linear(4, 3)).double()
    nn.init.zeros_(model[0].weight)
    with pytest.raises(ValueError, match=r"to hold, got 0\.0 at 2 of JacobianNorm; hold"):
        of(hold(*good), model=model).at(2)
    with pytest.raises(TypeError, match=r"expected an nn.Sequential with activations.*got Linear"):
        of(dropout(0.1), model=nn.Linear(4, 3))
    with pytest.raises(ValueError, match=r"expected images \(N, C, H, W\) to crop, got \(5, 4\)"):
        of(crop_and_flip(1)).at(0)
    with pytest.raises(ValueError, match="label_smoothing= goes with the loss 'cross_entropy'"):
        of(mixup(0.1), label_smoothing(0.1))
    for make, bad in (
        (weight_decay, -1), (input_gradient, -1), (jacobian_norm, -1), (hessian_trace, -1),
        (mixup, 0), (dropout, 1), (crop_and_flip, -1),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="expected strength"):
            make(bad)
    with pytest.raises(ValueError, match="expected a share from 0 to 1, got 2"):
        crop_and_flip(1, 2)
    with pytest.raises(ValueError, match="expected probes of at least 1, got 0"):
        JacobianNorm(0)
    with pytest.raises(ValueError, match="expected probes of at least 1, got 0"):
        HessianTrace(0)


def test_hold_needs_a_finite_curve_and_a_positive_factor():
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match="a positive value at each"):
            hold(JacobianNorm(), ([0, 1], [1.0, value]))
    held = of(hold(JacobianNorm(None), ([0], [1.0]), factor=ramp(0.0, 5)))
    held.at(4)
    with pytest.raises(ValueError, match=r"expected a factor > 0 on the curve, got 0.0 at 5"):
        held.at(5)


def test_dropout_does_not_miss_activations_inside_blocks():
    with pytest.raises(TypeError, match="got Sequential of blocks"):
        of(dropout(0.1), model=resnet18(width=1))


def test_augmentations_and_probes_draw_other_numbers():
    objective = of()
    numbers = []
    keep = lambda batch, drawn: numbers.append(drawn.integers(2, size=64)) or batch  # noqa: E731
    both = replace(objective, augmentations=(keep,) * 4)
    both.mean(lambda *_: (torch.zeros(()), 1.0), step=3)
    probes = JacobianNorm(4)._directions(objective, torch.zeros(64), (OF_OUTPUTS, 3, 0))
    for probe in probes:
        for drawn in numbers:
            assert (probe.numpy() != 2 * drawn - 1).any()
