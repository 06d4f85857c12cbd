"""Records that are damaged: one line that names the file, and nothing shown that is not so."""

import json
import random
import shutil

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.cli.messages import say, show
from lossgeom.recording.json_files import write_json
from lossgeom.recording.record import Record
from lossgeom.recording.record_format import RecordError
from lossgeom.report import as_text, render, summary
from lossgeom.report._source import read_sources
from lossgeom.report.sections import SECTIONS
from tests.damage import damage_folder

pytestmark = pytest.mark.usefixtures("pages_alone")

GEOMETRY = lg.Geometry(k=2, matvecs=4, probes=2, steps=2)


def run(folder, name="run", over=True, seed=0):
    config = {"lr": 0.5 + seed, "widths": [3, 4], "seed": seed}
    record = Record.create(folder / name, config)
    record.update(
        planned_steps=[0, 1, 2, 3], notes=["a note"], idle_settings=["widths"],
        thresholds={"loss": 0.4}, threshold_formulas={"loss": "2/lr"}, thresholds_caution="eval",
    )  # fmt: skip
    for step in range(4 if over else 2):
        value = {"stderr": None, "status": "ok", "seconds": 0.1, "matvecs": 3}
        record.append({"step": step, "metric": "loss", "value": 1 / (step + 1), **value})
    record.save_arrays("checkpoint", {"w": torch.arange(4.0)}, step=1)
    record.finish() if over else record.close()
    return folder / name


def study(folder):
    with Record.create(folder / "study", {"study": "s", "seeds": 2}, kind="study") as record:
        figure = {"columns": None, "colour": "lr",
                  "panels": [{"metric": "loss", "label": "loss", "log": True}]}  # fmt: skip
        record.update(
            planned_runs=["a", "b"], title="A study", source="a paper", figure=figure, seeds=2,
            command="lossgeom run s", scatter=None, summary="It is so.",
        )  # fmt: skip
        for seed, name in enumerate("ab"):
            run(folder / "study/runs", name, seed=seed)
        write_json(folder / "study/claims.json", [CLAIM])
    return folder / "study"


CLAIM = {
    "id": "a", "statement": "It grows.", "source": "a paper", "measured": "slope",
    "statistic": 2.0, "interval": [1.5, 2.5], "per_seed": [1.9, 2.1], "expected": [1.0, "inf"],
    "control": False, "note": "", "verdict": "shown", "as_expected": True,
}  # fmt: skip


def measurement(folder, name="measured", parts=None):
    record = Record.create(folder / name, {"k": 2}, kind="measurement")
    edge = {"lr": 0.1, "momentum": 0.0, "threshold": 20.0, "formula": "2/lr", "caution": "eval"}
    record.update(stability=edge, title="A model")
    data = [(torch.ones(3, 2), torch.ones(3, 1))]
    problem = lg.Problem(nn.Linear(2, 1), "squared_error", data)
    try:
        lg.measure(problem, record, GEOMETRY, around=stopping(parts))
    except KeyboardInterrupt:
        record.close()
    return folder / name


class Stop:
    """Interrupts a measurement before a part."""

    def __init__(self, go):
        self.go = go

    def __enter__(self):
        if not self.go:
            raise KeyboardInterrupt

    def __exit__(self, *_):
        pass


def stopping(parts):
    left = iter(range(99 if parts is None else parts))
    return lambda part: Stop(next(left, None) is not None)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return [
        run(folder), run(folder, "stopped", over=False), study(folder), measurement(folder),
        measurement(folder, "interrupted", parts=4),
    ]  # fmt: skip


def read(folder, figures):
    """All that a report reads, with the sections that are quick to make."""
    for source in read_sources([folder]):
        for section in SECTIONS:
            if section.__name__ in ("geometry", "claims", "runs", "setup"):
                section(source, figures)
        for record in source.records.values():
            record.series("loss")
            for path in (record.path / "arrays").glob("*.safetensors"):
                record.load_arrays(path.stem)
        if source.measurement is not None:
            as_text(summary(source.measurement))


@pytest.mark.parametrize("parts", [0, 1, 4, 11])
def test_a_measurement_that_was_interrupted(tmp_path, parts):
    """With a learning rate, so that there is a threshold before there is a sharpness."""
    folder = measurement(tmp_path, parts=parts)
    found = summary(Record.open(folder))
    assert (found["stability"]["ratio"] is None) == (parts < 3)
    said = as_text(found)
    assert ("Sharpness is not measured yet; the edge is 2/lr = 20, up to" in said) == (parts < 3)
    assert "not measured yet" in said
    page = render([folder]).read_text()
    assert "This is not complete" in page
    assert "not measured yet" in page


def test_a_measurement_that_had_not_begun(tmp_path):
    record = Record.create(tmp_path / "a", {"k": 2}, kind="measurement")
    record.update(stability={"lr": 0.1, "momentum": 0.0, "threshold": 20.0})
    record.close()
    assert "Nothing is measured yet" in as_text(summary(Record.open(record.path)))
    assert "Nothing is measured yet." in render([record.path]).read_text()
    record = Record.create(tmp_path / "a", {"k": 2}, kind="measurement", resume=True)
    record.finish()
    with pytest.raises(RecordError, match=r"manifest\.json is damaged: loss is missing"):
        render([record.path])


def test_claims_of_a_finished_study(tmp_path):
    folder = study(tmp_path)
    path, content = folder / "claims.json", (folder / "claims.json").read_text()
    assert "It grows." in render([folder]).read_text()
    for damage, message in (
        (content.replace("shown", "contradicted"), "it is not what it was when this had ended"),
        ("[]", "it is not what it was when this had ended"),
        (None, "is missing, which was there when this had ended"),
    ):
        path.unlink() if damage is None else path.write_text(damage)
        with pytest.raises(RecordError, match=rf"claims\.json .*{message}"):
            render([folder])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"interval": [1.0]}, r"expected a list of its form at \[0\]\.interval"),
        ({"verdict": "maybe"}, "expected shown at"),
        ({"statistic": None}, r"expected a number at \[0\]\.statistic, found None"),
    ],
)
def test_claims_of_another_form(tmp_path, change, message):
    folder = study(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["contents"]["sha256"]["claims.json"]
    write_json(folder / "manifest.json", manifest)
    write_json(folder / "claims.json", [{**CLAIM, **change}])
    with pytest.raises(RecordError, match=message):
        render([folder])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("threshold_formulas", ["2/lr"], "an object of its form at threshold_formulas"),
        ("threshold_formulas", {"loss": {}}, r"expected text at threshold_formulas\.loss"),
        ("thresholds_caution", ["eval"], "expected text at thresholds_caution"),
        ("idle_settings", 3, "expected a list of its form at idle_settings"),
    ],
)
def test_what_a_figure_says_beside_its_curves(tmp_path, name, value, message):
    path = run(tmp_path) / "manifest.json"
    write_json(path, {**json.loads(path.read_text()), name: value})
    with pytest.raises(RecordError, match=rf"manifest\.json is damaged: .*{message}"):
        render([path.parent])


@pytest.mark.parametrize("lr", [None, [1], "fast"])
def test_settings_without_an_order(tmp_path, lr):
    folder = study(tmp_path)
    path = folder / "runs/a/manifest.json"
    manifest = json.loads(path.read_text())
    write_json(path, {**manifest, "config": {**manifest["config"], "lr": lr}})
    with pytest.raises(RecordError, match="by the setting 'lr', which is not a number in every"):
        render([folder])


def test_runs_that_lie_outside_are_not_read(tmp_path):
    folder = study(tmp_path)
    for name in ("../../elsewhere", str(run(tmp_path, "elsewhere"))):
        manifest = json.loads((folder / "manifest.json").read_text())
        write_json(folder / "manifest.json", {**manifest, "planned_runs": ["a", name]})
        with pytest.raises(RecordError, match="which is not a folder of its own runs"):
            render([folder])


def test_text_of_a_record_does_not_move_the_cursor(tmp_path, capsys):
    with Record.create(tmp_path / "a", {"name": "x\x1b]0;y\x07"}) as record:
        record.append({"step": 0, "metric": "loss\x1b[2J", "value": 1.0})
        record.update(title="A\x9b1m", notes=["b\x1b[2J"])
    page = render([tmp_path / "a"]).read_text()
    assert not set("\x1b\x07\x9b") & set(page)
    assert r"x\x1b]0;y\x07" in page
    show("a\x1b[2J\nb")
    say("a\x1b[2J\nb")
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("a\\x1b[2J\nb\n", "lossgeom: a\\x1b[2J\\nb\n")


def test_damage_of_any_kind(folders, tmp_path):
    rng, refused = random.Random(0), 0
    for i in range(200):
        there = tmp_path / str(i)
        shutil.copytree(folders[i % len(folders)], there)
        path = damage_folder(there, rng)
        try:
            read(there, tmp_path)
            if i % 30 == 0:
                render([there])
        except RecordError as error:
            refused += 1
            said = str(error)
        else:
            continue
        assert said.isprintable(), said
        assert str(there) in said, (said, path)
    assert refused > 100
