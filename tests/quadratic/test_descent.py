"""Gradient descent of (z, J) and of theta."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lossgeom.quadratic import (
    Dense,
    Descent,
    Implicit,
    ImplicitModel,
    QuadraticModel,
    descend,
    descend_parameters,
    random_models,
    residuals,
    squared_error,
)
from tests.quadratic.models import double, low_rank_model, normal, random_model

SLOW = Descent(steps=40, learning_rate=0.05, every=7)


def by_autograd(model, descent):
    """Residuals after every step of torch's own optimiser, run by run."""
    paths = []
    for r in range(model.runs):
        one = model.rows(slice(r, r + 1))
        theta = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
        sgd = torch.optim.SGD([theta], lr=descent.learning_rate, momentum=descent.momentum)
        path = [one.at(theta).z.detach()]
        for _ in range(descent.steps):
            sgd.zero_grad()
            descent.loss(one.at(theta).z).sum().backward()
            sgd.step()
            path.append(one.at(theta).z.detach())
        paths.append(torch.stack(path))
    return torch.cat(paths, 1)


def logistic(z):
    """Cross-entropy of three logits against a fixed class."""
    return F.cross_entropy(z, torch.zeros(len(z), dtype=torch.long), reduction="none")


@pytest.mark.parametrize("momentum", [0.0, 0.7])
@pytest.mark.parametrize("loss", [squared_error, logistic])
@pytest.mark.parametrize("make", [random_model, low_rank_model])
@pytest.mark.parametrize("own", [False, True])
def test_as_torch_descends(make, own, loss, momentum):
    model = make(own=own)
    descent = Descent(
        steps=40, learning_rate=0.02, momentum=momentum, loss=loss, every=1,
        observe={"z": residuals},
    )  # fmt: skip
    expected = by_autograd(model, descent)
    for found in (descend(model, descent), descend_parameters(model, descent)):
        assert not found.diverged.any()
        torch.testing.assert_close(found.recorded["z"], expected, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(found.final["z"], expected[-1], rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(found.losses[-1], loss(expected[-1]), rtol=1e-12, atol=1e-14)


@pytest.mark.quick
def test_a_step_by_hand():
    Q = torch.zeros(2, 3, 3, dtype=torch.float64)
    Q[0] = torch.diag(double(1, -1, 0))
    Q[1, 0, 1] = Q[1, 1, 0] = 0.5
    Q[1, 2, 2] = 2
    J = double(1, 0.5, 0, 0, 0.3, 0.4).view(1, 2, 3)
    found = descend(QuadraticModel(double(0.1, -0.2)[None], J, Dense(Q)), Descent(steps=1))
    torch.testing.assert_close(found.final["z"][0], double(0.00995, -0.1591), rtol=0, atol=1e-16)
    expected = double(0.9, 0.49, 0, 0.005, 0.25, 0.56).view(2, 3)
    torch.testing.assert_close(found.final["J"][0], expected, rtol=0, atol=1e-15)
    torch.testing.assert_close(found.ntk[:, 0], double(1.272015, 1.073237), rtol=0, atol=5e-7)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.001, 0.1), st.sampled_from([0.0, 0.5]))
def test_units(seed, learning_rate, momentum):
    """In rescaled units the same run: z times the learning rate, curvature too."""
    model = random_model(R=2, seed=seed)
    descent = Descent(20, learning_rate, momentum, every=5, bound=1e3)
    found = descend(model, descent)
    rescaled = descend(
        model.rescaled(learning_rate),
        replace(descent, learning_rate=1.0, bound=1e3 * learning_rate),
    )
    assert torch.equal(found.diverged_at, rescaled.diverged_at)
    torch.testing.assert_close(
        found.ntk * learning_rate, rescaled.ntk, rtol=1e-9, atol=1e-12, equal_nan=True
    )
    torch.testing.assert_close(
        found.losses * learning_rate**2, rescaled.losses, rtol=1e-9, atol=1e-12, equal_nan=True
    )


@pytest.mark.quick
def test_low_rank_and_implicit_as_dense():
    model = low_rank_model()
    dense = model.Q.dense()
    others = [dense, Implicit(lambda s: torch.einsum("aij,rj->rai", dense.Q, s), (3, 4))]
    expected = descend(model, SLOW)
    for Q in others:
        found = descend(QuadraticModel(model.y, model.G, Q), SLOW)
        torch.testing.assert_close(found.final["z"], expected.final["z"], rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(found.final["J"], expected.final["J"], rtol=1e-12, atol=1e-14)


def test_a_function_of_the_parameters():
    """A model that is no tensor, with momentum, beside the recursion."""
    model = random_model(R=1)
    function = ImplicitModel(lambda theta: model.at(theta).z, torch.zeros(1, 4).double())
    descent = replace(SLOW, momentum=0.5, every=10)
    found, expected = descend_parameters(function, descent), descend(model, descent)
    torch.testing.assert_close(found.losses, expected.losses)
    torch.testing.assert_close(found.ntk, expected.ntk, rtol=1e-5, atol=0)
    torch.testing.assert_close(model.at(found.final["theta"]).J, expected.final["J"])


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_chunks_change_nothing(own, chunk):
    model = random_model(R=5, own=own)
    expected, found = descend(model, SLOW), descend(model, replace(SLOW, chunk=chunk))
    for name, values in expected.recorded.items():
        torch.testing.assert_close(found.recorded[name], values, rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(found.final["J"], expected.final["J"], rtol=1e-13, atol=1e-15)


def test_what_is_recorded():
    found = descend(random_model(), replace(SLOW, steps=20))
    assert found.steps.tolist() == [0, 7, 14, 20]
    assert found.ntk.shape == found.losses.shape == (4, 5)
    assert descend(random_model(), Descent(steps=3, learning_rate=0.01)).steps.tolist() == [0, 3]
    still = descend(random_model(), Descent(steps=0))
    assert still.steps.tolist() == [0]
    assert torch.equal(still.final["z"], random_model().y)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_edge_with_momentum(momentum):
    """Without curvature of the model, steps are stable below 2 (1 + beta) / lr and not above."""
    descent = Descent(steps=3000, learning_rate=0.1, momentum=momentum)
    curvature = descent.edge * double(0.99, 1.01)
    flat = Dense(torch.zeros(1, 1, 1, dtype=torch.float64))
    model = QuadraticModel(double(1, 1)[:, None], curvature.sqrt()[:, None, None], flat)
    found = descend(model, descent)
    torch.testing.assert_close(found.ntk[0], curvature)
    assert found.diverged.tolist() == [False, True]
    assert found.losses[-1, 0] < 0.1


def test_random_models_do_not_depend_on_chunks(unchecked):
    models = random_models(9, 4, 6, a=0.3, initial_curvature=1.0, seed=3)
    whole, some = models.rows(slice(9)), models.rows(torch.tensor([7, 2]))
    assert torch.equal(whole.y[[7, 2]], some.y)
    assert torch.equal(whole.Q.Q[[7, 2]], some.Q.Q)
    more = random_models(20, 4, 6, a=0.3, initial_curvature=1.0, seed=3).rows(slice(9))
    assert torch.equal(whole.G, more.G)
    assert not torch.equal(
        whole.G, random_models(9, 4, 6, a=0.3, initial_curvature=1.0, seed=4).rows(slice(9)).G
    )
    state = torch.get_rng_state()
    descent = Descent(steps=50, every=10)
    expected, found = (descend(models, replace(descent, chunk=size)) for size in (9, 4))
    torch.testing.assert_close(found.ntk, expected.ntk, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(descend(whole, descent).ntk, expected.ntk, rtol=1e-12, atol=1e-14)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_law_of_random_models(unchecked):
    """Variances within 4 standard errors; Q symmetric, and rotations change nothing."""
    n, D, P = 4000, 2, 3
    models = random_models(n, D, P, a=0.7, initial_curvature=1.3).rows(slice(n))
    Q = models.Q.Q
    assert torch.equal(Q, Q.mT)
    rotated = torch.linalg.qr(normal(P, P))[0]
    for tensors, scale in (
        (models.y, 0.7 / (2 * D * P) ** 0.5),
        (models.G, 1.3**0.5 / (D**0.5 + P**0.5)),
        (Q[:, :, 0, 1], 1.0),
        (Q.diagonal(dim1=2, dim2=3), 2**0.5),
        ((rotated.T @ Q @ rotated)[:, :, 0, 2], 1.0),
    ):
        count = tensors.numel()
        assert abs(tensors.mean()) < 4 * scale / count**0.5
        assert abs(tensors.square().mean() / scale**2 - 1) < 4 * (2 / count) ** 0.5
    assert abs((Q[:, 0, 0, 1] * Q[:, 1, 0, 1]).mean()) < 4 / n**0.5


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"steps": -1}, "steps of at least 0"),
        ({"learning_rate": 0.0}, "learning_rate > 0"),
        ({"momentum": 1.0}, "momentum >= 0 and < 1"),
        ({"every": 0}, "every of at least 1"),
        ({"chunk": 0}, "chunk of at least 1"),
        ({"bound": -1.0}, r"bound > 0 and < 1e\+150"),
        ({"tol": 1e9}, "tol >= 0 and < 1e"),
        ({"observe": {"loss": residuals}}, "other names"),
    ],
)
def test_bad_settings(settings, text):
    with pytest.raises(ValueError, match=text):
        Descent(**{"steps": 1, **settings})


def test_the_recursion_needs_a_jacobian():
    with pytest.raises(TypeError, match="descend_parameters takes models without"):
        descend(ImplicitModel(lambda theta: theta, torch.zeros(1, 2)), Descent(steps=1))
