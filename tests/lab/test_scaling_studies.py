"""Studies of scales and widths: their claims on records of known answer, and real runs."""

import math
from dataclasses import replace

import pytest
import torch

from lossgeom import Problem, Record, layer_summands
from lossgeom.lab.studies import input_scaling, target_scaling, width
from lossgeom.lab.studies._growth import ConstantRate
from lossgeom.lab.studies._network import NetworkSettings, build_with_indicators
from lossgeom.lab.studies._solution import JACOBIAN_MAX, SHARPNESS
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies.width.run import Linearised
from tests.conftest import without_checks
from tests.lab.files import write_cifar10

JACOBIAN = JACOBIAN_MAX.name
LEVEL = {
    f"{name}_{layer}": 1.0
    for name in ("summand", "tail_jacobian", "layer_jacobian")
    for layer in (1, 2)
} | {"root": 1.0}


def judged(study, folder, values, seeds=6, diverged=()):
    """The claims of records with what ``values`` gives for each place, along a run."""
    records = []
    for run in study.STUDY.plan(study.Config(), seeds):
        place = tuple(run.place.values())
        record = Record.create(folder / run.name, run.settings)
        for metric, series in values(*place).items():
            for step, value in enumerate(series):
                value = value ** (1 + 1e-6 * run.seed)  # so that seeds differ
                record.append({"step": step, "metric": metric, "value": value})
        record.finish("diverged" if place in diverged else "finished")
        records.append(record)
    found = study.STUDY.judge(study.Config(), records)
    assert study.STUDY.summary(study.Config(), found)
    return {claim.id: claim for claim in found}


def verdicts(found):
    return {name: claim.verdict for name, claim in found.items()}


# Inputs


def inputs_of_paper(scale, df=1.0, sharpness=0.1):
    """J grows as scale^-0.8, as would the first layer's part but for Df_1; the other's is 1."""
    jacobian = scale**-0.8
    ends = {**LEVEL, "tail_jacobian_1": jacobian, "layer_jacobian_1": scale**df}
    ends["layer_jacobian_2"] = scale**0.1  # and its alignment with the others grows
    ends["summand_1"] = (jacobian * scale**df) ** 2
    return {
        SHARPNESS.name: [1.0, 5 * scale**-sharpness, 4.0],
        JACOBIAN: [0.2, jacobian],
        **{name: [value] for name, value in ends.items()},
    }


def test_inputs_as_in_the_paper(tmp_path):
    found = judged(input_scaling, tmp_path, inputs_of_paper)
    assert all(claim.as_expected for claim in found.values())
    assert len(found) == 6
    assert found["jacobian_grows_more"].statistic == pytest.approx(0.8, abs=1e-3)
    assert found["sharpness_does_not"].statistic == pytest.approx(0.1 / 0.8, abs=1e-3)
    assert found["df_1_in_its_layer"].statistic == pytest.approx(1, abs=1e-3)
    assert found["df_1_of_all"].statistic == pytest.approx(2 / 3.6, abs=1e-3)  # of two halves
    assert "tail 0.444, layer 0.611, root 0, alignment -0.0556" in found["df_1_of_all"].note


def test_inputs_as_the_paper_has_it_nowhere(tmp_path):
    """Sharpness follows the Jacobian, and Df_1 does not shrink."""

    def values(scale):
        return inputs_of_paper(scale, df=-0.1, sharpness=1.6)

    found = verdicts(judged(input_scaling, tmp_path, values))
    assert found["sharpness_does_not"] == "contradicted"
    assert found["df_1_of_all"] == "contradicted"
    assert found["df_1_in_its_layer"] == "inconclusive"  # nothing falls short there


def test_inputs_of_which_a_run_diverged(tmp_path):
    found = judged(input_scaling, tmp_path, inputs_of_paper, diverged=[(0.5,)])
    assert set(verdicts(found).values()) == {"inconclusive"}
    assert "0 of 6 seeds give a value" in found["jacobian_grows_more"].note


# Targets


def targets_of_paper(kind, scale):
    grows = {"scaled": scale, "linear": scale, "shifted": scale**-0.1}[kind]
    sharpens = 2 * scale**0.5 if kind == "scaled" else 1.0
    return {SHARPNESS.name: [1.5, 1.5 * sharpens, 1.6], JACOBIAN: [0.2, grows]}


def test_targets_as_in_the_paper(tmp_path):
    found = judged(target_scaling, tmp_path, targets_of_paper)
    assert all(claim.as_expected for claim in found.values())
    assert len(found) == 4
    assert found["jacobian_grows"].statistic == pytest.approx(1, abs=1e-3)
    assert found["sharpens_more"].note.endswith(
        "mean over seeds is 0.48."
    )  # 1.6 / 1.5 at the smallest
    assert found["control_linear_model"].note.endswith("with a power of 1.00.")


def targets_of_none(kind, scale):
    return {SHARPNESS.name: [1, 2], JACOBIAN: [1, 1 + 0.01 * scale]}


def test_targets_that_change_nothing(tmp_path):
    found = judged(target_scaling, tmp_path, targets_of_none)
    assert {claim.verdict for claim in found.values()} == {"contradicted"}


# Width


def widths_of_paper(kind, size):
    if kind in ("linearised", "features"):
        return {SHARPNESS.name: [1.2, 1.2 + 1e-5]}
    most = 1 + 100 / size
    found = {SHARPNESS.name: [1.0, 1.0, most / 2, most], JACOBIAN: [1.0, 9.0]}
    first = {"tail_jacobian_1": [1, 9], "layer_jacobian_1": [1, 0.9], "summand_1": [1, 27]}
    return found | {name: [value, value] for name, value in LEVEL.items()} | first


def test_widths_as_in_the_paper(tmp_path):
    found = judged(width, tmp_path, widths_of_paper)
    assert all(claim.as_expected for claim in found.values())
    assert len(found) == 7
    last, first = (1 / 2 + 1 / 28) / 2 * math.log(81), (1 / 2 + 27 / 28) / 2 * math.log(3)
    assert found["tail_breaks"].statistic == pytest.approx(last / (last + first), abs=1e-3)
    assert "width 16 7.25, width 64 2.56, width 256 1.39" in found["wide_sharpen_less_ntk"].note


def test_widths_the_other_way_round(tmp_path):
    """Wide networks sharpen more, and so do kernels; Df shrinks, and tails grow as the whole."""

    def values(kind, size):
        found = widths_of_paper("standard", 1000 / size)
        both = {"summand_1": [1, 81 / 4], "summand_2": [1, 81 / 5]}
        for layer in (1, 2):
            both |= {f"tail_jacobian_{layer}": [1, 8.9], f"layer_jacobian_{layer}": [1, 0.5]}
        return found | both

    found = judged(width, tmp_path, values)
    assert {claim.verdict for claim in found.values() if not claim.control} == {"contradicted"}
    assert found["control_df_breaks"].verdict == "shown"


def test_widths_of_which_a_run_diverged(tmp_path):
    found = judged(width, tmp_path, widths_of_paper, diverged=[("standard", 256), ("features", 16)])
    for name in ("wide_sharpen_less_standard", "linear_do_not", "tail_breaks"):
        assert found[name].verdict == "inconclusive"
    assert found["wide_sharpen_less_ntk"].verdict == "shown"


# Runs

SHORT = ConstantRate(batch_size=20, epochs=4, every=2)
TINY = NetworkSettings(examples=20, chunk=20, widths=(6, 5))
CONFIGS = {
    input_scaling: {"training": SHORT, "network": TINY},
    target_scaling: {"training": SHORT, "network": TINY},
    width: {"training": SHORT, "network": TINY, "width": (4, 6, 8)},
}


def a_run(study, folder, changes=None, **place):
    config = study.Config(**{**CONFIGS[study], **(changes or {})})
    run = SeedRun("run", 100, config, place)
    record = Record.create(folder / "run", run.settings)
    with without_checks():
        study.run.run(run, record)
    assert record.status == "finished"
    return record


def test_a_run_with_scaled_inputs(tmp_path):
    record = a_run(input_scaling, tmp_path, input_scale=3.0)
    assert record.manifest["data"].endswith(", times 3")
    assert record.series(SHARPNESS.name)[0] == record.series(JACOBIAN)[0] == [0, 2, 4]
    assert record.series("layer_jacobian_3")[0] == [4]
    data = build_with_indicators(replace(TINY, input_scale=3.0), 100, centred=True)[1]
    x = torch.cat([data.train[0].flatten(1), torch.ones(20, 1)], dim=1)
    expected = torch.linalg.matrix_norm(x, 2).item()
    assert record.series("layer_jacobian_1")[1] == pytest.approx([expected], rel=0.02)


@pytest.mark.parametrize("kind", target_scaling.config.KINDS)
def test_a_run_with_scaled_targets(tmp_path, kind):
    record = a_run(target_scaling, tmp_path, kind=kind, target_scale=2.0)
    told = "targets times 0.25, plus 0.632" if kind == "shifted" else "targets times 2"
    assert record.manifest["data"].endswith(told)
    first, *_, last = record.series(SHARPNESS.name)[1]
    assert (last == pytest.approx(first, rel=1e-4)) == (kind == "linear")


@pytest.mark.parametrize("kind", width.config.KINDS)
def test_a_run_of_a_width(tmp_path, kind):
    record = a_run(width, tmp_path, kind=kind, width=6)
    assert record.config["study"]["network"]["widths"] == [6, 5]  # which the study does not use
    first, *_, last = record.series(SHARPNESS.name)[1]
    linear = kind in ("linearised", "features")
    assert (last == pytest.approx(first, rel=1e-4)) == linear
    assert record.series("tail_jacobian_1")[0] == ([0, 4] if kind == "standard" else [])
    losses = record.series("train_loss")[1]
    assert losses[-1] < losses[0]


def test_a_linearised_network(unchecked):
    model, data = build_with_indicators(TINY, 1, centred=True)
    x = data.train[0]
    linear = Linearised(model)
    torch.testing.assert_close(linear(x), model(x))
    before = [layer.matrix @ torch.ones(200) for layer in layer_summands(_problem(linear, data))]
    moved = [0.1 * torch.randn(p.shape) for p in linear.moved]
    with torch.no_grad():
        for parameter, by in zip(linear.moved, moved, strict=True):
            parameter += by
    once = linear(x) - model(x)
    with torch.no_grad():
        for parameter, by in zip(linear.moved, moved, strict=True):
            parameter += by
    torch.testing.assert_close(linear(x) - model(x), 2 * once, rtol=1e-4, atol=1e-5)
    after = [layer.matrix @ torch.ones(200) for layer in layer_summands(_problem(linear, data))]
    torch.testing.assert_close(after, before)


def _problem(model, data):
    return Problem(model, "squared_error", [data.train])


@pytest.mark.parametrize("study", CONFIGS)
def test_paper_presets_on_files_of_the_published_format(tmp_path, study):
    write_cifar10(tmp_path / "data", images=4)
    paper = study.config.PAPER
    small = replace(
        paper.network, folder=str(tmp_path / "data"), examples=4, channels=0.02, verify=False
    )
    short = replace(paper.training, batch_size=2, epochs=1, every=1)
    run = study.STUDY.plan(replace(paper, network=small, training=short), 1)[-1]
    record = Record.create(tmp_path / "run", run.settings)
    with without_checks():
        study.run.run(run, record)
    assert record.status == "finished"
    assert record.series(SHARPNESS.name)[0] == [0, 1, 2]
    assert math.isfinite(record.series(JACOBIAN)[1][-1])


@pytest.mark.parametrize(
    ("study", "settings", "message"),
    [
        (input_scaling, {"input_scales": (1.0, 2.0)}, "three or more increasing factors > 0"),
        (
            input_scaling,
            {"training": ConstantRate(epochs=800, every=0)},
            "every from 1 to the 800 steps; got every = 0",
        ),
        (
            target_scaling,
            {"target_scales": (0.0, 1.0, 2.0)},
            "three or more increasing factors > 0",
        ),
        (
            target_scaling,
            {"training": ConstantRate(every=401)},
            "every from 1 to the 400 steps; got every = 401",
        ),
        (width, {"width": (4, 4, 8)}, "three or more increasing widths of at least 1"),
        (
            width,
            {"network": NetworkSettings(widths=())},
            "an mlp with hidden layers, and parametrization standard",
        ),
        *(
            (
                study,
                {"training": ConstantRate(batch_size=501)},
                "a batch_size of 1 to .*00 examples; got batch_size = 501",
            )
            for study in CONFIGS
        ),
    ],
)
def test_bad_settings(study, settings, message):
    with pytest.raises(ValueError, match=message):
        study.Config(**settings)
