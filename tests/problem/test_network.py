"""The copy of a model, and copies of the copy."""

import pytest
import torch
from torch import nn

from lossgeom.problem.network import Network

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_parameters_have_one_memory_also_in_a_copy_of_a_copy(dtype):
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    first = Network.of(model)
    again = Network.of(first.module, dtype=dtype)
    for network in (first, again):
        memory = {p.untyped_storage().data_ptr() for p in network.module.parameters()}
        assert memory == {network.theta.untyped_storage().data_ptr()}
    assert again.theta.dtype == dtype
    assert torch.equal(first.theta.to(dtype), again.theta)
