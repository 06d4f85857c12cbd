"""The study input_smoothness: its claims on records of known answer, and its settings."""

import math

import numpy as np
import pytest

from lossgeom import Record
from lossgeom.lab.studies import input_smoothness as study
from lossgeom.lab.studies._network import NetworkSettings
from lossgeom.lab.studies._study import FIRST_SEED
from lossgeom.lab.studies.input_smoothness.config import Config
from lossgeom.lab.studies.input_smoothness.measures import G_W, G_X, RATIOS

NETWORK = NetworkSettings(examples=20)
CONFIG = Config(lr=(0.1, 0.2, 0.4), batch_size=(5, 10, 20), interpolation=0.01, network=NETWORK)
RATIO = {"largest": 0.8, "averaged": 0.5, "mispaired": 2.0}


def flat(lr, batch_size):
    """A seminorm that is the smaller the more noise there is."""
    return batch_size**1.1 / lr


def write(folder, seed, *, g_w=flat, g_x=flat, test=flat, ratios=RATIO, losses=None, missing=()):
    """Records of one seed whose runs end with given functions of lr and batch size."""
    records = []
    for run in study.STUDY.plan(CONFIG, seed + 1)[-9:]:
        place = tuple(run.place.values())
        if place in missing:
            continue
        record = Record.create(folder / run.name, run.settings)
        ends = {"loss": (losses or {}).get(place, 0.005), "sharpness": 1.0}
        ends |= {metric.name: g_w(*place) for metric in G_W.values()}
        ends |= {metric.name: g_x(*place) for metric in G_X.values()}
        ends |= {m.name: ratios[form] for form, each in RATIOS.items() for m in each}
        for metric, value in {**ends, "test_loss": test(*place)}.items():
            record.append({"step": 100, "metric": metric, "value": value})
        record.finish()
        records.append(record)
    return records


def claims_of(folder, seeds=6, **answers):
    records = [r for seed in range(seeds) for r in write(folder, seed, **answers)]
    return {claim.id: claim for claim in study.STUDY.judge(CONFIG, records)}


def test_what_the_paper_says(tmp_path):
    found = claims_of(tmp_path)
    controls = {name for name, claim in found.items() if claim.control}
    assert controls == {
        "control_shuffled_k1", "control_shuffled_k2", "control_mispaired_inequality"
    }  # fmt: skip
    assert len(found) == 7 + len(controls)
    assert all(claim.as_expected for claim in found.values())
    assert found["spearman_k1"].note.endswith("54 of 54 runs interpolate.")
    assert found["spearman_k2"].note.endswith("For k = 3 it is 1.00.")
    text = study.claims.summary(CONFIG, list(found.values()))
    assert "7 of 7 statements are shown" in text
    assert "3 of 3 negative controls fail" in text


def test_every_claim_can_come_out_against_the_paper(tmp_path):
    """g_W is as in the paper, g_x is the other way round, and so is the test loss."""
    found = claims_of(
        tmp_path,
        g_x=lambda lr, size: 1 / flat(lr, size),
        test=flat,
        ratios={"largest": 1.1, "averaged": 1.1, "mispaired": 0.9},
    )
    assert {claim.verdict for claim in found.values() if not claim.control} == {"contradicted"}
    assert found["control_mispaired_inequality"].verdict == "shown"
    assert not found["control_mispaired_inequality"].as_expected


def test_both_seminorms_have_to_move(tmp_path):
    for still in ("g_w", "g_x"):
        found = claims_of(tmp_path / still, **{still: lambda lr, size: lr / size})
        assert found["larger_lr_lower_left"].verdict == "contradicted"
        assert found["smaller_batch_lower_left"].verdict == "contradicted"


def test_the_control_is_shown_where_shuffling_changes_nothing(tmp_path, monkeypatch):
    class Still:
        def permutation(self, values):
            return np.array(values)

    monkeypatch.setattr(study.claims.np.random, "default_rng", lambda seed: Still())
    found = claims_of(tmp_path)
    for k in (1, 2):
        assert found[f"control_shuffled_k{k}"].verdict == "shown"
        assert not found[f"control_shuffled_k{k}"].as_expected


def test_shuffling_is_fixed_by_the_seed(tmp_path):
    twice = [claims_of(tmp_path / name)["control_shuffled_k1"] for name in ("a", "b")]
    assert twice[0].per_seed == twice[1].per_seed
    assert len(set(twice[0].per_seed)) > 1


def test_the_full_batch_makes_no_noise(tmp_path):
    """There the learning rate may do what it wants, and the note says what it does."""

    def other_way(lr, size):
        return flat(lr, size) if size < 20 else 1000 * lr

    found = claims_of(tmp_path, g_w=other_way, g_x=other_way)["larger_lr_lower_left"]
    assert found.per_seed == (-1,) * 6
    assert "5: -1.00, 10: -1.00, 20: 1.00." in found.note


def test_runs_that_do_not_interpolate_are_left_out(tmp_path):
    """They would turn the correlations round; the inequality holds for them, too."""
    out = {(0.1, 5): 0.02, (0.4, 20): 0.01}

    def wild(lr, size):
        return 1e6 * lr if (lr, size) in out else flat(lr, size)

    kept = claims_of(tmp_path / "kept", g_x=wild)
    assert max(kept["spearman_k1"].per_seed) < 0.9
    found = claims_of(tmp_path / "out", g_x=wild, losses=out)
    assert found["spearman_k1"].statistic == 1
    assert "42 of 54 runs interpolate" in found["spearman_k1"].note
    assert found["larger_lr_lower_left"].per_seed == (-1,) * 6
    assert found["g_x_predicts_test_loss"].statistic == 1
    violated = claims_of(
        tmp_path / "violated", losses=out, ratios={**RATIO, "largest": 2.0}
    )["inequality"]  # fmt: skip
    assert violated.verdict == "contradicted"


def test_why_a_run_is_left_out(tmp_path):
    first = write(tmp_path, 0, losses={(0.1, 5): 0.02, (0.1, 10): 0.01, (0.1, 20): math.nan})
    reasons = [study.run.left_out(record) for record in first[:4]]
    assert reasons == [
        "loss 0.02 after 100 steps, not below 0.01",
        "loss 0.01 after 100 steps, not below 0.01",
        "loss nan after 100 steps, not below 0.01",
        "",
    ]


def test_too_little_to_say(tmp_path):
    """One seed says little but where it is a counterexample; nor do a few runs that interpolate."""
    one = claims_of(tmp_path / "one", 1)
    assert one.pop("control_mispaired_inequality").verdict == "contradicted"
    assert all(claim.verdict == "inconclusive" for claim in one.values())
    places = [(lr, size) for lr in CONFIG.lr for size in CONFIG.batch_size]
    found = claims_of(tmp_path / "few", 6, losses=dict.fromkeys(places[4:], 1.0))
    assert found["spearman_k1"].verdict == "inconclusive"
    assert "0 of 6 seeds give a value" in found["spearman_k1"].note
    assert found["smaller_batch_lower_left"].verdict == "shown"  # from one learning rate
    assert found["larger_lr_lower_left"].verdict == "inconclusive"
    assert found["inequality"].verdict == "shown"


def test_a_seed_without_one_of_its_runs_is_left_out(tmp_path):
    records = [r for seed in range(2) for r in write(tmp_path, seed)]
    records += write(tmp_path, 2, missing=[(0.1, 5)])
    assert {len(claim.per_seed) for claim in study.STUDY.judge(CONFIG, records)} == {2}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": (0.0, 0.1, 0.2)}, r"learning rates > 0; got lr = \(0\.0, 0\.1, 0\.2\)$"),
        ({"lr": (0.1, 0.2, math.nan)}, "learning rates > 0"),
        ({"lr": (0.1, 0.2)}, "three or more increasing learning rates"),
        ({"lr": (0.1, 0.3, 0.2)}, "three or more increasing learning rates"),
        ({"batch_size": (4, 10, 10)}, "three or more increasing batch sizes"),
        ({"batch_size": (0, 10, 20)}, "batch sizes of 1 to 200 examples; got batch_size = "),
        ({"batch_size": (4, 10, 201)}, "batch sizes of 1 to 200 examples"),
        ({"interpolation": 0.0}, r"interpolation > 0; got interpolation = 0\.0"),
        ({"every": 0}, "1 <= every <= steps; got every = 0, steps = 6000"),
        ({"every": 7}, "steps a multiple of every; got every = 7"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Config(**settings)


def test_the_plan():
    runs = study.STUDY.plan(CONFIG, 2)
    assert len(runs) == 2 * 3 * 3
    assert {run.seed for run in runs[:9]} == {FIRST_SEED}
    assert runs[0].name == f"lr0.1-batch5-seed{FIRST_SEED}"
    assert {study.STUDY.steps(run) for run in runs} == {CONFIG.steps}
