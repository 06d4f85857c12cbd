"""The presets with the papers' models and data, for a few steps on files of the published formats.

Those of other studies are tried beside their other tests.
"""

import math
from dataclasses import replace

import pytest

from lossgeom.lab.studies import STUDIES
from tests.lab import run_of
from tests.lab.files import write_cifar10
from tests.lab.test_lab import write_mnist

WRITTEN = {"cifar10": write_cifar10, "mnist": write_mnist}
SMALL = {  # settings of the study, and of its network, and what a run is to measure
    "batch_norm": (
        {"steps": 2, "every": 1},
        {"examples": 4, "channels": 0.02},
        "softmax_jacobian_norm_mean",
    ),
    "jacobian_intervention": ({"steps": 2, "every": 1}, {"examples": 4, "channels": 0.02}, "gap"),
    "sgd_stability": (
        {
            "descent_steps": 20, "noisy_steps": 20, "noisy_lr": (0.02,), "noisy_batch_size": (2,),
            "batch_size": (1, 4), "every": 10, "problems": 1, "replicas": 40,
            "population_steps": 8, "steps": 60,
        },
        {"examples": 8, "widths": (4,)},
        "end_lr0.02_batch2",
    ),
    "eigenspace_overlap": (
        {"narrow": (2,), "models": 2, "epochs": 1, "pairs": 3, "batch_size": 4},
        {"examples": 12, "chunk": 6, "widths": (8, 8)},
        "wide",
    ),
    "pac_bayes": (
        {"epochs": 1, "bound_epochs": 2, "batch_size": 4, "samples": 10},
        {"examples": 12, "widths": (4,)},
        "bound",
    ),
}  # fmt: skip


SECOND = [  # data sets that take a flag, whose images of 3 x 32 x 32 take long to decompose
    pytest.param("eigenspace_overlap", "cifar10", marks=pytest.mark.slow),
    pytest.param("pac_bayes", "cifar10", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(
    ("name", "data"), [*((name, STUDIES[name].paper.network.data) for name in SMALL), *SECOND]
)
def test_papers_models_and_data(tmp_path, name, data):
    study, (few, small, metric) = STUDIES[name], SMALL[name]
    paper = study.paper
    WRITTEN[data](tmp_path / "data", images=12)
    folder = str(tmp_path / "data")
    network = replace(paper.network, data=data, folder=folder, verify=False, **small)
    run = study.plan(replace(paper, network=network, **few), 1)[-1]
    record = run_of(study, run, tmp_path / run.name)
    assert record.status == "finished"
    assert math.isfinite(record.series(metric)[1][-1])
