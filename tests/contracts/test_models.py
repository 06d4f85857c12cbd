"""What holds of every model of the lab."""

import inspect

import pytest
import torch
from torch import nn

from lossgeom.lab.models import MODELS


@pytest.fixture(params=MODELS)
def model(request):
    """Makes it from a seed, and from the numbers of inputs and outputs if it asks for them."""
    made = MODELS[request.param]
    sizes = {"inputs": 12, "outputs": 3}
    asked = {name: sizes[name] for name in sizes if name in inspect.signature(made).parameters}
    return lambda seed: made(**asked, seed=seed)


def test_its_parameters_are_those_of_its_seed(model):
    state = torch.get_rng_state()
    first, again, other = model(1), model(1), model(2)
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(first, nn.Module)
    pairs = list(zip(first.parameters(), again.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    pairs = zip(first.parameters(), other.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", MODELS)
def test_its_first_sentence_says_what_it_is(name):
    """For ``lossgeom list``."""
    assert MODELS[name].__doc__.strip().split("\n")[0].endswith(".")
