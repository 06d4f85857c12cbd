"""What every data set must be; what single ones hold is in tests/lab/test_lab.py."""

import dataclasses
import random
import sys

import numpy as np
import pytest
import torch

from lossgeom.lab.datasets import DATASETS
from lossgeom.lab.datasets._dataset import Dataset
from tests.lab.files import FakeDatasets, write_cifar10, write_cifar100, write_images
from tests.lab.test_lab import write_mnist

EXAMPLES = 40
FILES = {  # for those that read any
    "cifar10": lambda folder: write_cifar10(folder, images=12),
    "cifar100": lambda folder: write_cifar100(folder, images=60),
    "mnist": lambda folder: write_mnist(folder, images=60),
    "fashion_mnist": lambda folder: write_mnist(folder, images=60),
    "hugging_face": lambda folder: write_images(folder, images=60),
}
DRAWN = ("two_moons", "random_labels", "chebyshev", "manifold")  # as many as are asked for


@pytest.fixture(params=DATASETS)
def make(request, tmp_path, monkeypatch):
    """A data set by its seed, from small files where it reads some."""
    settings = {}
    if request.param == "hugging_face":
        monkeypatch.setitem(sys.modules, "datasets", FakeDatasets)
    if request.param in FILES:
        settings = {"folder": tmp_path / "data"}
        FILES[request.param](settings["folder"])

    def made(seed=0, examples=EXAMPLES, **options):
        return DATASETS[request.param](examples, seed, **settings, **options)

    made.drawn = request.param in DRAWN
    return made


def rows(inputs):
    return [tensor.numpy().tobytes() for tensor in inputs]


def test_inputs_and_targets(make):
    data = make()
    assert isinstance(data, Dataset)
    assert data.scaling
    (x, y), (test_x, test_y) = data.train, data.test
    assert len(x) == len(y) == EXAMPLES
    assert len(test_x) == len(test_y) > 0
    assert x.shape[1:] == test_x.shape[1:]
    for inputs, targets in (data.train, data.test):
        assert inputs.dtype == torch.float32
        assert inputs.isfinite().all()
        if data.classes:
            assert targets.dtype == torch.int64
            assert targets.ndim == 1
            assert 0 <= targets.min() <= targets.max() < data.classes
        else:
            assert targets.dtype == torch.float32
            assert targets.shape == (len(inputs), 1)


def test_factors_on_inputs_and_targets(make):
    plain = make(seed=1)
    targets = "signs" if plain.classes else "labels"
    scaled = make(seed=1, input_scale=0.5, target_scale=3.0, targets=targets)
    assert "times 0.5; targets times 3" in scaled.scaling
    for part in ("train", "test"):
        (x, y), (half, thrice) = getattr(plain, part), getattr(scaled, part)
        assert torch.equal(half, x / 2)
        y = 1.0 - 2 * (y[:, None] % 2) if plain.classes else y
        assert torch.equal(thrice, 3 * y)


def test_scaling_is_that_of_the_examples_to_train_on(make):
    data = make()
    x = data.train[0].double()
    assert x.mean().abs() < 1e-5 or not data.classes
    assert 0.1 < x.std() < 10


def test_the_seed_chooses_the_examples(make):
    data, again, other = make(seed=3), make(seed=3), make(seed=4)
    for part in ("train", "test"):
        for tensor, same in zip(getattr(data, part), getattr(again, part), strict=True):
            assert torch.equal(tensor, same)
    assert not torch.equal(data.train[0], other.train[0])


def test_no_example_is_in_both_parts(make):
    data = make()
    train = rows(data.train[0])
    assert len(set(train)) == len(train)
    assert not set(train) & set(rows(data.test[0]))


def test_leaves_the_global_random_state_alone(make, unchecked):
    before = torch.get_rng_state(), random.getstate(), repr(np.random.get_state())
    make(seed=5)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), repr(np.random.get_state())) == before[1:]


def test_is_frozen(make):
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().classes = 3


@pytest.mark.parametrize("examples", [0, 10**6])
def test_as_many_examples_as_there_are(make, examples):
    if not (make.drawn and examples):
        with pytest.raises(ValueError, match=f"expected .* to train on, got {examples}"):
            make(examples=examples)


def test_is_documented():
    for dataset in DATASETS.values():
        for part in ("Scaling:", "Args:", "seed:", "Raises:", "Source:"):
            assert part in dataset.__doc__
