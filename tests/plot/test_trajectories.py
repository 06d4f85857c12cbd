"""Metrics along training: what the lines, the bars and the words of a figure are."""

import math
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import lossgeom as lg
from lossgeom import Record, Verdict
from lossgeom.plot.trajectories import REACH
from lossgeom.plot.units import with_unit
from lossgeom.recording.metric_figures import Panel

pytestmark = pytest.mark.quick


def make_run(folder, values, lr=0.5, *, metric="sharpness", config=None, **row):
    with Record.create(folder, {"lr": lr, "seed": 0} | (config or {})) as record:
        for step, value in enumerate(values):
            record.append({"step": step, "metric": metric, "value": value, "lr": lr} | row)
        record.finish()
    return record


def shown(figure):
    """Every line of the first panel with its points, and every word in it."""
    (axis, *_) = figure.axes
    lines = [(list(line.get_xdata()), list(line.get_ydata())) for line in axis.lines]
    return lines, [text.get_text() for text in axis.texts]


def test_a_metric_with_its_threshold_and_errors(tmp_path):
    make_run(tmp_path / "a", [3.0, 3.5, 4.1], threshold=4.0, stderr=0.25)
    figure = lg.plot.trajectory(tmp_path / "a", "sharpness")
    lines, words = shown(figure)
    assert lines[0] == ([0, 1, 2], [3.0, 3.5, 4.1])
    assert lines[-1][1] == [4.0, 4.0]
    assert words == ["threshold = 4"]
    (axis,) = figure.axes
    (bars,) = (bars for bars in axis.collections if bars.get_segments())
    assert [bar[:, 1].tolist() for bar in bars.get_segments()] == [
        [value - 0.25, value + 0.25] for value in (3.0, 3.5, 4.1)
    ]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("step", "sharpness\n(loss / θ²)")
    assert axis.get_legend() is None
    assert figure.legends == []


def test_thresholds_of_a_schedule_row_by_row(tmp_path):
    with Record.create(tmp_path) as record:
        for step, (value, edge) in enumerate([(3.0, 2.0), (3.5, 4.0), (3.2, 6.0)]):
            row = {"step": step, "metric": "sharpness", "value": value, "threshold": edge}
            record.append({**row, "residual": 0.1 * step})
    lines, words = shown(lg.plot.trajectory(record, "sharpness"))
    assert ([0, 1, 2], [2.0, 4.0, 6.0]) in lines
    assert words == ["threshold"]


def test_values_that_are_not_there_are_marked(tmp_path):
    with Record.create(tmp_path) as record:
        record.update(planned_steps=[0, 1, 2, 3])
        for step, value in ((0, 1.0), (1, math.nan), (3, math.inf)):
            status = "failed" if math.isnan(value) else "nonfinite"
            record.append({"step": step, "metric": "loss", "value": value, "status": status})
    (curve, missing, nonfinite), _ = shown(lg.plot.trajectory(record, "loss"))
    np.testing.assert_equal(curve, ([0, 1, 2, 3], [1.0, math.nan, math.nan, math.nan]))
    assert (missing[0], nonfinite[0]) == ([2], [1, 3])


def test_runs_are_named_by_what_differs(tmp_path):
    runs = [make_run(tmp_path / f"run{lr}", [1.0, 2.0], lr) for lr in (0.1, 0.2)]
    figure = lg.plot.trajectory(runs, "sharpness")
    (legend,) = figure.legends
    assert legend.get_title().get_text() == "learning rate"
    assert [text.get_text() for text in legend.get_texts()] == ["0.1", "0.2"]
    alike = [make_run(tmp_path / name / "run", [1.0, 2.0]) for name in "ab"]
    (legend,) = lg.plot.trajectory(alike, "sharpness").legends
    assert [text.get_text() for text in legend.get_texts()] == [str(run.path) for run in alike]
    lines = figure.axes[0].get_legend_handles_labels()[0]
    assert len({line.get_linestyle() for line in lines}) == 2
    lightness = [np.dot(mpl.colors.to_rgb(line.get_color()), (0.3, 0.6, 0.1)) for line in lines]
    assert lightness[1] - lightness[0] > 0.4


def test_the_runs_of_a_study(tmp_path):
    with Record.create(tmp_path, {"study": "s"}, kind="study") as study:
        study.update(planned_runs=["a", "b", "never_started"])
    for lr, name in ((0.1, "a"), (0.2, "b")):
        make_run(tmp_path / "runs" / name, [lr, 2 * lr], lr)
    (legend,) = lg.plot.trajectory(tmp_path, "sharpness").legends
    assert [text.get_text() for text in legend.get_texts()] == ["0.1", "0.2"]


def test_axes_of_ones_own(tmp_path):
    runs = [make_run(tmp_path / f"run{lr}", [1.0, 2.0], lr, threshold=2.0) for lr in (0.1, 0.2)]
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert lg.plot.trajectory(runs, "sharpness", ax=right) is figure
    assert lg.plot.edge(runs[0], ax=left) is figure
    assert len(figure.axes) == 2
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["0.1", "0.2"]
    assert left.lines
    assert figure.legends == []


def test_an_edge_says_its_verdict(tmp_path):
    make_run(tmp_path / "a", [2.0, 3.8, 4.1, 4.0, 4.2, 4.1], threshold=4.0)
    verdict = lg.verdict_of(tmp_path / "a")
    figure = lg.plot.edge(tmp_path / "a")
    assert figure.axes[0].get_title().replace("\n", " ") == str(verdict)
    assert figure.axes[0].get_ylabel() == "sharpness\n(loss / θ²)"
    make_run(tmp_path / "b", [1.0, 1.0], 0.25, threshold=8.0)
    (legend,) = lg.plot.edge([tmp_path / "a", tmp_path / "b"]).legends
    told = [
        f"{name}: {lg.verdict_of(tmp_path / run).kind}"
        for name, run in (("0.5", "a"), ("0.25", "b"))
    ]
    assert [text.get_text() for text in legend.get_texts()] == told


def test_a_long_verdict_stays_in_the_figure(tmp_path, monkeypatch):
    said = Verdict("not stated", "steps are on mini-batches, and have another edge; " * 12)
    monkeypatch.setattr("lossgeom.plot.trajectories.verdict_of", lambda _: said)
    figure = lg.plot.edge(make_run(tmp_path, [2.0, 3.8, 4.1], threshold=4.0))
    FigureCanvasAgg(figure).draw()
    title = figure.axes[0].title
    box = title.get_window_extent()
    assert 0 < box.x0 < box.x1 < figure.bbox.width
    assert title.get_text().count("\n") == 3
    assert title.get_text().endswith(" ...")


def test_an_edge_is_shown_where_it_is_in_reach(tmp_path):
    for name, edge in (("near", 6.0), ("far", 40.0)):
        make_run(tmp_path / name, [3.0, 4.0], threshold=edge)
    near, far = (lg.plot.edge(tmp_path / name).axes[0] for name in ("near", "far"))
    assert near.get_ylim()[1] > 6.0
    assert 4.0 < far.get_ylim()[1] < 2 * REACH * 4.0
    assert [text.get_text() for text in far.texts] == ["threshold = 40 is above this range"]


def test_wide_values_have_a_logarithmic_axis_and_any_axis_can_get_one(tmp_path):
    wide = make_run(tmp_path / "a", [1.0, 1e-2, 1e-4], metric="loss")
    assert lg.plot.trajectory(wide, "loss").axes[0].get_yscale() == "log"
    (axis,) = lg.plot.trajectory(make_run(tmp_path / "b", [1.0, 0.1], metric="loss"), "loss").axes
    assert axis.get_yscale() == "linear"
    axis.set_yscale("log")
    assert 0 < axis.get_ylim()[0] < 0.1
    assert 1.0 < axis.get_ylim()[1] < 2.0


def test_hostile_names_are_words(tmp_path):
    evil = "$\\frac{x$ \x1b[2J\u202e<script>"
    runs = [
        make_run(tmp_path / name, [1.0, 2.0], config={evil: name + evil}, threshold=1.5)
        for name in "ab"
    ]
    for figure in (lg.plot.edge(runs), lg.plot.trajectory(runs, "sharpness")):
        assert figure._repr_png_()
        (legend,) = figure.legends
        words = [legend.get_title().get_text(), *(text.get_text() for text in legend.get_texts())]
        assert all(word.isprintable() and r"\$" in word for word in words)
    metric = make_run(tmp_path / "c", [1.0], metric=evil)
    assert lg.plot.trajectory(metric, evil)._repr_png_()


def test_many_thresholds_are_not_named_and_values_stay_in_sight(tmp_path):
    for i in range(40):
        with Record.create(tmp_path / f"{i:02}", {"seed": i}) as record:
            for step in range(2):
                row = {"step": step, "metric": "sharpness", "value": 1.0 + step}
                record.append({**row, "threshold": 2.0 + i + step * (i % 2)})
    figure = lg.plot.edge([tmp_path / f"{i:02}" for i in range(40)])
    (axis,) = figure.axes
    assert axis.get_ylim()[1] < 10
    assert len(axis.texts) == 1
    hidden, _, rest = axis.texts[0].get_text().partition(" of ")
    assert rest == "40 thresholds are out of this range"
    assert 30 < int(hidden) < 40
    dashed = [line for line in axis.lines if line.get_linestyle() == "--" and len(line.get_xdata())]
    assert len(dashed) >= 40


@pytest.mark.parametrize(
    "ax", [Figure(), Figure().subplots(1, 2), Figure().add_subplot(projection="3d")]
)
def test_what_cannot_be_drawn_on(tmp_path, ax):
    with pytest.raises(TypeError, match="expected axes of matplotlib in a plane"):
        lg.plot.trajectory(make_run(tmp_path / "a", [1.0]), "sharpness", ax=ax)


def test_the_gauge_that_all_runs_have(tmp_path):
    first = make_run(tmp_path / "a", [1.0, 2.0], threshold=4.0)
    with Record.create(tmp_path / "a", first.config, resume=True) as record:
        record.append({"step": 0, "metric": "edge_ratio", "value": 0.25})
    make_run(tmp_path / "b", [0.5, 0.6], metric="edge_ratio")
    figure = lg.plot.edge([tmp_path / "a", tmp_path / "b"])
    assert figure.axes[0].get_ylabel() == "edge ratio"
    (tmp_path / "c").mkdir()
    make_run(tmp_path / "c/run", [0.5, 0.6], metric="loss")
    with pytest.raises(ValueError, match="expected runs that have measured batch_sharpness, "):
        lg.plot.edge([tmp_path / "a", tmp_path / "c/run"])


def test_a_metric_that_no_run_has(tmp_path):
    make_run(tmp_path / "a", [1.0])
    with pytest.raises(
        ValueError, match="expected a metric that was measured, got 'los'; the runs"
    ):
        lg.plot.trajectory(tmp_path / "a", "los")


def test_units_are_those_of_the_loss(tmp_path):
    record = make_run(tmp_path / "a", [1.0])
    with Record.create(tmp_path / "a", record.config, resume=True) as record:
        record.update(loss="cross_entropy")
    names = {
        "loss": "loss\n(nats)",
        "sharpness (eval)": "sharpness (eval)\n(nats / θ²)",
        "gradient_norm": "gradient norm\n(nats / θ)",
        "logits_jacobian_norm_max": "logits jacobian norm max\n(output / input)",
        "edge_ratio": "edge ratio",
    }
    for name, expected in names.items():
        assert with_unit(Panel(name, name.replace("_", " ")), [record]) == expected
    assert with_unit(Panel("loss", "objective"), [record]) == "objective"


def test_nothing_of_matplotlib_is_changed(tmp_path):
    make_run(tmp_path / "a", [1.0, 2.0], threshold=2.0)
    code = (
        "import sys, matplotlib, lossgeom as lg; before = matplotlib.rcParams.copy(); "
        "figure = lg.plot.edge(sys.argv[1]); figure.savefig(sys.argv[2]); "
        "assert matplotlib.rcParams.copy() == before; assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "a", tmp_path / "a.png"], check=True)


def test_a_style_of_ones_own_is_for_axes_of_ones_own(tmp_path):
    record = make_run(tmp_path / "a", [1.0, 2.0])
    with mpl.rc_context({"axes.facecolor": "black", "axes.titlesize": 30.0}):
        ours = lg.plot.trajectory(record, "sharpness").axes[0]
        theirs = Figure().subplots()
        theirs.set_title("mine")
        lg.plot.trajectory(record, "sharpness", ax=theirs)
        assert mpl.rcParams["axes.facecolor"] == "black"
    assert (ours.get_facecolor(), theirs.get_facecolor()) == ((1, 1, 1, 1), (0, 0, 0, 1))
    assert theirs.get_title() == "mine"


def test_a_figure_shows_itself_and_always_the_same(tmp_path):
    make_run(tmp_path / "a", [1.0, 2.0], threshold=2.0)
    first, second = (lg.plot.edge(tmp_path / "a")._repr_png_() for _ in range(2))
    assert first == second
    assert first[0].startswith(b"\x89PNG")
