"""The study's claims on records of known answer, and real runs."""

import math
from dataclasses import replace

import pytest
import torch

from lossgeom import Record
from lossgeom.lab.studies import quadratic_expansion as study
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies.quadratic_expansion.config import MODELS, PAPER, Config
from lossgeom.quadratic import Descent, compare_with_taylor, descend_parameters, network
from tests.lab.files import write_cifar10

pytestmark = pytest.mark.usefixtures("unchecked")

CONFIG = Config(steps=40, start=0, every=10)
TIMES = (0, 10, 20, 30, 40)
SHARPENING = {  # eigenvalue * lr / 2 at TIMES, by model
    "network": (0.6, 1.1, 1.0, 1.01, 0.99),
    "quadratic": (0.6, 0.9, 1.0, 0.99, 0.98),
    "linear": (0.6,) * 5,
}
ERRORS = {"linear": (0, 0.3, 0.4, 0.5, 0.6), "quadratic": (0, 0.05, 0.09, 0.2, 0.5)}
DISTANCES = (0, 0.5, 1.0, 1.5, 2.0)


def write(folder, seed, sharpening=SHARPENING, errors=ERRORS, diverged=()):
    """The six records of a seed; at the small learning rate eigenvalues are half as near."""
    for run in study.STUDY.plan(CONFIG, seed + 1)[-6:]:
        lr, model = run.place["lr"], run.place["model"]
        near = 0.5 if lr == CONFIG.small_lr else 1
        found = {"ntk": [2 / lr * near * value for value in sharpening[model]]}
        if model != "network":
            found |= {"taylor_error": errors[model], "distance": DISTANCES}
        record = Record.create(folder / run.name, run.settings)
        factor = 1 + 1e-4 * seed * (1 + (model == "quadratic"))
        columns = {
            name: factor * torch.tensor(values)[:, None].double() for name, values in found.items()
        }
        study.run.write(record, TIMES, columns)
        record.finish("diverged" if model in diverged else "finished")
        yield record


def claims_of(folder, **arguments):
    records = [record for seed in range(6) for record in write(folder, seed, **arguments)]
    return {claim.id: claim for claim in study.STUDY.judge(CONFIG, records)}


def test_what_the_statements_say(tmp_path):
    found = claims_of(tmp_path)
    assert len(found) == 8
    assert sum(claim.control for claim in found.values()) == 3
    assert all(claim.as_expected for claim in found.values())
    assert found["network_at_the_edge"].statistic == pytest.approx(1.0, abs=1e-3)
    assert found["quadratic_right_until_the_edge"].statistic == pytest.approx(0.05, abs=1e-4)
    assert found["quadratic_reaches_further"].statistic == pytest.approx(3, abs=1e-2)
    assert "That of the linear model is 0.60." in found["quadratic_departs_later"].note
    assert "1.00 (shown) times 2 / lr for the network" in study.claims.summary(
        CONFIG, [*found.values()]
    )


def test_every_claim_can_fail_and_every_control_be_shown(tmp_path):
    stay = {"network": (0.6,) * 5, "quadratic": (0.6,) * 5, "linear": (2.0,) * 5}
    good = dict.fromkeys(("linear", "quadratic"), (0, 0.05, 0.2, 0.2, 0.1))
    found = claims_of(tmp_path / "a", sharpening=stay, errors=good)
    for name in ("network_at_the_edge", "quadratic_at_the_edge", "quadratic_departs_later",
                 "quadratic_reaches_further"):  # fmt: skip
        assert found[name].verdict == "contradicted"
    assert found["quadratic_right_until_the_edge"].verdict == "inconclusive"  # it is never there
    both = {**SHARPENING, "linear": (1.0,) * 5, "network": (2.0,) * 5}
    swapped = {"linear": ERRORS["quadratic"], "quadratic": ERRORS["linear"]}
    sharp = {**both, "network": (0.6, 1.1, 2.0, 2.0, 2.0)}  # half of which is at the edge
    found = claims_of(tmp_path / "b", sharpening=sharp, errors=swapped)
    for name in ("linear_at_the_edge", "network_at_small_lr", "linear_right_until_the_edge"):
        assert found[f"control_{name}"].verdict == "shown"
    assert found["quadratic_right_until_the_edge"].verdict == "contradicted"


def test_divergence_is_not_at_the_edge(tmp_path):
    found = claims_of(tmp_path, diverged=("quadratic",))
    assert found["quadratic_at_the_edge"].verdict == "contradicted"
    assert math.isinf(found["quadratic_at_the_edge"].statistic)
    assert found["network_at_the_edge"].verdict == "shown"


SMALL = Config(steps=12, start=2, every=5, examples=10, widths=(4,))


def test_runs_are_those_of_the_comparison(tmp_path):
    problem = study.run.build(SMALL, seed=1)
    before = descend_parameters(network(problem), Descent(2, SMALL.lr))
    problem = problem.at(problem.theta + before.final["theta"][0])
    expected = compare_with_taylor(problem, Descent(10, SMALL.lr, every=5))
    for model in MODELS:
        run = SeedRun(model, 1, SMALL, {"lr": SMALL.lr, "model": model})
        record = Record.create(tmp_path / run.name, run.settings)
        study.run.run(run, record)
        assert record.status == "finished"
        steps, losses = record.series("loss")
        assert steps == record.manifest["planned_steps"] == [2, 7, 12]
        trajectory = getattr(expected, model)
        assert losses == pytest.approx(trajectory.losses[:, 0].tolist())
        assert record.series("ntk")[1] == pytest.approx(trajectory.ntk[:, 0].tolist())
        if model != "network":
            errors = expected.network.recorded[f"{model}_error"][:, 0].tolist()
            assert record.series("taylor_error")[1] == pytest.approx(errors)
        rows = record.rows()
        with Record.create(tmp_path / run.name, run.settings, resume=True) as again:
            study.run.run(run, again)  # as after a stop before the end
            assert again.rows() == rows


def test_data():
    x, y = study.run.two_classes(SMALL, seed=0)
    assert x.shape == (10, 64)
    assert set(y.flatten().tolist()) == {-1.0, 1.0}
    torch.testing.assert_close(x.mean(0), torch.zeros(64), rtol=0, atol=1e-6)
    assert not torch.equal(x, study.run.two_classes(SMALL, seed=1)[0])
    with pytest.raises(ValueError, match=r"at most 3.. examples of two classes"):
        study.run.two_classes(replace(SMALL, examples=1000), seed=0)


def test_divergence_is_recorded(tmp_path):
    config = replace(SMALL, lr=50.0, activation="relu", start=0, steps=100)
    wild = SeedRun("wild", 0, config, {"lr": 50.0, "model": "network"})
    record = Record.create(tmp_path / "wild", wild.settings)
    study.run.run(wild, record)
    assert record.status == "diverged"
    assert 0 < record.manifest["diverged_at"] <= 100


def test_images(tmp_path):
    """The preset for CIFAR-10 on a few images in the format of the real files."""
    write_cifar10(tmp_path / "data", images=30)
    folder = str(tmp_path / "data")
    config = replace(PAPER, folder=folder, examples=2, widths=(4,), steps=2, start=1, every=1)
    run = study.STUDY.plan(config, 1)[2]
    record = Record.create(tmp_path / "run", run.settings)
    study.run.run(run, record)
    assert record.series("taylor_error")[0] == [1, 2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"small_lr": 0.8}, r"expected 0 < small_lr < lr; got small_lr = 0\.8, lr = 0\.7$"),
        ({"start": 400}, "0 <= start < steps"),
        ({"every": 0}, "1 <= every <= steps"),
        ({"classes": (3, 10)}, "classes from 0 to 9"),
        ({"classes": (3, 3)}, "two different classes"),
        ({"examples": 1}, "two examples or more"),
        ({"widths": (0,)}, "widths of at least 1"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Config(**settings)
