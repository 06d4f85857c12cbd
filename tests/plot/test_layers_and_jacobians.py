"""Layers and Jacobians: what the points of a figure are."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

import lossgeom as lg
from lossgeom.estimate import Estimate

pytestmark = pytest.mark.quick


@pytest.fixture(scope="module")
def problem():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    x = torch.randn(8, 3)
    return lg.Problem(model, "squared_error", [(x, torch.randn(8, 2))])


def points(axis):
    """The places of all points, by the name of what they are."""
    found = {}
    for bars in axis.containers:
        line, name = bars.lines[0], bars.get_label().removeprefix("_")
        found.setdefault(name, []).append((line.get_xdata()[0], line.get_ydata()[0]))
    return found


def test_summands_and_what_they_are_made_of(problem):
    summands = lg.layer_summands(problem)
    mediators = {each.name: each.mediators() for each in summands}
    for given in (summands, mediators):
        (axis,) = lg.plot.layers(given).axes
        found = points(axis)
        assert list(found) == [
            "eigenvalue", "its bound C²T²D²", "T²: what follows the layer", "D²: the layer itself"
        ]  # fmt: skip
        for i, each in enumerate(mediators.values()):
            assert found["eigenvalue"][i] == pytest.approx((each.eigenvalue.value, i))
            bound = found["its bound C²T²D²"][i][0]
            assert each.eigenvalue.value / bound == pytest.approx(each.alignment)
            assert found["D²: the layer itself"][i][0] == pytest.approx(
                each.layer_jacobian.value**2
            )
        assert [label.get_text() for label in axis.get_yticklabels()] == list(mediators)
        assert axis.get_ylim()[0] > axis.get_ylim()[1]  # the first at the top


def test_a_factor_that_a_layer_does_not_have_is_left_out(problem):
    (first, *_) = lg.layer_summands(problem)
    without = replace(first, tail_jacobian=None)
    (axis,) = lg.plot.layers({"a": without, "b": first}).axes
    assert {name: len(of) for name, of in points(axis).items()} == {
        "eigenvalue": 2, "its bound C²T²D²": 1, "T²: what follows the layer": 1,
        "D²: the layer itself": 2,
    }  # fmt: skip


def test_blocks_and_their_decoupling(problem):
    found = lg.layer_structure(problem, 2, errors=False)
    (axis,) = lg.plot.layers(found).axes
    places = points(axis)
    assert places["block"] == [
        (each.eigenpairs.values[0].item(), i) for i, each in enumerate(found)
    ]
    assert places["decoupling"][1][0] == pytest.approx(found[1].decoupled.values[0].item())
    assert axis.get_xlabel() == "largest eigenvalue (loss / θ²)"


def test_a_layer_in_eight_panels(problem):
    (own, _) = lg.layer_structure(problem, 3, errors=False)
    figure = lg.plot.layers(own)
    assert len(figure.axes) == 8
    of_blocks, overlap = figure.axes[1:3]
    np.testing.assert_allclose(of_blocks.lines[0].get_ydata(), own.eigenpairs.values)
    np.testing.assert_allclose(overlap.lines[0].get_ydata(), own.overlap)
    theirs = Figure()
    left, right = theirs.subplots(1, 2)
    assert lg.plot.layers(own, ax=right) is theirs
    assert len(theirs.axes) == 9
    place = left.get_position().x1
    assert all(axis.get_position().x0 > place for axis in theirs.axes if axis is not left)
    with pytest.raises(ValueError, match=r"expected axes of figure\.subplots, whose place"):
        lg.plot.layers(own, ax=Figure().add_axes((0, 0, 1, 1)))


def test_parts_with_standard_errors():
    parts = {"a": lg.BlockSharpness(Estimate(2.0, stderr=0.5), 3, ("w",))}
    (axis,) = lg.plot.layers(parts).axes
    assert axis.get_xlabel() == "average sharpness (loss / θ²)"
    (bar,) = axis.collections[-1].get_segments()
    assert bar[:, 0].tolist() == [1.5, 2.5]


def test_what_is_no_layer(problem, unchecked):
    with pytest.raises(ValueError, match="expected some layers to draw, got none"):
        lg.plot.layers([])
    for wrong in ({"a": 2.0}, [2.0]):
        with pytest.raises(TypeError, match="expected layers of layer_summands, "):
            lg.plot.layers(wrong)


def test_norms_of_examples(problem):
    norms = lg.jacobian_norms(problem)
    (axis,) = lg.plot.jacobians(norms).axes
    curve, _, largest = (line for line in axis.lines)
    np.testing.assert_allclose(curve.get_xdata()[1:], norms.values.sort().values)
    assert curve.get_ydata().tolist() == [i / 8 for i in range(9)]
    assert largest.get_xdata()[0] == pytest.approx(norms.max)
    assert [text.get_text() for text in axis.texts] == [f"{norms.max:.3g}, example {norms.argmax}"]
    assert axis.get_ylim() == (0, 1.02)


def test_norms_with_errors_and_without_a_value():
    values = torch.tensor([3.0, math.nan, 1.0, math.inf], dtype=torch.float64)
    converged = torch.tensor([True, False, False, True])
    norms = lg.JacobianNorms(
        values, torch.tensor([0.5, 0.0, 0.0, 0.0]).double(), converged, "lanczos"
    )
    figure = lg.plot.jacobians({"a": norms, "b": norms})
    (axis,) = figure.axes
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["a, 2 not finite", "b, 2 not finite"]
    curve, doubtful, largest = (line for line in axis.lines[:3])
    assert curve.get_ydata().tolist() == [0.0, 0.25, 0.5]
    assert doubtful.get_xdata().tolist() == [1.0]
    assert largest.get_xdata().tolist() == [3.0]
    assert axis.texts[0].get_text() == "3, example 0"
    (bar,) = axis.collections[0].get_segments()
    assert bar[:, 0].tolist() == [2.5, 3.5]
    nothing = replace(norms, values=values * math.nan)
    assert lg.plot.jacobians(nothing).axes[0].texts[:] == []
