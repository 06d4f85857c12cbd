"""Densities and eigenvalues: what the lines and marks of a figure are."""

import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import lossgeom as lg

pytestmark = pytest.mark.quick
Q = torch.linalg.qr(torch.randn(200, 200, generator=torch.Generator().manual_seed(0)))[0]
B = (Q * torch.cat([torch.linspace(-1.0, 1.0, 198), torch.tensor([3.0, 4.0])])) @ Q.T
A = (B + B.T) / 2


@pytest.fixture(scope="module")
def density():
    return lg.spectral_density(A, probes=3, steps=10)


@pytest.fixture(scope="module")
def pairs():
    return lg.top_eigenpairs(A, k=2)


def test_a_density_with_its_eigenvalues(density, pairs):
    (axis,) = lg.plot.density(density, eigenvalues=pairs, levels={"2/lr": 4.5}).axes
    curve, one, *marks, level = axis.lines
    np.testing.assert_allclose(curve.get_xdata(), density.grid)
    height = np.asarray(density.density)
    np.testing.assert_allclose(curve.get_ydata(), np.where(height > 0, height, np.nan))
    single = 1 / (200 * density.width * math.sqrt(2 * math.pi))
    assert one.get_ydata() == pytest.approx([single, single])
    assert [mark.get_xdata()[0] for mark in marks] == pytest.approx(pairs.values.tolist())
    assert level.get_xdata() == [4.5, 4.5]
    assert [text.get_text() for text in axis.texts] == ["one eigenvalue", "2/lr = 4.5"]
    assert axis.get_yscale() == "log"
    assert axis.get_ylim() == pytest.approx(
        (single / 10, 3 * (density.density + 1 * density.stderr).max().item())
    )
    assert len(axis.collections) == 1  # the band


def test_several_densities_keep_all_in_sight(density):
    narrow = density.on(width=density.width / 20)
    figure = lg.plot.density({"a": narrow, "b": density}, levels={"far": 99.0, "low": -99.0})
    (axis,) = figure.axes
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    low, high = axis.get_ylim()
    assert high > narrow.density.max()
    assert low < 1 / (200 * density.width * math.sqrt(2 * math.pi)) / 9
    words = [text.get_text() for text in axis.texts]
    heights = [text.get_position()[1] for text in axis.texts[1:]]
    assert heights[0] - heights[1] > 0.05
    assert words == [
        "one eigenvalue", "far = 99 is above this range", "low = -99 is below this range"
    ]  # fmt: skip


def test_what_has_not_converged_is_hollow(density):
    pairs = lg.top_eigenpairs(A, k=6, max_matvecs=16, verify=False)
    assert 0 < pairs.converged.sum() < 6
    (axis,) = lg.plot.spectrum(pairs).axes
    good, bad = axis.lines
    assert good.get_xdata().tolist() == (torch.nonzero(pairs.converged).flatten() + 1).tolist()
    np.testing.assert_allclose(bad.get_ydata(), pairs.values[~pairs.converged])
    assert (good.get_markerfacecolor() != "none", bad.get_markerfacecolor()) == (True, "none")
    bars = [bar[:, 1] for part in axis.collections for bar in part.get_segments()]
    lengths = sorted(float(high - low) / 2 for low, high in bars)
    assert lengths == pytest.approx(sorted(pairs.residuals.tolist()), rel=1e-2, abs=1e-6)
    marks = lg.plot.density(density, eigenvalues=pairs).axes[0].lines[2:]
    hollow = [mark.get_markerfacecolor() == "none" for mark in marks]
    assert hollow == (~pairs.converged).tolist()


def test_eigenvalues_by_name(pairs):
    figure = lg.plot.spectrum({"A": pairs, "$x$": [3.0, 2.0, 0.1], "B": torch.ones(2)})
    (axis,) = figure.axes
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["A", r"\$x\$", "B"]
    places = [
        line.get_xdata().round().astype(int).tolist()
        for line in axis.lines
        if len(line.get_xdata())
    ]
    assert places == [[1, 2], [1, 2, 3], [1, 2]]
    assert axis.get_yscale() == "log"
    assert lg.plot.spectrum([3.0, -1.0]).axes[0].get_yscale() == "linear"


def test_axes_of_ones_own(density, pairs):
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert lg.plot.density(density, ax=left) is figure
    assert lg.plot.spectrum({"a": pairs, "b": [1.0]}, ax=right) is figure
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["a", "b"]


def test_a_level_that_is_not_known(density):
    with pytest.raises(ValueError, match="expected levels that are numbers, got NaN for '2/lr'"):
        lg.plot.density(density, levels={"2/lr": math.nan})


def test_eigenvalues_of_no_density(density, pairs):
    for several, others in (({"a": density, "b": density}, pairs), (density, {"c": pairs})):
        with pytest.raises(ValueError, match="expected eigenvalues by the names of the densities"):
            lg.plot.density(several, eigenvalues=others)


def test_complex_eigenvalues():
    with pytest.raises(ValueError, match="expected real numbers to draw, got complex ones"):
        lg.plot.spectrum(torch.tensor([1.0 + 1.0j]))


@pytest.mark.parametrize("name", ["W" * 9, "x" * 14, "y" * 35, "a"])
def test_a_legend_is_within_its_figure(name):
    figure = lg.plot.spectrum({f"{name}{i}": [2.0, 1.0] for i in range(8)})
    figure.canvas.draw()
    assert figure.legends[0].get_window_extent().width <= figure.bbox.width
