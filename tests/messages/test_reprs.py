"""Results in a notebook: tables that say what counts, and do nothing."""

import math
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
import torch

import lossgeom as lg
from lossgeom import Estimate, Record
from lossgeom.messages.reprs import BUCKETS, HEIGHT, WIDTH, Svg, html_table, sparkline

pytestmark = pytest.mark.quick
HOSTILE = "<script>alert('1')</script>\"&\x1b[2J\u202egnp.exe\x00 $x$ \N{HEBREW LETTER ALEF}"
A = torch.diag(torch.arange(1.0, 31.0))


class Read(HTMLParser):
    """The tags of a piece of HTML with their attributes, and the words of each cell."""

    def __init__(self, content):
        super().__init__()
        self.tags, self.attributes, self.open, self.rows = set(), set(), [], []
        self.feed(content)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data


def run(folder):
    with Record.create(
        folder / HOSTILE.replace("/", "").replace("\x00", ""), {HOSTILE: HOSTILE}
    ) as record:
        for step, value in enumerate([2.0, math.nan, 1.0]):
            record.append({"step": step, "metric": HOSTILE, "value": value})
        record.finish(HOSTILE)
    return record


SHOWN = {
    "Estimate": lambda _: Estimate(2.5, stderr=0.25),
    "EigenPairs": lambda _: lg.top_eigenpairs(A, k=3),
    "SpectralDensity": lambda _: lg.spectral_density(A),
    "Geometry": lambda _: lg.Geometry(k=3),
    "Verdict": lambda _: lg.Verdict("below", HOSTILE, since=3, quantity=HOSTILE),
    "Record": run,
}


@pytest.mark.parametrize("name", SHOWN)
def test_a_table_is_inert_and_short(name, tmp_path):
    shown = SHOWN[name](tmp_path)._repr_html_()
    read = Read(shown)
    assert shown.startswith('<div class="tex2jax_ignore mathjax_ignore">')  # $x$ is no formula
    assert read.tags <= {"div", "strong", "bdi", "table", "tr", "th", "td", "svg", "path"}
    assert not {name for name in read.attributes if name.startswith("on")}
    assert not read.attributes & {"src", "href", "id"}
    assert "http" not in shown
    assert "url(" not in shown
    assert all(character.isprintable() for character in shown)
    assert not re.search("color|rgb", shown)  # but the text's own, in dark and in light
    assert len(shown) < 7_000


def rows_of(thing):
    return Read(thing._repr_html_()).rows


def test_what_is_known_of_a_number():
    assert rows_of(Estimate(2.5, residual=1e-3, converged=False, matvecs=7, verified=True)) == [
        ["value", "2.5"], ["residual", "0.001"], ["converged", "False"], ["matvecs", "7"],
        ["verified", "True"], ["predicted", "False"],
    ]  # fmt: skip
    assert ["value", "nan"] not in rows_of(Estimate(1.0, stderr=math.nan))


def test_eigenvalues_one_by_one():
    pairs = lg.top_eigenpairs(A, k=20)
    heading, first, *_, last = rows_of(pairs)
    assert heading == ["number", "eigenvalue", "residual", "converged"]
    assert first[:2] + first[3:] == ["1", f"{pairs.values[0]:.6g}", "yes"]
    assert last == ["and 9 more"]


def test_a_density_is_drawn():
    density = lg.spectral_density(A)
    found = dict(row for row in rows_of(density))
    assert (found["eigenvalues"], found["from"], found["to"]) == ("30", "1", "30")
    assert "<svg" in density._repr_html_()


def test_a_verdict_and_settings():
    assert rows_of(lg.Verdict("below", "why", low=0.5)) == [
        ["kind", "below"], ["reason", "why"], ["low", "0.5"]
    ]  # fmt: skip
    assert ["max matvecs", "7"] in rows_of(lg.Geometry(max_matvecs=7))


def test_a_record_shows_its_metrics(tmp_path):
    with Record.create(tmp_path / "run", {"lr": 0.5, "of": {"seed": 0}}) as record:
        for step, value in enumerate([2.0, math.inf, 1.0]):
            record.append({"step": step, "metric": "loss", "value": value})
        record.append({"step": 7, "metric": "edge_ratio", "value": 0.5})
        shown = record._repr_html_()
    assert "run run: running, lr 0.5, of.seed 0" in shown
    assert Read(shown).rows == [
        ["metric", "over steps", "last"], ["loss", "", "1 at step 2; 1 not finite"],
        ["edge ratio", "", "0.5 at step 7"],
    ]  # fmt: skip
    assert shown.count("<svg") == 1  # a single value is no curve
    assert Record.create(tmp_path / "empty")._repr_html_()


@pytest.mark.parametrize(
    "damage", [lambda rows: rows.unlink(), lambda rows: rows.write_text("<\n")]
)
def test_a_record_that_cannot_be_read_says_so(tmp_path, damage):
    record = Record.create(tmp_path / "run")
    damage(tmp_path / "run" / "rows.jsonl")
    ((heading, told),) = rows_of(record)
    assert heading == "not readable"
    assert re.search("rows.jsonl (cannot be read: No such file|is damaged in line 1)", told)
    assert repr(record) == f"Record({str(record.path)!r}, status='running', {told})"


def test_a_long_curve_takes_as_long_as_many_short_ones():
    """Each point is looked at a few times, and not once for each other one."""

    class Counted(float):
        looked = 0

        def __eq__(self, other):
            Counted.looked += 1
            return float(self) == float(other)

        __hash__ = float.__hash__

    sparkline([Counted(i) for i in range(9_000)], [float(i % 7) for i in range(9_000)])
    assert Counted.looked < 9_000


def test_names_are_escaped_once():
    shown = html_table("<i>", [("a&b", Svg("<svg></svg>"))])
    assert shown.partition(">")[2].startswith("<strong><bdi>&lt;i&gt;</bdi></strong>")
    assert "<bdi>a&amp;b</bdi></th>" in shown
    assert '"><svg></svg></td>' in shown
    cut = html_table("x" * 10_000, [])
    assert len(cut) < 500
    assert "x ..." in cut


def points(svg):
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", svg)]


def test_a_sparkline_has_gaps_and_keeps_extremes():
    (left, low), (middle, _), (right, high) = points(sparkline([0, 1, 2], [0.0, 5.0, 10.0]))
    assert 0 < left < middle < right < WIDTH
    assert HEIGHT > low > high > 0
    assert (
        re.sub(r"[\d. ]+", "", sparkline([0, 1, 2, 3], [1.0, math.nan, 2.0, 3.0])).count("M") == 2
    )
    spike = [0.0] * 3_000
    spike[1_234] = 9.0
    drawn = points(sparkline(range(3_000), spike))
    assert len(drawn) <= 2 * BUCKETS
    assert min(y for _, y in drawn) == high
    gap = [*spike[:500], *[math.nan] * 200, *spike[700:]]
    assert sparkline(range(3_000), gap).count("M") == 2
    logs = points(sparkline([0, 1, 2, 3], [1.0, 10.0, 100.0, 0.0], log=True))
    assert [y for _, y in logs] == [low, (low + high) / 2, high]
    assert sparkline([0, 1], [math.nan, math.inf]) == "" == sparkline([], [])
    assert len(points(sparkline([3], [2.0]))) == 1
    ended = points(sparkline([0, 1, 2], [0.0, 10.0, math.nan]))
    assert ended == [(left, low), (middle, high)]  # at their steps, of all
    assert {y for _, y in points(sparkline([0, 1], [1.0, 1.0 + 1e-8]))} == {HEIGHT / 2}
    assert [y for _, y in points(sparkline([0, 1], [-1.5e308, 1.5e308]))] == [low, high]


def test_notebooks_need_no_matplotlib():
    code = (
        "import sys, torch, lossgeom as lg; lg.spectral_density(torch.eye(3))._repr_html_(); "
        "lg.Estimate(1.0)._repr_html_(); assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
