"""What a page draws is what the functions of a user draw."""

import importlib

import numpy as np
import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom import Record
from lossgeom.report import render
from lossgeom.report._source import read_sources

pytestmark = pytest.mark.quick


@pytest.fixture(scope="module")
def problem():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x = torch.randn(8, 3).double()
    return lg.Problem(model, "squared_error", [(x, torch.randn(8, 2).double())])


@pytest.fixture(scope="module")
def measured(problem, tmp_path_factory):
    geometry = lg.Geometry(k=3, matvecs=10, probes=2, steps=5)
    record = Record.create(tmp_path_factory.mktemp("a") / "measured", kind="measurement")
    lg.measure(problem, record, geometry, structure=lg.Structure(k=3))
    return record


def drawn(section, record, monkeypatch, tmp_path):
    """The last figure of a section."""
    module = importlib.import_module(f"lossgeom.report.sections.{section}")
    figures = []
    monkeypatch.setattr(module, "save", lambda figure, *_: figures.append(figure) or "")
    (source,) = read_sources([record.path])
    getattr(module, section)(source, tmp_path)
    return figures[-1]


def lines(axis):
    return [np.stack([line.get_xdata(), line.get_ydata()]).astype(float) for line in axis.lines]


def assert_same(axis, other):
    pairs = list(zip(lines(axis), lines(other), strict=True))
    assert pairs
    for of_page, of_user in pairs:
        np.testing.assert_allclose(of_page, of_user, rtol=1e-9)


def test_a_metric_along_a_run(pages_alone, monkeypatch, tmp_path):
    with Record.create(tmp_path / "run") as record:
        for step, value in enumerate([3.0, 3.5, 4.5]):
            row = {"step": step, "metric": "sharpness", "value": value, "threshold": 4.0}
            record.append({**row, "stderr": 0.1})
        record.finish()
    assert "Bars are standard errors, or residuals" in render([record.path]).read_text()
    page = drawn("trajectories", record, monkeypatch, tmp_path).axes[0]
    user = lg.plot.trajectory(record, "sharpness").axes[0]
    assert_same(page, user)
    assert len(page.collections) == len(user.collections) == 1  # the bars
    assert page.get_ylabel() == user.get_ylabel()


def test_a_spectral_density(problem, measured, monkeypatch, tmp_path):
    hessian = lg.Hessian(problem)
    density = lg.spectral_density(hessian, probes=2, steps=5)
    pairs = lg.top_eigenpairs(hessian, k=3, max_matvecs=100)
    page = drawn("density", measured, monkeypatch, tmp_path).axes[0]
    user = lg.plot.density(density, eigenvalues=pairs).axes[0]
    np.testing.assert_allclose(lines(page)[0], lines(user)[0], rtol=1e-9)
    assert len(page.lines) == len(user.lines) == 2 + 3


def test_eigenvalues(measured, monkeypatch, tmp_path):
    of = [
        measured.load_arrays(f"{name}_largest")[0]["values"] for name in ("hessian", "gauss_newton")
    ]
    page = drawn("eigenvalues", measured, monkeypatch, tmp_path).axes[0]
    user = lg.plot.spectrum(dict(zip("ab", of, strict=True))).axes[0]
    assert_same(page, user)


def test_the_structure_of_a_layer(problem, measured, monkeypatch, tmp_path):
    page = drawn("structure", measured, monkeypatch, tmp_path).axes
    user = lg.plot.layers(lg.layer_structure(problem, 3)[-1]).axes
    for of_page, of_user in zip(page[:4], user[:4], strict=True):
        for one, other in zip(lines(of_page), lines(of_user), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
