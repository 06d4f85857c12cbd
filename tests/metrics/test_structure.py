"""The structure of layers as parts of a measurement."""

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.metrics import Structure


@pytest.mark.quick
def test_more_outputs_than_backward_passes_are_refused_before_anything_is_measured():
    data = [(torch.ones(1, 1), torch.ones(1, 2049))]
    problem = lg.Problem(nn.Linear(1, 2049), "squared_error", data)
    with pytest.raises(ValueError, match=r"at most 2048 outputs .* got 2049; .*layer_eigenpairs"):
        list(Structure().parts(problem))
