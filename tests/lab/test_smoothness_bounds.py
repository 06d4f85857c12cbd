"""The study smoothness_bounds: its claims on records of known answer, and a small real run."""

import math
from dataclasses import replace

import pytest
import torch

from lossgeom import Record
from lossgeom.lab.studies import smoothness_bounds as study
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies.smoothness_bounds.claims import change
from lossgeom.lab.studies.smoothness_bounds.config import Config
from tests.lab import claims_of_stages

CONFIG = Config(lr=(0.1, 0.2, 0.4), batch_size=(1, 2, 4), sizes=(10, 20, 40))


def numbers(*, trace, error, attack, attack_bound, first_order, unfitted, cells, masses, smooth):
    """Of a seed, with a trace and bounds on it, on errors and on attacks for every run."""
    ends = {
        f"lr{lr:g}-batch{B}": {
            "value": trace(lr, B), "value_bound": 2 * B / lr, "error": error, "error_bound": 1.0,
            "attack": attack(lr, B), "attack_bound": attack_bound(lr, B),
            "first_order": first_order, "g_x": 10 * error, "g_x_bound": 9.0,
        }
        for lr in CONFIG.lr for B in CONFIG.batch_size
    }  # fmt: skip
    sizes = {
        f"examples{n}": {"value": cells(n), "masses": masses(n), "theorem": 1 / n,
                         "smooth": smooth(n), "error": 0.01 / n}
        for n in CONFIG.sizes
    }  # fmt: skip
    return {**ends, "unfitted": {"value": unfitted}, **sizes}


GOOD = numbers(
    trace=lambda lr, B: 1.6 / lr * B**0.1,
    error=0.1,
    attack=lambda lr, B: 0.1 - 0.05 * lr + 1e-3 * B,
    attack_bound=lambda lr, B: 0.2 - 0.1 * lr + 2e-3 * B,
    first_order=1.5,
    unfitted=2.0,
    cells=lambda n: n**-0.5,
    masses=lambda n: n**-0.7,
    smooth=lambda n: n**-2.0,
)
BAD = numbers(
    trace=lambda lr, B: {(0.4, 2): 1000.0, (0.1, 4): 0.1, (0.2, 4): 0.1}.get((lr, B), 1.0),
    error=1.5,
    attack=lambda lr, B: 5.0 - lr - 0.01 * B,
    attack_bound=lambda lr, B: 0.1 + 0.1 * lr + 1e-3 * B,
    first_order=0.9,
    unfitted=0.5,
    cells=lambda n: n**-1.2,
    masses=lambda n: n**-1.2,
    smooth=lambda n: n**-0.5,
)


def varied(found):
    """The numbers of six seeds, each a little off in its own way."""
    generator = torch.Generator().manual_seed(0)

    def near(value):
        return value * (1 + 1e-3 * torch.rand((), generator=generator).item())

    return [
        {stage: {name: near(value) for name, value in row.items()} for stage, row in found.items()}
        for _ in range(6)
    ]


def test_what_the_papers_say(tmp_path):
    found = claims_of_stages(study.STUDY, CONFIG, tmp_path, varied(GOOD))
    assert all(claim.as_expected for claim in found), [c.id for c in found if not c.as_expected]
    by_id = {claim.id: claim for claim in found}
    assert by_id["close"].statistic == pytest.approx(0.8, rel=1e-2)
    assert by_id["faster"].statistic == pytest.approx(0.5, rel=1e-2)
    assert "theorem 6.1 -1.00" in by_id["faster"].note
    text = study.claims.summary(CONFIG, found)
    assert "11 of 11 statements are shown, and 4 of 4 negative controls fail" in text
    assert "errors are at most 0.10 of their certified bound" in text


def test_every_claim_can_come_out_against_it_and_every_control_be_shown(tmp_path):
    for claim in claims_of_stages(study.STUDY, CONFIG, tmp_path, varied(BAD)):
        expected = "shown" if claim.control else "contradicted"
        assert claim.verdict == expected, claim.id


def test_runs_that_do_not_fit_are_left_out(tmp_path):
    some = varied(GOOD)
    for seed in some:
        for B in CONFIG.batch_size[1:]:
            seed[f"lr0.4-batch{B}"] = {"value": math.nan}
    found = {c.id: c for c in claims_of_stages(study.STUDY, CONFIG, tmp_path, some)}
    assert found["generalisation"].verdict == found["smaller_batch"].verdict == "shown"


@pytest.mark.quick
def test_changes_along_lines():
    lines = [[(0.1, 1), (0.2, 1), (0.4, 1)], [(0.1, 2), (0.2, 2), (0.4, 2)]]
    values = dict(zip([place for line in lines for place in line], [1, 9, 4, 9, 2, 1], strict=True))
    assert change(lines, values) == pytest.approx(2 / 3)
    del values[0.4, 2]
    assert change(lines, values) == pytest.approx(4)
    assert math.isnan(change(lines[1:], values))


def test_a_run(tmp_path, unchecked):
    config = replace(
        Config(), examples=6, lr=(0.1, 0.2, 50.0), batch_size=(1, 2, 6), sizes=(6, 12, 18),
        widths=(8,), scale=1.0, interpolation=5e-3, steps=600, new=20,
    )  # fmt: skip
    run = SeedRun("run", 0, config, {})
    record = Record.create(tmp_path / "run", run.settings)
    stages = study.run.stages(config)
    names = ["lr0.1-batch1", "lr50-batch1", "unfitted", "traces", "examples6", "rates"]
    kept = {name: stages[name] for name in names}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study.run, "stages", lambda _: kept)
        patch.setattr(study.run, "drawn", lambda *_: {"value": 0.0})
        study.run.run(run, record)
    rows = {row["metric"]: row for row in record.rows()}
    first = rows["lr0.1-batch1"]
    assert 0 < first["value"] < first["value_bound"] == pytest.approx(20)
    assert first["error"] < first["error_bound"]
    assert 0 < first["attack"] < first["attack_bound"]
    assert math.isnan(rows["lr50-batch1"]["value"])
    assert math.isnan(rows["examples6"]["value"])  # of the largest learning rate
    fitted = replace(run, study=replace(config, lr=(0.05, 0.1, 0.2)))
    sizes = study.run.at_size(6, fitted, record)
    assert 0 < sizes["error"] < sizes["masses"] < sizes["value"]
    assert sizes["error"] < sizes["smooth"] < sizes["theorem"]
    assert rows["unfitted"]["value"] > 0


def test_figures(tmp_path):
    record = Record.create(tmp_path / "run", {})
    for step, (name, row) in enumerate(GOOD.items(), 1):
        record.append({"step": step, "metric": name, **row})
    run = SeedRun("run", 0, CONFIG, {})
    assert study.run.traces(run, record)["value"] == pytest.approx(4.0)
    assert study.run.rates(run, record)["value"] == pytest.approx(40**-0.5)
    drawn, _ = record.load_arrays("traces")
    torch.testing.assert_close(drawn["line_y"], 2 / drawn["x"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": (0.1, 0.2)}, "3 or more increasing levels; got lr"),
        ({"sizes": (20, 10, 30)}, "3 or more increasing levels; got sizes"),
        ({"lr": (0.0, 0.2, 0.3)}, "positive levels; got lr"),
        ({"batch_size": (1, 4, 21)}, "no batch of more than all examples"),
        ({"sizes": (1, 4, 21), "batch_size": (2, 3, 4)}, "no batch of more than all examples"),
        ({"attack": 0.0}, "positive numbers"),
        ({"epsilon": 1.0}, "0 < epsilon < 1"),
        ({"widths": (0,)}, "widths of at least 1"),
        ({"new": 0}, "at least 1"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        replace(Config(), **settings)
