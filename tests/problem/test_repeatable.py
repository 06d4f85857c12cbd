"""Loaders that give other data in every pass are refused where a problem is made."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

import lossgeom as lg
from lossgeom.problem import passes
from lossgeom.problem.passes import MULTIPLIER, weighed

X, Y = torch.arange(48.0).view(12, 4).sin(), torch.arange(12) % 3


MODEL = nn.Linear(4, 3)


def problem(batches):
    return lg.Problem(MODEL, "cross_entropy", batches)


class Own(Dataset):
    """Examples with noise from a generator."""

    def __init__(self, noise):
        self.noise, self.read = noise, 0

    def __len__(self):
        return 12

    def __getitem__(self, i):
        self.read += 1
        return X[i] + self.noise(), Y[i]


class Stream(IterableDataset):
    def __init__(self, noise):
        self.noise, self.read = noise, 0

    def __iter__(self):
        for x, y in zip(X, Y, strict=True):
            self.read += 1
            yield x + self.noise(), y


class Order:
    """A sampler that shuffles by itself."""

    def __init__(self, shuffle):
        self.shuffle = shuffle

    def __len__(self):
        return 12

    def __iter__(self):
        indices = list(range(12))
        self.shuffle(indices)
        return iter(indices)


class Pairs:
    def __init__(self, noise):
        self.noise, self.read = noise, 0

    def __iter__(self):
        for i in range(0, 12, 4):
            self.read += 1
            yield X[i : i + 4] + self.noise(), Y[i : i + 4]


def none():
    return 0.0


def seeded():
    """From the generators that every pass finds in the same state."""
    return torch.rand(1).item() + np.random.rand() + random.random()


def unseeded():
    return float(np.random.default_rng().random())


def loaders(noise):
    return {
        "examples": DataLoader(Own(noise), batch_size=5, shuffle=True),
        "without batches": DataLoader(
            [(X[:6] + 0.0, Y[:6]), (X[6:], Y[6:])] if noise is none else Single(noise),
            batch_size=None,
        ),
        "stream": DataLoader(Stream(noise), batch_size=5),
        "stream of batches": Pairs(noise),
        "order": DataLoader(
            TensorDataset(X, Y),
            batch_size=5,
            sampler=Order(
                {
                    none: lambda indices: None,
                    seeded: random.shuffle,
                    unseeded: np.random.default_rng(0).shuffle,
                }[noise]
            ),
        ),
    }


class Single(Own):
    """Whole batches as examples."""

    def __len__(self):
        return 2

    def __getitem__(self, i):
        return X[6 * i : 6 * i + 6] + self.noise(), Y[6 * i : 6 * i + 6]


@pytest.mark.parametrize("kind", list(loaders(none)))
def test_other_data_in_every_pass(kind):
    with pytest.raises(ValueError, match=r"(every pass|each time it is read), so there is no one"):
        problem(loaders(unseeded)[kind])


@pytest.mark.parametrize("noise", [none, seeded])
@pytest.mark.parametrize("kind", list(loaders(none)))
def test_the_same_data_in_every_pass(noise, kind, unchecked):
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    made = problem(loaders(noise)[kind])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]
    assert torch.equal(made.gradient(), made.gradient())


def test_shuffling_by_torch_goes_on_where_it_was():
    for generator in (None, torch.Generator().manual_seed(3)):
        for data in (TensorDataset(X, Y), Subset(TensorDataset(X, Y), range(8)), Own(none)):
            loader = DataLoader(data, batch_size=5, shuffle=True, generator=generator)
            state = None if generator is None else generator.get_state()
            made = problem(loader)
            assert torch.equal(made.gradient(), made.gradient())
            assert generator is None or torch.equal(generator.get_state(), state)


def test_little_is_read():
    data, stream, batches = Own(none), Stream(none), Pairs(none)
    problem(DataLoader(data, batch_size=5))
    problem(DataLoader(stream, batch_size=5))
    problem(batches)
    assert (data.read, stream.read, batches.read) == (2, 10, 2)
    problem(DataLoader(data, batch_size=5, num_workers=2))  # which is not started, nor read here
    assert data.read == 2


class Iterating(IterableDataset):
    def __init__(self):
        self.left = list(zip(X, Y, strict=True))

    def __iter__(self):
        return self

    def __next__(self):
        return self.left.pop()


class OneIterator:
    def __init__(self, iterator):
        self.iterator = iterator

    def __iter__(self):
        return self.iterator


def test_what_is_used_up_is_not_touched():
    stream = Iterating()
    with pytest.raises(TypeError, match="DataLoader with a Iterating, which is used up after one"):
        problem(DataLoader(stream, batch_size=5))
    assert len(stream.left) == 12
    batches = iter([(X, Y)])
    with pytest.raises(TypeError, match="OneIterator with one iterator, which is used up"):
        problem(OneIterator(batches))
    assert len(list(batches)) == 1
    indices = iter([[0, 1], [2, 3]])
    with pytest.raises(TypeError, match="DataLoader with a list_iterator, which is used up"):
        problem(DataLoader(TensorDataset(X, Y), batch_sampler=indices))
    assert len(list(indices)) == 2


def test_bytes_are_weighed_by_their_places():
    """What stands for a hash on a GPU: in words, and another number where two bytes change."""

    def signed(number):
        return (number + 2**63) % 2**64 - 2**63

    total = 0
    numbers = torch.arange(3000).remainder(251).to(torch.uint8)
    for place, number in enumerate(numbers.tolist(), 1):
        weight = signed(place * MULTIPLIER)
        weight = signed((weight ^ (weight >> 29)) * MULTIPLIER)
        total += number * ((weight ^ (weight >> 32)) | 1)
    assert weighed(numbers) == total % 2**64
    swapped = numbers.clone()
    swapped[[7, 2000]] = numbers[[2000, 7]]
    assert weighed(swapped) != weighed(numbers)


def test_bytes_are_weighed_a_piece_at_a_time(monkeypatch):
    numbers = torch.arange(1000).remainder(256).to(torch.uint8)
    whole = weighed(numbers)
    monkeypatch.setattr(passes, "PIECE", 300)
    assert weighed(numbers) == whole
