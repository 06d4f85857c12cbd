"""Runs that end: by divergence, by convergence, or before they start."""

from dataclasses import replace

import pytest
import torch

from lossgeom.quadratic import (
    Dense,
    Descent,
    QuadraticModel,
    descend,
    descend_parameters,
)
from tests.quadratic.models import double, normal, random_model


@pytest.mark.parametrize("loop", [descend, descend_parameters])
@pytest.mark.parametrize("own", [False, True])
def test_divergence_is_recorded_and_harms_no_other(loop, own):
    model = random_model(R=6, own=own)
    y = model.y.clone()
    y[[1, 4]] *= 1e4
    wild = QuadraticModel(y, model.G, model.Q)
    descent = Descent(steps=12, learning_rate=0.02, every=1)
    found, calm = loop(wild, descent), loop(model, descent)
    assert found.diverged.tolist() == [False, True, False, False, True, False]
    others = ~found.diverged
    for name in ("loss", "ntk"):
        torch.testing.assert_close(
            found.recorded[name][:, others], calm.recorded[name][:, others], rtol=1e-12, atol=1e-14
        )
    for run in (1, 4):
        step = int(found.diverged_at[run])
        assert 0 < step <= 12
        assert found.losses[step:, run].isnan().all()
        assert (2 * found.losses[:step, run] <= 1e12).all()
        alone = loop(wild.rows(slice(run, run + 1)), replace(descent, bound=1e140, steps=step))
        norms = (2 * alone.losses[:, 0]).sqrt()
        assert (norms[:step] <= 1e6).all()
        assert not norms[step] <= 1e6
        torch.testing.assert_close(found.final["z"][run], alone.final["z"][0])


def test_divergence_to_infinity_and_of_all():
    model = random_model()
    huge = QuadraticModel(1e145 * model.y, model.G, model.Q)
    found = descend(huge, Descent(steps=10, learning_rate=1e12, bound=1e149))
    assert (found.diverged_at == 1).all()
    assert not found.final["z"].isfinite().all()
    at_once = descend(huge, Descent(steps=10))
    assert (at_once.diverged_at == 0).all()
    assert at_once.losses.isnan().all()
    some = QuadraticModel(model.y * double(1, 1e9, 1, 1, 1)[:, None], model.G, model.Q)
    found = descend(some, Descent(steps=4, learning_rate=0.01, every=2, chunk=1))
    assert found.diverged_at.tolist() == [-1, 0, -1, -1, -1]
    assert found.ntk[:, 1].isnan().all()
    assert found.ntk[:, [0, 2, 3, 4]].isfinite().all()


def test_convergence_stops_a_run():
    model = QuadraticModel(double(0.1, 1e-3)[:, None], normal(2, 1, 4) / 4, random_model(D=1).Q)
    descent = Descent(steps=4000, every=50, tol=1e-6, learning_rate=0.5)
    found = descend(model, descent)
    assert found.converged.all()
    assert (found.final["z"].abs() <= 1e-6).all()
    free = descend(model, replace(descent, tol=0.0, every=1))
    for run in range(2):
        step = int(found.converged_at[run])
        sizes = (2 * free.losses[:, run]).sqrt()
        assert sizes[step] <= 1e-6 < sizes[step - 1]
        later = found.steps >= step
        torch.testing.assert_close(
            found.ntk[later, run], free.ntk[step, run].expand(int(later.sum()))
        )


@pytest.mark.parametrize("loop", [descend, descend_parameters])
def test_a_run_that_rushes_through_the_minimum_has_not_converged(loop):
    """With momentum, small residuals are no rest: the wave that follows must be small, too."""
    flat = Dense(torch.zeros(1, 1, 1, dtype=torch.float64))
    z, J = torch.linspace(0.5, 2, 40).double(), torch.full((40, 1, 1), 0.3).double()
    model = QuadraticModel(z[:, None], J, flat)
    descent = Descent(3000, 0.5, 0.9, tol=2e-3)
    found = loop(model, descent)
    assert found.converged.all()
    free = descend(model, replace(descent, steps=400, tol=0.0, every=1))
    sizes = (2 * free.losses).sqrt()
    first = (sizes <= 2e-3).double().argmax(0)
    assert (found.converged_at > first + 5).any()
    for run in range(40):
        assert sizes[found.converged_at[run] :, run].max() <= 3 * 2e-3
    rest = QuadraticModel(0 * z[:, None], J, flat)
    assert (loop(rest, descent).converged_at == 0).all()


def test_observables_that_count():
    """Whole numbers and truth values are recorded, too; NaN after divergence."""
    model = random_model()
    wild = QuadraticModel(model.y * double(1, 1e9, 1, 1, 1)[:, None], model.G, model.Q)
    look = {"signs": lambda p: (p.z > 0).sum(1), "large": lambda p: p.z.norm(dim=1) > 1}
    found = descend(wild, Descent(2, 0.01, observe=look))
    torch.testing.assert_close(found.recorded["signs"][0, 0], (model.y[0] > 0).sum().double())
    assert found.recorded["large"][:, 1].isnan().all()


def test_a_kernel_that_overflows_is_recorded():
    """And the runs beside it go on."""
    model = random_model()
    huge = QuadraticModel(model.y, model.G * double(1, 1, 1e170, 1, 1)[:, None, None], model.Q)
    found = descend(huge, Descent(2, 0.01, every=1))
    assert found.diverged.tolist() == [False, False, True, False, False]
    assert found.ntk.isfinite().all(0).tolist() == [True, True, False, True, True]


@pytest.mark.parametrize("loop", [descend, descend_parameters])
def test_no_runs(loop):
    with pytest.raises(ValueError, match="runs of at least 1, got 0"):
        loop(random_model().rows(slice(0)), Descent(1))
