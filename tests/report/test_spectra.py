"""The section of spectra, and the drawing of one density."""

import re

import numpy as np
import torch
from matplotlib.figure import Figure

from lossgeom import Record
from lossgeom.plot.spectra import draw_density
from lossgeom.report import render


def make_run(folder, labels, densities, rows=("start", "end")):
    with Record.create(folder, {"labels": labels}) as record:
        record.update(spectra=["first", "last"])
        for name, row in zip(("first", "last"), rows, strict=False):
            arrays = {"a_values": torch.tensor([3.0, 2.0, 0.5, -0.1])}
            if densities:
                grid = torch.linspace(-1, 4, 50)
                arrays |= {
                    "a_grid": grid,
                    "a_density": torch.exp(-(grid**2)),
                    "a_stderr": torch.full((50,), 0.01),
                    "a_one_eigenvalue": torch.tensor(0.01),
                }
            record.save_arrays(
                name, arrays, matrices={"a": "Matrix A"}, column=f"{labels} labels", row=row,
                marked=2, marked_as="C - 1",
            )  # fmt: skip
        record.finish()
    return folder


def test_a_record_with_spectra(tmp_path):
    folder = make_run(tmp_path / "run", "real", densities=True)
    page = render([folder]).read_text()
    assert "<h2>Spectra</h2>" in page
    assert page.count("<svg") == 2
    assert "spectral density" in page
    assert "real labels: end" in page
    assert page.count("C - 1 = 2") == 2
    assert {"spectra.pdf", "spectra.png", "eigenvalues.pdf", "eigenvalues.png"} == {
        p.name for p in (folder / "figures").iterdir()
    }
    assert render([folder]).read_text() == page


def test_without_densities_there_are_eigenvalues(tmp_path):
    page = render([make_run(tmp_path / "run", "real", densities=False)]).read_text()
    assert page.count("<svg") == 1
    assert "spectral density" not in page


def test_without_spectra_there_is_no_section(tmp_path):
    with Record.create(tmp_path / "run") as record:
        record.append({"step": 0, "metric": "loss", "value": 1.0})
        record.finish()
    assert "<h2>Spectra</h2>" not in render([tmp_path / "run"]).read_text()
    with Record.create(tmp_path / "planned") as record:
        record.update(spectra=["first"])  # a run that was killed before its first point
        record.finish()
    assert "<h2>Spectra</h2>" not in render([tmp_path / "planned"]).read_text()


def test_one_run_for_each_column_and_an_empty_panel_where_there_is_none(tmp_path):
    folders = [
        make_run(tmp_path / "a", "real", densities=False),
        make_run(tmp_path / "b", "real", densities=True),
        make_run(tmp_path / "c", "shuffled", densities=True, rows=("start",)),
    ]
    page = render(folders, tmp_path / "all.html").read_text()
    densities, eigenvalues = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    for figure in (densities, eigenvalues):
        assert figure.count("real labels: start") == 1
        assert figure.count("shuffled labels: start") == 1
        assert figure.count("shuffled labels: end") == 0


def test_draw_density():
    axes = Figure().subplots()
    grid = np.linspace(0, 1, 11)
    density = np.where(grid > 0.5, 0, 10.0)
    draw_density(
        axes, grid, density, np.full(11, 0.1), outliers=[0.2, 0.3], one_eigenvalue=0.5, label="A"
    )
    line, marks = axes.lines
    assert np.isnan(line.get_ydata()[6:]).all()  # zero has no place on a logarithmic axis
    assert marks.get_xdata().tolist() == [0.2, 0.3]
    assert axes.get_yscale() == "log"
    assert axes.get_ylim()[0] == 0.05
    assert len(axes.collections) == 1  # the band


def test_an_exact_density_has_no_band_and_one_of_nan_no_line():
    axes = Figure().subplots()
    draw_density(axes, [0, 1], [1e-3, 1e3], [0, 0])
    assert len(axes.collections) == 0
    assert axes.get_ylim()[0] == 1e-3
    draw_density(axes, [0, 1], [np.nan] * 2, [np.nan] * 2)
    assert np.isnan(axes.lines[1].get_ydata()).all()
