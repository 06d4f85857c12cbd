"""The structure of layers as parts of a measurement."""

import re

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.metrics import Structure


@pytest.mark.quick
def test_more_outputs_than_backward_passes_are_noted_before_anything_is_measured():
    data = [(torch.ones(1, 1), torch.ones(1, 2049))]
    problem = lg.Problem(nn.Linear(1, 2049), "squared_error", data)
    assert list(Structure().parts(problem)) == []
    (note,) = (note for note in problem.notes if note.startswith("the structure of layers is not"))
    assert re.search(r"at most 2048 outputs .* got 2049; .*layer_eigenpairs", note)


@pytest.mark.usefixtures("unchecked")
def test_k_is_a_whole_number():
    with pytest.raises(TypeError, match=r"expected k to be a whole number, got 2\.5"):
        Structure(k=2.5)
