"""Generated tasks against closed forms, and how well a student fits one."""

import pytest
import torch

from lossgeom import Problem, jacobian_norms, lipschitz_global, local_variation_upper
from lossgeom.bounds import Gaussian
from lossgeom.lab.datasets import digits
from lossgeom.lab.generators import (
    digits_decoder,
    sine_implicit,
    spectral_gan,
    student,
    tanh_surface,
)


@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_tanh_surface(d):
    task = tanh_surface(d, seed=1)
    u = task.latent.sample(50)
    first, _, last = task.generator
    A, B = first.weight / 2, last.weight
    torch.testing.assert_close(A.T @ A, torch.eye(d).double())
    torch.testing.assert_close(B.T @ B, torch.eye(8).double())
    torch.testing.assert_close(task.generator(u), torch.tanh((2 * u - 1) @ A.T) @ B.T)
    norms = [torch.linalg.matrix_norm(layer.weight, 2).item() for layer in task.teacher[::2]]
    assert norms == pytest.approx([1.5, 1])
    constants = {name: bracket.max for name, bracket in task.lipschitz(50).items()}
    assert constants["generator"] == pytest.approx((2, 2), rel=1e-4)
    assert constants["teacher"][1] < 1.5
    assert constants["target"][1] < 2 * constants["teacher"][1]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"dimension": 0}, "expected dimension of at least 1, got 0"),
        ({"dimension": 9}, "expected width of at least 9, got 8"),
        ({"ambient": 7}, "expected ambient of at least 8, got 7"),
    ],
)
def test_sizes_of_a_surface_that_cannot_be(settings, expected):
    with pytest.raises(ValueError, match=expected):
        tanh_surface(**settings)


def bound_and_range(task):
    """Theorem 6.1 for N = 2000 points and a student that is the teacher, and what is trivial."""
    u, _, y = task.sample(50)
    delta = task.latent.radius(2000, 0.05)
    problem = Problem(task.target, "squared_error", [(u, y)])
    largest = (jacobian_norms(problem).values + local_variation_upper(problem, delta)).max()
    y = task.sample(500)[2]
    return delta * (lipschitz_global(problem) + largest.item()), (y.max() - y.min()).item()


def test_only_a_regularised_decoder_of_digits_is_smooth_enough():
    bound, trivial = bound_and_range(digits_decoder())
    assert bound < trivial
    assert 1.5 < trivial < 2.5
    free = digits_decoder(weight_decay=1e-4, teacher_decay=3e-3, steps=400)
    bound, trivial = bound_and_range(free)
    assert bound > 2 * trivial


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"dimension": 0}, "expected dimension of at least 1, got 0"),
        ({"steps": 0}, "expected steps of at least 1, got 0"),
        ({"weight_decay": -1.0}, "expected weight_decay >= 0, got -1"),
        ({"teacher_decay": -1.0}, "expected teacher_decay >= 0, got -1"),
    ],
)
def test_decoders_that_cannot_be(settings, expected):
    with pytest.raises(ValueError, match=expected):
        digits_decoder(**settings)


def test_sine_implicit():
    task = sine_implicit(digit=3, height=0.5)
    u, x, _ = task.sample(50)
    weights = [parameter.detach() for parameter in task.generator.parameters()]
    first, second = ((lambda z, i=i: torch.sin(z @ weights[i].T + weights[i + 1])) for i in (0, 2))
    value = second(first(u)) @ weights[4].T + weights[5]
    torch.testing.assert_close(x, torch.cat([u, 0.5 * value], 1))
    images, labels = digits(1796, centred=False, lowest=0.0).train
    image = images[labels == 3].mean(0).double()
    row, column = torch.arange(64) // 8, torch.arange(64) % 8
    learned = task.generator((torch.stack([row, column], 1).double() + 0.5) / 8)[:, 2] / 0.5
    assert (learned - image).square().mean() < 0.4 * image.var()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"digit": 10}, "expected a digit from 0 to 9, got 10"),
        ({"frequency": 0.0}, "expected frequency > 0, got 0"),
        ({"height": 0.0}, "expected height > 0, got 0"),
        ({"weight_decay": -1.0}, "expected weight_decay >= 0, got -1"),
        ({"steps": 0}, "expected steps of at least 1, got 0"),
    ],
)
def test_implicit_functions_that_cannot_be(settings, expected):
    with pytest.raises(ValueError, match=expected):
        sine_implicit(**settings)


def energy_distance(x, y):
    """Zero for samples of one distribution."""
    return 2 * torch.cdist(x, y).mean() - torch.cdist(x, x).mean() - torch.cdist(y, y).mean()


def test_spectral_gan():
    images = digits(1796).train[0].double()
    raw, trained = (spectral_gan(steps=steps, scale=5.0) for steps in (1, 100))
    distances = [energy_distance(task.sample(300)[1], images) for task in (raw, trained)]
    assert distances[1] < distances[0] / 3
    first, _, last = trained.generator
    assert not hasattr(first, "parametrizations")
    norms = [torch.linalg.matrix_norm(layer.weight, 2).item() for layer in (first, last)]
    assert norms == pytest.approx([1, 5], rel=0.05)
    assert trained.lipschitz(20)["generator"].max[1] < 1.0001 * norms[0] * norms[1]


def test_a_gan_with_truncated_normal_latents():
    latent = Gaussian(3, cut=2.5)
    u, x, _ = spectral_gan(latent, steps=1).sample(20)
    assert u.shape == (20, 3)
    assert x.shape == (20, 64)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"scale": 0.0}, "expected scale > 0, got 0"),
        ({"teacher_decay": -1.0}, "expected teacher_decay >= 0, got -1"),
        ({"steps": 0}, "expected steps of at least 1, got 0"),
    ],
)
def test_gans_that_cannot_be(settings, expected):
    with pytest.raises(ValueError, match=expected):
        spectral_gan(**settings)


def error(model, x, y):
    with torch.no_grad():
        return (model(x) - y).abs().max().item()


def test_a_student_fits_as_well_as_it_is_asked_to():
    _, x, y = tanh_surface().sample(200)
    rough, fine = (student(x, y, fit=fit) for fit in (1e-2, 1e-4))
    assert error(fine, x, y) <= 1e-4 < error(rough, x, y) <= 1e-2
    again = student(x, y, fit=1e-2)
    assert torch.equal(rough(x), again(x))
    assert all(parameter.grad is None for parameter in rough.parameters())


def test_more_outputs_than_one_are_fitted():
    u, x, _ = tanh_surface(seed=2).sample(100)
    model = student(x, torch.cat([u, 1 - u], 1), fit=0.01)
    assert (model(x) - torch.cat([u, 1 - u], 1)).norm(dim=1).max() <= 0.01


def test_a_student_without_steps_does_not_fit():
    _, x, y = tanh_surface().sample(200)
    assert error(student(x, y, steps=0), x, y) > 0.1
