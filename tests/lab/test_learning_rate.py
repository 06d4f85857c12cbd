"""The study learning_rate: its claims on records of known answer, its settings, its presets."""

import math
from dataclasses import replace

import pytest

from lossgeom import Record
from lossgeom.lab.studies._network import NetworkSettings
from lossgeom.lab.studies._solution import JACOBIAN, SHARPNESS
from lossgeom.lab.studies._sweep import Ends, SgdSettings
from lossgeom.lab.studies.learning_rate import PAPER, STUDY, Config, claims
from tests.conftest import without_checks
from tests.lab import on_few_images
from tests.lab.sweeps import ONCE, claims_of, ended

CONFIG = Config(network=NetworkSettings(examples=50, widths=(6,)))


def falling(lr, batch_size):
    return batch_size / lr, 20 - 5 * lr, 0.2 - lr / 10, {}


def test_what_the_paper_says(tmp_path):
    found = claims_of(tmp_path, STUDY, CONFIG, falling)
    assert [name for name, claim in found.items() if claim.control] == ["control_shuffled"]
    for name in ("sharpness_falls", "jacobian_falls", "gap_falls"):
        assert found[name].verdict == "shown"
        assert found[name].per_seed == (-1,) * 6
    assert found["control_shuffled"].as_expected
    assert found["jacobian_beats_sharpness"].verdict == "shown"
    assert found["jacobian_beats_sharpness"].note.startswith("Means over seeds: Jacobian norm 1.00")
    assert "4 of 4 statements are shown" in claims.summary(CONFIG, list(found.values()))


def test_every_statement_can_come_out_against_the_paper(tmp_path):
    found = claims_of(tmp_path, STUDY, CONFIG, lambda lr, batch_size: (lr, 1 / lr, lr, {}))
    assert found["sharpness_falls"].verdict == found["gap_falls"].verdict == "contradicted"
    assert found["jacobian_beats_sharpness"].verdict == "contradicted"
    assert found["jacobian_beats_sharpness"].per_seed == (-2,) * 6


def test_no_difference_is_not_a_larger_correlation(tmp_path):
    found = claims_of(tmp_path, STUDY, CONFIG, lambda lr, batch_size: (1 / lr, 1 / lr, 1 / lr, {}))
    assert found["jacobian_beats_sharpness"].per_seed == (0,) * 6
    assert found["jacobian_beats_sharpness"].verdict == "contradicted"


def test_a_run_that_diverged_is_infinite(tmp_path):
    """It would be the largest learning rate with the smallest gap; correlations are without it."""

    def breaking(lr, batch_size):
        return None if lr == 0.3 else falling(lr, batch_size)

    found = claims_of(tmp_path, STUDY, CONFIG, breaking)
    assert found["gap_falls"].verdict == "contradicted"
    assert found["gap_falls"].per_seed == pytest.approx([0.0] * 6)
    assert (
        found["gap_falls"].note
        == "Runs that diverged or learned nothing, and count as infinite: 12."
    )
    assert found["jacobian_beats_sharpness"].verdict == "shown"


def test_so_is_one_that_learned_nothing(tmp_path):
    records = ended(tmp_path, STUDY, CONFIG, falling, seeds=1, train_accuracy=0.1)
    place = tuple(records[0].config[name] for name in ("batch_size", "lr"))
    (found,) = (Ends.of(seed) for seed in _seeds(records))
    assert found.runs[place] is None
    assert found.at(place, SHARPNESS.name) == math.inf
    assert math.isnan(found.correlation(JACOBIAN.name, "gap"))
    assert math.isnan(found.trend("gap", 1))


def _seeds(records):
    seen = []
    replace(STUDY, claims=lambda _, seeds: seen.extend(seeds) or []).judge(CONFIG, records)
    return seen


def test_lines_are_of_one_value_of_the_other_settings():
    ends = {
        (size, lr): {"gap": size * lr if size == 2 else -lr} for size in (1, 2) for lr in (1, 2, 3)
    }
    found = Ends(0, ends)
    assert found.trend("gap", 1) == 0
    assert found.only({0: (2,)}).trend("gap", 1) == 1
    assert sorted(map(str, found.shuffled().runs.values())) == sorted(map(str, ends.values()))
    assert list(found.shuffled().runs) == list(ends)
    assert found.shuffled() == found.shuffled() != replace(found, seed=1).shuffled()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"lr": (0.0, 0.1, 0.2)},
            r"learning rates > 0, increasing; got lr = \(0\.0, 0\.1, 0\.2\)$",
        ),
        ({"lr": (0.1, 0.3, 0.2)}, "expected 3 or more learning rates"),
        ({"lr": (0.1, 0.3)}, "expected 3 or more learning rates"),
        ({"batch_size": (0,)}, r"batch sizes of 1 to 500 examples; got batch_size = \(0,\)"),
        ({"batch_size": (501,)}, "batch sizes of 1 to 500 examples"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Config(**settings)


@pytest.mark.parametrize("settings", [{"epochs": 0}, {"measurements": 0}])
def test_bad_lengths(settings):
    with pytest.raises(ValueError, match="expected 1 or more; got epochs = "):
        SgdSettings(**settings)


def test_the_papers_model_and_data(tmp_path):
    """The paper's preset on a few images in the format of the real files, and a narrow ResNet18."""
    network = on_few_images(
        PAPER.network, tmp_path / "data", 6, examples=6, chunk=6, channels=1 / 64
    )
    assert (network.data, network.model, network.batch_norm) == ("cifar10", "resnet18", True)
    config = replace(PAPER, sgd=ONCE, batch_size=(3,), network=network)
    run = STUDY.plan(config, 1)[0]
    with without_checks(), Record.create(tmp_path / "run", run.settings) as record:
        STUDY.run(run, record)
    assert record.status == "finished"
    assert STUDY.steps(run) == 2
    assert record.series(JACOBIAN.name)[0] == [2]
