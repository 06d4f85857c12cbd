"""What goes together with an outcome, on the page of one study and of several."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from lossgeom import Claim, Record
from lossgeom.recording import correlations as over_runs
from lossgeom.recording.ended import ended
from lossgeom.recording.metric_figures import Quantity
from lossgeom.report import render
from lossgeom.report._source import read_sources
from lossgeom.report.sections.correlations import correlations, pooled

NAMES = {"first": "sharpness", "second": "jacobian_norm", "outcome": "gap", "given": "loss"}
LAYOUT = {
    "panels": [{"x": {"metric": "sharpness", "label": "s"}, "y": {"metric": "gap", "label": "g"}}],
    "compared": {
        key: {"metric": metric, "label": metric.replace("_", " ").replace("j", "J")}
        for key, metric in NAMES.items()
    },
}
NO_FIGURE = {"columns": None, "colour": None, "panels": [], "step": "step", "log": False}


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(over_runs, "RESAMPLES", 2500)


def names_of(seeds):
    return [f"level{level}-seed{seed}" for seed in range(seeds) for level in range(6)]


def make_study(folder, *, seeds=6, layout=LAYOUT, outcome="jacobian_norm", draw=0):
    """Runs of 6 settings whose gap goes together with one quantity, and not with the others."""
    rng = np.random.default_rng(draw)
    with Record.create(folder, {"study": folder.name}, kind="study") as study:
        for seed in range(seeds):
            for level in range(6):
                name = f"level{level}-seed{seed}"
                gap = level + draw + 0.1 * rng.normal()
                ends = {metric: rng.normal() for metric in NAMES.values()}
                ends |= {outcome: gap + 0.1 * rng.normal(), "gap": gap}
                with Record.create(folder / "runs" / name, {"level": level, "seed": seed}) as run:
                    for metric, value in ends.items():
                        run.append({"step": 0, "metric": metric, "value": 7.0})
                        run.append({"step": 10, "metric": metric, "value": value})
                    run.finish()
        study.update(
            title=folder.name, planned_runs=names_of(seeds), scatter=layout, figure=NO_FIGURE
        )
        study.finish()
    return folder


def claim(name, chance, interval=(0.5, 1.0), **parts):
    return Claim(name, f"{name}.", "A", "m", 0.7, interval, (0.7,), (0.0, math.inf),
                 chance=chance, **parts)  # fmt: skip


CLAIMS = [
    [claim("sure", 0.01), claim("doubtful", 0.04), claim("control", 0.9, control=True)],
    [
        claim("unknown", 1.0, interval=(math.nan, math.nan)),
        claim("none", 1.0, interval=(-1.0, 1.0)),
    ],
]


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies")
    made = [make_study(folder / name, draw=draw) for draw, name in enumerate(("wd", "lr"))]
    for study, claims in zip(made, CLAIMS, strict=True):
        (study / "claims.json").write_text(json.dumps([one.to_json() for one in claims]))
    return made


def cells(page, heading):
    """The cells of the table of a section, by the first one of each row."""
    table = page.split(f"<h2>{heading}</h2>")[1].split("</table>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)[1:]
    found = [re.findall(r"<td.*?>(.*?)</td>", row, re.DOTALL) for row in rows]
    return {name: others for name, *others in found}


HEADING = "What goes together with the gap"


def test_one_study_and_several(studies, tmp_path):
    page = render(studies, tmp_path / "both.html").read_text()
    parts = page.split("<article")
    alone, together = cells(parts[3], HEADING), cells(parts[2], HEADING)
    for part in parts[1:4]:
        assert "The Jacobian norm goes together with the gap more closely than the shar" in part
    kinds = [
        "rank correlation", "rank correlation, given the loss",
        "correlation (Pearson)", "correlation (Pearson), given the loss",
    ]  # fmt: skip
    assert list(alone) == kinds
    assert list(together) == [
        "wd: rank correlation",
        "learning rate: rank correlation",
        *(f"all: {kind}" for kind in kinds),
    ]
    runs = ended(Record.open(studies[0] / "runs" / name) for name in names_of(6))
    assert (
        alone["rank correlation"]
        == together["wd: rank correlation"]
        == [
            "36",
            str(runs.correlation("sharpness", "gap")),
            str(runs.correlation("jacobian_norm", "gap")),
            str(runs.difference("jacobian_norm", "sharpness", "gap")),
        ]
    )
    assert together["all: rank correlation"][0] == "72"
    for words in ("wd", "learning rate", "sharpness"):
        assert f">{words}</text>" in parts[2]

    # Corrected by hand: 0.01 x 4 / 1 is small enough, 0.04 x 4 / 2 is not.
    said = re.search(r"<p>(Of 4 statements.*?)</p>", parts[1])[1]
    assert said.startswith("Of 4 statements, 2 are shown. If all 4 were wrong, at most 0.1 would")
    assert "1 of 2 verdicts stand if 5% of those" in said
    assert "and 1 if the probability that any of them is wrong may be 5%" in said
    assert "needs 7 seeds that agree" in said
    marked = re.findall(
        r"<td>([^<]*)\s*<div class=\"small\">This verdict does not stand among", page
    )
    assert marked == ["doubtful."]


def test_runs_that_studies_share_count_once(studies, tmp_path):
    again = make_study(tmp_path / "again")
    (section,) = pooled(read_sources([studies[0], again]), tmp_path)
    assert (section.values["runs"], len(section.values["rows"])) == (36, 6)


def test_studies_that_compare_nothing_or_something_else_are_not_pooled(studies, tmp_path):
    (source,) = read_sources(studies[:1])
    scatter = source.told.scatter
    label = Quantity("gap", "another gap")
    for other in (None, replace(scatter.compared, outcome=label)):
        told = replace(source.told, scatter=replace(scatter, compared=other))
        assert pooled([source, replace(source, told=told)], tmp_path) == []
    assert correlations(replace(source, told=replace(source.told, scatter=None)), tmp_path) is None
    assert correlations(replace(source, records={}), tmp_path) is None


@pytest.mark.parametrize(
    ("seeds", "outcome", "said"),
    [
        (2, "jacobian_norm", "cannot be said: an interval needs 5 seeds"),
        (6, "loss", "Neither the Jacobian norm nor the sharpness is shown"),
        (6, "sharpness", "The sharpness goes together with the gap more closely"),
    ],
)
def test_the_verdict_says_what_is_not_known(tmp_path, seeds, outcome, said):
    sources = read_sources([make_study(tmp_path / "study", seeds=seeds, outcome=outcome)])
    assert said in correlations(*sources, tmp_path).values["verdict"]
