"""Phase planes, boundaries, predictions, curves and heat maps, from saved arrays."""

import math
import re

import pytest
import torch
from matplotlib.figure import Figure

from lossgeom import Record
from lossgeom.recording.drawings import save_drawing
from lossgeom.recording.for_report import (
    Boundary,
    Curves,
    HeatMap,
    PhasePlane,
    Prediction,
)
from lossgeom.report import render
from lossgeom.report.sections._saved import Saved
from lossgeom.report.sections.boundaries import draw as draw_boundary
from lossgeom.report.sections.curves import draw as draw_curves
from lossgeom.report.sections.heat_map import draw as draw_heat_map
from lossgeom.report.sections.phase_plane import draw as draw_plane
from lossgeom.report.sections.predictions import draw as draw_prediction

LABELS = {"title": "A title", "x_label": "the x", "y_label": "the y"}


def make_run(folder, key, arrays, facts, listed=("one",)):
    with Record.create(folder, {"seed": 0}) as record:
        record.update(**{key: list(listed)})
        if arrays is not None:
            record.save_arrays("one", arrays, **LABELS, **facts)
        record.finish()
    return folder


def plane():
    x, y = torch.linspace(-1, 1, 12), torch.linspace(0, 3, 14)
    Y, X = torch.meshgrid(y, x, indexing="ij")
    path = torch.tensor([[-0.5, 1.0], [0.4, 1.2], [-0.3, 1.4], [0.2, 1.6], [0.0, 2.0]])
    arrays = {"x": x, "y": y, "dx": -X, "dy": torch.ones_like(Y), "still_x": Y - 1,
              "still_y": X - Y + 1, "exists": X < 0.5, "path_0": path}  # fmt: skip
    facts = {"edge": 2.0, "edge_label": "edge", "limit": 1.9, "limit_label": "limit",
             "rest_label": "rest", "still_x": "x still", "still_y": "y still"}  # fmt: skip
    return arrays, facts


def points():
    arrays = {"x": torch.tensor([0.1, 0.2]), "y": torch.tensor([[0.4, 0.6], [0.5, math.inf]]),
              "line_x": torch.tensor([0.1, 0.2]), "line_y": torch.tensor([0.5, 0.5])}  # fmt: skip
    return arrays, {"line_label": "predicted", "log_x": True}


def runs():
    arrays = {"x": torch.arange(4), "y": torch.tensor([[1.0, 1.0], [2, 9], [2, math.nan], [2, 9]])}
    return arrays, {"line": 2.0, "line_label": "the edge"}


def cells():
    final = torch.tensor([[0.5, 1.0, 1.99], [1.98, 2.4, math.nan]])
    arrays = {"x": torch.tensor([0.5, 1, 2]), "y": torch.tensor([0.1, 1.0]), "final": final,
              "held": (final > 1.9) & (final < 2), "gone": final.isnan()}  # fmt: skip
    facts = {"values": "final", "values_label": "ends", "marks": {"held": "held", "gone": "gone"}}
    return arrays, facts


def sides():
    points = {"points_x": [1.0, 1.0, 10.0], "points_y": [0.01, 0.03, 0.06], "left": [0.0, 1.0, 1.0]}
    arrays = {"x": torch.tensor([1.0, 10.0]), "edge": torch.tensor([0.02, 0.05])}
    arrays |= {name: torch.tensor(values) for name, values in points.items()}
    return arrays, {"lines": {"edge": "the edge"}, "stays": "stays", "leaves": "leaves"}


CLASSES = {sides: Boundary, plane: PhasePlane, points: Prediction, runs: Curves, cells: HeatMap}
KINDS = [
    ("boundaries", "boundaries", sides),
    ("phase_planes", "phase_plane", plane),
    ("predictions", "predictions", points),
    ("curves", "curves", runs),
    ("heat_maps", "heat_map", cells),
]


@pytest.mark.parametrize(("key", "name", "make"), KINDS)
def test_a_section_for_what_a_manifest_lists(tmp_path, key, name, make):
    folder = make_run(tmp_path / "run", key, *make())
    page = render([folder]).read_text()
    assert page.count("<svg") == 1
    for text in ("A title", "the x", "the y"):
        assert text in page
    assert {f"{name}.pdf", f"{name}.png"} == {p.name for p in (folder / "figures").iterdir()}
    assert render([folder]).read_text() == page


@pytest.mark.parametrize(("key", "name", "make"), KINDS)
def test_a_run_that_was_killed_before_has_none(tmp_path, key, name, make):
    folder = make_run(tmp_path / "run", key, None, {})
    assert "<svg" not in render([folder]).read_text()


def saved(make, n=1):
    arrays, facts = make()
    numbers = {name: value.double().numpy() for name, value in arrays.items()}
    return Saved(CLASSES[make](**LABELS, **facts), (numbers,) * n)


def test_paths_are_joined_every_second_step():
    axes = Figure().subplots()
    draw_plane(axes, saved(plane))
    jumps = [list(line.get_xdata()) for line in axes.lines]
    assert any(x == pytest.approx([-0.5, -0.3, 0.0]) for x in jumps)
    assert any(x == pytest.approx([0.4, 0.2]) for x in jumps)
    labels = axes.get_legend_handles_labels()[1]
    assert labels == ["x still", "y still", "rest", "edge", "limit", "descent from (-0.5, 1)"]


def test_points_of_all_runs_and_those_that_are_not_finite(tmp_path):
    axes = Figure().subplots()
    assert draw_prediction(axes, saved(points, n=3)) == 3
    (line, marks, *_) = axes.lines
    assert line.get_ydata().tolist() == [0.5, 0.5]
    assert marks.get_ydata().tolist() == pytest.approx([0.5, 0.5])
    folders = [make_run(tmp_path / name, "predictions", *points()) for name in "ab"]
    page = render(folders, tmp_path / "all.html").read_text()
    assert page.count("<svg") == 1
    assert "2 values are not finite" in page


def test_what_leaves_is_marked_as_such():
    axes = Figure().subplots()
    draw_boundary(axes, saved(sides))
    line, stays, leaves = axes.lines
    assert line.get_ydata().tolist() == pytest.approx([0.02, 0.05])
    assert stays.get_xydata().tolist() == [pytest.approx([1, 0.01])]
    assert leaves.get_xydata().tolist() == [pytest.approx([1, 0.03]), pytest.approx([10, 0.06])]
    assert axes.get_legend_handles_labels()[1] == ["the edge", "stays", "leaves"]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


def test_boundaries_have_a_panel_for_each_run(tmp_path):
    folders = [make_run(tmp_path / name, "boundaries", *sides()) for name in "abcd"]
    page = render(folders, tmp_path / "all.html").read_text()
    assert page.count("<svg") == 1
    assert page.count("A title") == 4


def test_curves_end_where_runs_diverge():
    axes = Figure().subplots()
    draw_curves(axes, saved(runs))
    crosses = [line for line in axes.lines if line.get_marker() == "x"]
    assert [cross.get_xdata().tolist() for cross in crosses] == [[2]]
    assert axes.get_ylim()[1] > 2


def test_cells_are_marked_where_half_of_the_runs_agree(tmp_path):
    figure = Figure()
    axes = figure.subplots()
    draw_heat_map(figure, axes, saved(cells))
    held, gone = (part.get_offsets().round().tolist() for part in axes.collections)
    assert held == [[2, 0], [0, 1]]
    assert gone == [[2, 1]]
    assert [text.get_text() for text in axes.texts] == ["0.50", "1.00", "1.99", "1.98", "2.40"]
    folders = [make_run(tmp_path / name, "heat_maps", *cells()) for name in "ab"]
    page = render(folders, tmp_path / "all.html").read_text()
    assert re.search(r"Medians over 2 seeds", page)
    assert "Phase diagram" in page


def test_a_map_without_marks(tmp_path):
    arrays, facts = cells()
    page = render([make_run(tmp_path, "heat_maps", arrays, {**facts, "marks": {}})]).read_text()
    assert "Maps" in page
    assert "Phase diagram" not in page
    assert "A cell is marked" not in page


def test_many_predictions_are_in_rows(tmp_path, pages_alone):
    arrays, facts = points()
    with Record.create(tmp_path, {"seed": 0}) as record:
        for i in range(6):
            labels = {**LABELS, "title": f"panel {i}"}
            save_drawing(record, f"p{i}", Prediction(**labels, **facts), arrays)
        record.finish()
    page = render([tmp_path]).read_text()
    assert [f"panel {i}" in page for i in range(7)] == [*[True] * 6, False]
    size = re.search(r'<svg[^>]*viewBox="0 0 ([0-9.]+) ([0-9.]+)"', page)
    width, height = map(float, size.groups())
    assert width / height == pytest.approx(11.8 / 6.6, rel=0.01)
