"""Pages in a real browser: nothing is asked from anywhere, small screens and paper hold them."""

import shutil

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom import Record
from lossgeom.recording.for_report import ForReport
from lossgeom.recording.json_files import write_json
from lossgeom.recording.metric_figures import (
    Outcome,
    Pair,
    Panel,
    Quantity,
    Scatter,
    Strengths,
    Sweep,
    Trajectories,
)
from lossgeom.report import render
from tests.report import test_several as several
from tests.report.browser import Browser

CHROMIUM = next(filter(shutil.which, ("chromium", "chromium-browser", "google-chrome")), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"
)
PAPER = 718  # pixels of a line on A4
LEGIBLE = 11  # pixels
LOSS, GAP = Quantity("loss", "loss"), Quantity("gap", "gap between test and training loss")
DECAYS, RATES = (0.0, 1e-3, 1e-2), (0.03, 0.1)
FOUND = [several.claim("It", 2.0), several.claim("Another one of very many, and this", 0.5)]
LAYOUT = ForReport(
    title="A study",
    source="a paper",
    command="lossgeom run study " + " ".join(f"--a-long-option-{i} value" for i in range(20)),
    figure=Trajectories(colour="decay", panels=(Panel("loss", "loss", log=True),)),
    scatter=Scatter((Pair(LOSS, GAP),), colour="lr", size="decay"),
    sweep=Sweep(
        tuple(Strengths("decay", f"decay {i}", log=True) for i in range(4)),
        (Outcome("gap", "gap", log=True),),
        lines="lr",
    ),
    planned_runs=tuple(f"decay{decay}-lr{lr}" for decay in DECAYS for lr in RATES),
)


def make_run(folder, decay, lr):
    with Record.create(folder, {"decay": decay, "lr": lr, "seed": 10}) as record:
        for step in (0, 10):
            for metric in ("loss", "gap"):
                value = (lr + decay) / (step + 1)
                record.append({"step": step, "metric": metric, "value": value, "status": "ok"})
        record.finish()
    return folder


def make_study(folder):
    with Record.create(folder, {"study": "s", "lr": RATES}, kind="study") as record:
        record.describe(LAYOUT)
        record.finish()
    for decay in DECAYS:
        for lr in RATES:
            make_run(folder / f"runs/decay{decay}-lr{lr}", decay, lr)
    write_json(folder / "claims.json", [each.to_json() for each in FOUND])
    return folder


def make_plain(folder):
    """A study without figures; the late one has not been run."""
    runs = ("later",) if folder.name == "late" else ()
    return several.make_study(folder, FOUND, runs=(), planned=runs)


def measured(folder):
    x, y = torch.randn(2, 9, 4)
    problem = lg.Problem(nn.Linear(4, 3), "cross_entropy", [(x, y.argmax(dim=1) % 3)])
    lg.measure(problem, Record.create(folder, kind="measurement"), structure=lg.Structure(k=3))
    return folder


PAGES = {
    "study": lambda folder: [make_study(folder / "study")],
    "runs": lambda folder: [make_run(folder / f"run{lr}", 0.0, lr) for lr in RATES],
    "overview": lambda folder: [make_plain(folder / name) for name in ("good", "late")],
    "measure": lambda folder: [measured(folder / "measure")],
}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(CHROMIUM, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module", params=PAGES)
def page(request, browser, tmp_path_factory):
    """A page of every kind, without files of figures beside it."""
    folder = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lossgeom.report.figures.as_file", lambda *_: b"Made by lossgeom")
        return browser.open(render(PAGES[request.param](folder), folder / "page.html"))


def test_nothing_goes_wrong_and_nothing_is_asked_from_anywhere(page):
    page.look(1200)
    assert not page.errors
    assert all(url.startswith(("file:", "data:")) for url in page.requests)


def test_small_screens(page):
    seen = page.look(390)
    assert seen["width"] <= 390
    assert seen["smallest"][0] > LEGIBLE
    assert page.look(1200)["width"] <= 1200


def test_paper(page):
    seen = page.look(PAPER, "print")
    assert seen["width"] <= PAPER
    assert not seen["cut"]
    printed = page.pdf()
    assert printed.startswith(b"%PDF")
    assert seen["headings"]
    assert all(b"/Title (" + heading.encode() in printed for heading in seen["headings"])


def opened(browser, tmp_path, body):
    (tmp_path / "page.html").write_text(f"<!doctype html><body><h1>A page</h1>{body}")
    return browser.open(tmp_path / "page.html")


def test_faults_are_seen(browser, tmp_path):
    outside = "http://127.0.0.1:9/a.png"
    page = opened(browser, tmp_path, f'<img src="{outside}">')
    assert outside in page.requests
    assert page.errors
    for script in ("console.error('oh')", "undefined_name()"):
        assert opened(browser, tmp_path, f"<script>{script}</script>").errors
    wide = opened(browser, tmp_path, "<p style='width: 900px; font-size: 8px'>wide</p>")
    assert wide.look(390)["width"] > 390
    assert wide.look(390)["smallest"] == [8, "wide"]
    assert wide.look(PAPER, "print")["width"] > PAPER
    cut = opened(browser, tmp_path, f"<pre style='overflow: auto'>{'long ' * 99}</pre>")
    assert cut.look(PAPER, "print")["cut"]
    assert not cut.errors
