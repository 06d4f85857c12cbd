"""The study batch_size: its claims on records of known answer, its settings, its presets."""

import math
from dataclasses import replace

import pytest

from lossgeom import Record
from lossgeom.lab.studies._network import NetworkSettings
from lossgeom.lab.studies.batch_size import PAPER, STUDY, Config, claims, run
from tests.conftest import without_checks
from tests.lab import on_few_images
from tests.lab.sweeps import ONCE, claims_of, ended

CONFIG = Config(batch_size=(5, 10, 25, 50), varied=50, network=NetworkSettings(examples=50))


def paper(equal, lr, batch_size, variation=1.0):
    """At the largest rate, the Jacobian falls while the gap grows with the local variation."""
    last = lr == CONFIG.lr[-1]
    sign = -1 if last else 1
    v = batch_size**variation
    more = {run.FOUND: v, run.CERTIFIED: 1.5 * v} if last else {}
    return batch_size / lr, 20 + sign * batch_size / 10, 0.1 + batch_size / 1000, more


def test_what_the_paper_says(tmp_path):
    found = claims_of(tmp_path, STUDY, CONFIG, paper)
    assert [name for name, claim in found.items() if claim.control] == ["control_shuffled"]
    assert len(found) == 13 + 1
    failed = {name for name, claim in found.items() if not claim.as_expected}
    assert failed == {"jacobian_beats_sharpness"}  # the paper's own exception is too large a part
    assert found["variation_explains_the_gap"].note == "Of 72 pairs, 72 are such."
    assert found["variation_certainly_rises"].statistic == pytest.approx(10 / 1.5, rel=1e-2)
    assert "batch 5 0.67" in found["variation_certainly_rises"].note
    assert claims.summary(CONFIG, list(found.values())).endswith(
        "a gap that grows while the Jacobian norm falls is shown."
    )


def test_the_variation_need_not_explain_it(tmp_path):
    found = claims_of(
        tmp_path, STUDY, CONFIG, lambda **place: paper(**place, variation=-0.5)
    )  # fmt: skip
    for name in (
        "variation_rises_at_largest_lr", "variation_explains_the_gap", "variation_certainly_rises"
    ):  # fmt: skip
        assert found[name].verdict == "contradicted"


def test_nothing_needs_an_explanation_where_both_rise(tmp_path):
    def rising(equal, lr, batch_size):
        sharpness, _, gap, more = paper(equal, lr, batch_size)
        return sharpness, batch_size, gap, more

    found = claims_of(tmp_path, STUDY, CONFIG, rising)
    assert found["jacobian_falls_at_largest_lr"].verdict == "contradicted"
    assert found["variation_explains_the_gap"].verdict == "inconclusive"
    assert "Of 72 pairs, 0 are such." in found["variation_explains_the_gap"].note
    assert found["variation_beats_jacobian"].verdict == "contradicted"


def test_the_two_kinds_of_equality_are_judged_apart(tmp_path):
    def only_epochs(equal, lr, batch_size):
        found = paper(equal, lr, batch_size)
        return found if equal == "epochs" else (1 / batch_size, 20 - batch_size / 10, *found[2:])

    found = claims_of(tmp_path, STUDY, CONFIG, only_epochs)
    for name in ("sharpness_rises", "jacobian_rises"):
        assert found[f"{name}_at_equal_epochs"].verdict == "shown"
        assert found[f"{name}_at_equal_updates"].verdict == "contradicted"


def test_runs_that_diverge_are_in_no_pair(tmp_path):
    def diverging(equal, lr, batch_size):
        return None if batch_size == 5 else paper(equal, lr, batch_size)

    found = claims_of(tmp_path, STUDY, CONFIG, diverging)
    assert found["variation_explains_the_gap"].note == "Of 36 pairs, 36 are such."
    assert found["gap_rises_at_largest_lr"].verdict == "contradicted"
    assert found["variation_certainly_rises"].verdict == "inconclusive"


def test_how_long_runs_are():
    steps = {
        (each.place["equal"], each.place["batch_size"]): STUDY.steps(each)
        for each in STUDY.plan(Config(), 1)
    }
    assert [steps["epochs", size] for size in Config().batch_size] == [2000, 1000, 400, 200]
    assert {steps["updates", size] for size in Config().batch_size} == {800}
    assert Config(updates=1).recipe("updates", 0.1, 50).epochs == 1
    last = [each for each in STUDY.plan(PAPER, 1) if each.place["equal"] == "updates"]
    assert [STUDY.steps(each) for each in last] == pytest.approx([35_000] * 15, rel=0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": (0.0, 0.1)}, r"learning rates > 0, increasing; got lr = \(0\.0, 0\.1\)$"),
        ({"lr": (0.1,)}, "expected 2 or more learning rates"),
        ({"lr": (0.2, 0.1)}, "expected 2 or more learning rates"),
        ({"batch_size": (10, 20)}, "three or more increasing batch sizes"),
        ({"batch_size": (0, 10, 20)}, "1 to 500 examples; got batch_size"),
        ({"batch_size": (5, 10, 501)}, "1 to 500 examples"),
        ({"varied": 0}, "1 to 500 examples"),
        ({"updates": 0}, "1 or more; got updates = 0"),
        ({"radius": 0.0}, "radius > 0; got radius = 0"),
        ({"radius": math.inf}, "radius > 0"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Config(**settings)


def test_the_variation_is_bracketed_at_the_largest_rate_alone(tmp_path):
    config = replace(
        CONFIG, lr=(0.05, 0.1), sgd=ONCE, batch_size=(5, 20, 40), varied=3,
        network=NetworkSettings(examples=40, widths=(6,)),
    )  # fmt: skip
    for each in STUDY.plan(config, 1)[2:4]:
        with without_checks(), Record.create(tmp_path / each.name, each.settings) as record:
            STUDY.run(each, record)
        found = [record.series(name)[1] for name in (run.FOUND, run.CERTIFIED)]
        if each.place["lr"] == config.lr[-1]:
            (lower,), (upper,) = found
            assert 0 < lower <= upper
        else:
            assert found == [[], []]


def test_the_papers_model_and_data(tmp_path):
    """The paper's preset on a few images in the format of the real files, and a narrow ResNet18.

    At a learning rate at which the variation, which takes a minute for each image, is left out.
    """
    network = on_few_images(
        PAPER.network, tmp_path / "data", 6, examples=4, chunk=4, channels=1 / 64
    )
    config = replace(PAPER, sgd=ONCE, updates=1, batch_size=(2, 3, 4), varied=1, network=network)
    each = STUDY.plan(config, 1)[0]
    with without_checks(), Record.create(tmp_path / "run", each.settings) as record:
        STUDY.run(each, record)
    assert record.status == "finished"
    assert record.series("sharpness")[0] == [2]


def test_a_seed_without_one_of_its_runs_is_left_out(tmp_path):
    records = ended(tmp_path, STUDY, CONFIG, paper, seeds=2)[:-1]
    assert {len(claim.per_seed) for claim in STUDY.judge(CONFIG, records)} == {1}
