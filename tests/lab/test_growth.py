"""What keeps the curvature from growing as the Jacobian norm does, of numbers and of a network."""

import math
from collections import ChainMap

import pytest
import torch
from torch import nn

from lossgeom import Problem, Record, jacobian_norms
from lossgeom.lab.studies._growth import (
    FIRST,
    LAST,
    PARTS,
    along,
    exponent,
    grown,
    numbers,
    of_layer,
    of_part,
    share,
    shortfall,
)
from lossgeom.lab.studies._solution import JACOBIAN_MAX, mediators
from lossgeom.lab.studies._study import SeedRecords

BEFORE = {JACOBIAN_MAX.name: 1.0, "root": 1.0}
BEFORE |= {
    f"{name}_{layer}": 1.0 for name in ("tail_jacobian", "layer_jacobian") for layer in (1, 2)
}
BEFORE |= {"summand_1": 1.0, "summand_2": 3.0}


def test_the_terms_of_a_shortfall():
    """|J| is 8 times as large, T_1 4 and T_2 as before, D_1 half, C a fourth; a_2 is 2 times."""
    after = {**BEFORE, JACOBIAN_MAX.name: 8.0, "root": 0.25, "tail_jacobian_1": 4.0}
    after |= {"layer_jacobian_1": 0.5, "summand_1": 0.25, "summand_2": 0.375}
    found = shortfall(BEFORE, after)
    weights = {1: (0.25 + 0.4) / 2, 2: (0.75 + 0.6) / 2}
    powers = {1: (2, 2, 4, 0), 2: (6, 0, 4, -1)}  # of 2
    assert list(found) == [(part, layer) for layer in (1, 2) for part in PARTS]
    for layer, of in powers.items():
        terms = [found[part, layer] / math.log(2) for part in PARTS]
        assert terms == pytest.approx([weights[layer] * power for power in of])
    whole = sum(weights[layer] * sum(of) for layer, of in powers.items())
    root = share(of_part(found, "root"), found)
    assert root == pytest.approx(4 / whole)
    assert share(of_layer(found, 2), found) == pytest.approx(weights[2] * 9 / whole)


def test_what_is_not_known():
    """Nothing was measured, or a number has vanished, or nothing falls short."""
    assert shortfall({}, {}) == {}
    assert math.isnan(share({}, {}))
    for after in ({}, {**BEFORE, "root": 0.0}):
        assert math.isnan(sum(shortfall(BEFORE, after).values()))
    assert math.isnan(share(shortfall(BEFORE, BEFORE), shortfall(BEFORE, BEFORE)))
    assert math.isnan(grown({"a": 0.0}, {"a": 1.0}, "a"))
    assert math.isnan(exponent(1.0, -1.0))


def test_numbers_of_a_record(tmp_path):
    record = Record.create(tmp_path / "run", {})
    for step, value in enumerate((2.0, 5.0, 3.0)):
        record.append({"step": step, "metric": "a", "value": value})
    record.finish()
    other = Record.create(tmp_path / "other", {})
    other.append({"step": 0, "metric": "a", "value": 2.0})
    other.finish("diverged")
    seed = SeedRecords(0, None, {("run",): record, ("other",): other})
    found = [numbers(seed, of, "run") for of in (FIRST, LAST, max)]
    assert found == [{"a": 2}, {"a": 3}, {"a": 5}]
    assert along(seed, "a", "run", end=max) == pytest.approx(math.log(2.5))
    assert numbers(seed, LAST, "other") == {}


def test_the_shortfall_of_a_network():
    """The last of two linear layers times 3: J and T_1 are, D_2 and C are as before."""
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False)).double()
    x = torch.randn(5, 3, dtype=torch.float64)
    found = []
    for _ in range(2):
        problem = Problem(model, "squared_error", [(x, torch.zeros(5, 2, dtype=torch.float64))])
        norm = jacobian_norms(problem).max
        found.append(dict(ChainMap(*mediators(problem, seed=0), {JACOBIAN_MAX.name: norm})))
        with torch.no_grad():
            model[1].weight *= 3
    before, after = found
    assert grown(before, after, "summand_1") == pytest.approx(2 * math.log(3), rel=1e-3)
    terms = shortfall(before, after)
    weight = sum(at["summand_2"] / (at["summand_1"] + at["summand_2"]) for at in found) / 2
    assert terms["tail", 2] == pytest.approx(weight * 2 * math.log(3), rel=1e-3)
    assert sum(terms.values()) == pytest.approx(terms["tail", 2], rel=1e-3)
