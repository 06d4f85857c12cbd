"""What a record tells its report comes back as it was, and what is misspelt is an error."""

import json

import pytest
import torch

from lossgeom.recording.drawings import load_drawing, save_drawing
from lossgeom.recording.for_report import Curves, ForReport, HeatMap, Spectra
from lossgeom.recording.json_files import write_json
from lossgeom.recording.metric_figures import (
    Pair,
    Panel,
    Quantity,
    Scatter,
    Trajectories,
)
from lossgeom.recording.record import Record
from lossgeom.recording.record_format import RecordError

TOLD = ForReport(
    title="A study",
    figure=Trajectories("lr", None, (Panel("loss", "the loss", log=True, threshold="2/lr"),)),
    scatter=Scatter((Pair(Quantity("a", "A"), Quantity("b", "B")),), "lr", "seed", "All."),
    planned_steps=(0, 5),
    thresholds={"loss": float("inf")},
    left_out="diverged at step 3",
)
CURVES = Curves("A title", "x", "y", line=2.0, line_label="the edge")


def test_what_is_told_comes_back(tmp_path):
    with Record.create(tmp_path) as record:
        record.describe(TOLD)
        record.describe(ForReport(planned_at_end=("g",)))
    told = Record.open(tmp_path).for_report
    assert (told.figure, told.scatter, told.title) == (TOLD.figure, TOLD.scatter, TOLD.title)
    assert (told.thresholds, told.planned_steps, told.planned_at_end) == (
        TOLD.thresholds, (0, 5), ("g",),
    )  # fmt: skip
    assert told.summary is None


def test_nothing_is_told_of_what_is_left_at_its_default():
    assert ForReport().told == {}
    assert ForReport(planned_steps=(1,), figure=Trajectories()).told == {
        "planned_steps": (1,),
        "figure": {"columns": None, "colour": None, "panels": (), "step": "step", "log": False},
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colums": "lr"}, r"unknown key at figure 'colums': did you mean columns\? expected"),
        ({"panels": [{"metric": "a"}]}, r"figure\.panels\[0\]\.label is missing"),
        ({"panels": [{"metric": "a", "label": "A", "logs": True}]}, "did you mean log"),
        ({"columns": 3}, r"expected text at figure\.columns, found 3"),
    ],
)
def test_what_is_misspelt_in_a_manifest(tmp_path, change, message):
    record = Record.create(tmp_path)
    with pytest.raises(ValueError, match=message):
        record.update(figure=change)
    path = tmp_path / "manifest.json"
    write_json(path, {**json.loads(path.read_text()), "figure": change})
    with pytest.raises(RecordError, match=rf"manifest\.json is damaged: .*{message}"):
        Record.open(tmp_path)


def test_what_is_misspelt_in_code(tmp_path, unchecked):
    record = Record.create(tmp_path)
    with pytest.raises(ValueError, match="expected a whole number at planned_steps"):
        record.describe(ForReport(planned_steps=("a",)))
    with pytest.raises(TypeError, match="planed_steps"):
        ForReport(planed_steps=(1,))


def test_a_drawing_comes_back_and_is_listed_once(tmp_path):
    arrays = {"x": torch.arange(3.0), "y": torch.ones(3, 2)}
    with Record.create(tmp_path) as record:
        record.describe(ForReport(curves=("later",)))
        for _ in range(2):
            save_drawing(record, "one", CURVES, arrays, mine=3)
    record = Record.open(tmp_path)
    assert record.for_report.curves == ("later", "one")
    drawing, found = load_drawing(record, "one", Curves)
    assert drawing == CURVES
    assert found["x"].tolist() == [0, 1, 2]
    assert record.load_arrays("one")[1]["mine"] == 3
    assert load_drawing(record, "later", Curves) is None
    with pytest.raises(RecordError, match=r"holds arrays 'one' that are no Spectra: matrices is"):
        load_drawing(record, "one", Spectra)


def test_a_drawing_without_its_arrays(tmp_path):
    record = Record.create(tmp_path)
    with pytest.raises(ValueError, match="a Curves to save as 'one', but there is no array 'y'"):
        save_drawing(record, "one", CURVES, {"x": torch.ones(1)})
    marks = HeatMap("A", "x", "y", "final", "ends", {"held": "most held"})
    arrays = {name: torch.ones(1, 1) for name in ("x", "y", "final")}
    with pytest.raises(ValueError, match="there is no array 'held'"):
        save_drawing(record, "two", marks, arrays)
    save_drawing(record, "two", marks, {**arrays, "held": torch.ones(1, 1)})
    record.save_arrays("two", arrays, **record.load_arrays("two")[1])
    with pytest.raises(RecordError, match="'two' that are no HeatMap: there is no array 'held'"):
        load_drawing(record, "two", HeatMap)


def test_a_drawing_whose_label_is_no_text(tmp_path, unchecked):
    record = Record.create(tmp_path)
    arrays = {"x": torch.ones(1), "y": torch.ones(1, 1)}
    with pytest.raises(ValueError, match="but expected text at title, found 3"):
        save_drawing(record, "one", Curves(3, "x", "y", 2.0, "edge"), arrays)
