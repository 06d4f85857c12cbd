"""What every generated task must be; what single ones are is in tests/lab/test_generators.py."""

import dataclasses
import random

import numpy as np
import pytest
import torch

from lossgeom import Problem, jacobian_norms, lipschitz_local
from lossgeom.bounds import DeltaGood
from lossgeom.lab.generators import GENERATORS, ManifoldTask

N = 40
QUICK = {name: {"steps": 12} for name in ("digits_decoder", "sine_implicit", "spectral_gan")}


def made(name, **settings):
    """A task, with less training where there is some."""
    return GENERATORS[name](**QUICK.get(name, {}), **settings)


@pytest.fixture(scope="module", params=GENERATORS)
def task(request):
    return made(request.param)


def test_samples(task):
    assert isinstance(task, ManifoldTask)
    assert isinstance(task.latent, DeltaGood)
    u, x, y = task.sample(N, seed=3)
    assert u.shape == (N, task.latent.dimension)
    assert len(x) == N
    assert y.shape == (N, 1)
    assert {part.dtype for part in (u, x, y)} == {torch.float64}
    assert not y.requires_grad
    torch.testing.assert_close(task.target(u), y)
    again, other = task.sample(N, seed=3), task.sample(N, seed=4)
    assert all(map(torch.equal, (u, x, y), again))
    assert not torch.equal(u, other[0])


def test_the_teacher_varies_on_the_support(task):
    y = task.sample(500)[2]
    assert y.max() - y.min() > 0.1


def test_certified_constants_bound_all_differences(task):
    u, x, y = task.sample(300, seed=1)
    spread = dict(zip(("latent", "inputs", "targets"), map(torch.pdist, (u, x, y)), strict=True))
    constants = task.lipschitz(N)
    for name, (of, to) in {
        "generator": ("latent", "inputs"),
        "teacher": ("inputs", "targets"),
        "target": ("latent", "targets"),
    }.items():
        found, certified = constants[name].max
        assert 0 < found <= certified
        assert (spread[to] <= certified * spread[of] + 1e-12).all()


def test_its_target_is_certified_on_balls(task):
    u, _, y = task.sample(N)
    problem = Problem(task.target, "squared_error", [(u, y)])
    assert (jacobian_norms(problem).values <= lipschitz_local(problem, 0.05)).all()


@pytest.mark.parametrize("name", GENERATORS)
def test_the_seed_makes_the_task(name, unchecked):
    before = torch.get_rng_state(), random.getstate(), repr(np.random.get_state())
    task, again, other = made(name, seed=5), made(name, seed=5), made(name, seed=6)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), repr(np.random.get_state())) == before[1:]
    assert torch.equal(task.sample(N)[2], again.sample(N)[2])
    assert not torch.equal(task.sample(N)[2], other.sample(N)[2])


def test_is_frozen(task):
    with pytest.raises(dataclasses.FrozenInstanceError):
        task.latent = None


def test_is_documented():
    for make in GENERATORS.values():
        for part in ("Args:", "seed:", "Raises:"):
            assert part in make.__doc__
