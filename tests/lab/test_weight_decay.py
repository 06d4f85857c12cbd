"""The study weight_decay: its claims on records of known answer, its settings, its presets."""

import math
from dataclasses import replace

import pytest

from lossgeom import Record
from lossgeom.lab.studies._network import NetworkSettings
from lossgeom.lab.studies.weight_decay import PAPER, STUDY, Config, claims, run
from tests.conftest import without_checks
from tests.lab import on_few_images
from tests.lab.sweeps import ONCE, claims_of

CONFIG = Config(mediated=50, network=NetworkSettings(examples=50, widths=(6,)))


def paper(lr, weight_decay, root=6.0, layer=0.8, tail=0.7):
    """With decay, C gets larger by a factor, and the other mediators smaller."""
    d = weight_decay / 3e-3
    mediating = {
        "root": 0.01 * root**d,
        "layer_jacobian_1": 5.0, "layer_jacobian_2": 7.0 * layer**d,
        "tail_jacobian_1": 9.0 * tail**d, "tail_jacobian_2": 2.0,
    }  # fmt: skip
    summands = {
        f"summand_{i}": 0.1
        * (mediating["root"] * mediating[f"layer_jacobian_{i}"] * mediating[f"tail_jacobian_{i}"])
        ** 2
        for i in (1, 2)
    }
    others = {"train_loss": 1e-4 + weight_decay, **mediating, **summands}
    return 0.1 + 300 * weight_decay, 30 / (1 + d), 0.2 / (1 + d), others


def test_what_the_paper_says(tmp_path):
    found = claims_of(tmp_path, STUDY, CONFIG, paper)
    assert all(claim.as_expected for claim in found.values())
    assert {name for name, claim in found.items() if claim.control} == {
        "control_layer_breaks_the_ansatz", "control_tail_breaks_the_ansatz", "control_shuffled"
    }  # fmt: skip
    assert len(found) == 8 + 3
    assert found["sharpness_vanishes"].statistic == pytest.approx(10, rel=1e-3)
    assert found["jacobian_and_gap_stay"].statistic == pytest.approx(2, rel=1e-3)
    text = claims.summary(CONFIG, list(found.values()))
    assert "8 of 8 statements are shown" in text
    assert "without C" in text


def test_the_parts_of_a_change_add_up(tmp_path):
    """In the mean over the two layers, of which each has one mediator that does not change."""
    found = claims_of(tmp_path, STUDY, CONFIG, paper)["root_breaks_the_ansatz"]
    root, layer, tail = 2 * math.log(6), math.log(0.8), math.log(0.7)
    assert found.statistic == pytest.approx(layer + tail, rel=1e-3)
    assert found.note == (
        f"Means over seeds: summand {root + layer + tail:+.2f}, tail {tail:+.2f}, layer "
        f"{layer:+.2f}, root {root:+.2f}, alignment +0.00."
    )


def test_another_mediator_can_break_it(tmp_path):
    def other(lr, weight_decay):
        return paper(lr, weight_decay, root=0.5, layer=50.0)

    found = claims_of(tmp_path, STUDY, CONFIG, other)
    assert found["root_breaks_the_ansatz"].verdict == "contradicted"
    assert found["root_changes_most"].verdict == "contradicted"
    assert found["control_layer_breaks_the_ansatz"].verdict == "shown"


def test_every_other_statement_can_come_out_against_the_paper(tmp_path):
    def other(lr, weight_decay):
        *_, more = paper(lr, weight_decay)
        return 1 / (1 + weight_decay), 10 + weight_decay, 0.1 + weight_decay, more

    found = claims_of(tmp_path, STUDY, CONFIG, other)
    shown = {name for name, claim in found.items() if claim.verdict == "shown"}
    assert shown == {"root_breaks_the_ansatz", "root_changes_most", "jacobian_beats_sharpness"}


def test_nothing_is_known_where_the_runs_that_are_compared_diverge(tmp_path):
    def diverging(lr, weight_decay):
        return paper(lr, weight_decay) if 0 < weight_decay < 3e-3 else None

    found = claims_of(tmp_path, STUDY, CONFIG, diverging)
    assert found["root_breaks_the_ansatz"].verdict == "inconclusive"
    assert found["sharpness_vanishes"].verdict == "inconclusive"
    assert found["gap_falls"].verdict == "contradicted"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": (-0.1,)}, r"learning rates > 0, increasing; got lr = \(-0\.1,\)$"),
        ({"weight_decay": (0.0, 1.0)}, "three or more weight decays, increasing from 0"),
        ({"weight_decay": (0.1, 0.2, 0.3)}, "three or more weight decays, increasing from 0"),
        ({"weight_decay": (0.0, 0.1, math.inf)}, "three or more weight decays, increasing from 0"),
        ({"batch_size": 0}, "1 to 500 examples; got batch_size = 0, mediated = 500"),
        ({"mediated": 501}, "1 to 500 examples"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Config(**settings)


def test_the_papers_model_and_data(tmp_path, monkeypatch):
    """The paper's preset on a few images in the format of the real files, and a narrow ResNet18.

    The mediators of its twenty layers, which take a minute, are left out.
    """
    asked = []

    def none(problem, seed):
        asked.append((problem.outputs(problem.theta, problem.first_batch()).shape, seed))
        return {}

    monkeypatch.setattr(run, "mediators", none)
    network = on_few_images(
        PAPER.network, tmp_path / "data", 6, examples=4, chunk=4, channels=1 / 64
    )
    config = replace(PAPER, sgd=ONCE, batch_size=4, mediated=2, network=network)
    first = STUDY.plan(config, 1)[0]
    with without_checks(), Record.create(tmp_path / "run", first.settings) as record:
        STUDY.run(first, record)
    assert record.status == "finished"
    assert record.series("sharpness")[0] == [1]
    assert asked == [((2, 10), first.seed)]
