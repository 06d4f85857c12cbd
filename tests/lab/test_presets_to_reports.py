"""The papers' presets, from files in the format of the published ones to a report."""

import pytest

from lossgeom import Record
from lossgeom.cli.run import _parse_run
from lossgeom.lab.runner import run_study
from lossgeom.lab.studies import STUDIES
from lossgeom.recording.folder import run_folder
from lossgeom.report import render
from tests.conftest import without_checks
from tests.lab.files import write_cifar10
from tests.lab.test_lab import write_mnist
from tests.lab.test_run_study import Here

pytestmark = pytest.mark.usefixtures("pages_alone")
IMAGES = 20  # in all files to train on

NARROW = "--channels 0.02"
SHORT = {  # by what a user may say; but for NARROW, models are as wide as the presets have them
    "edge_of_stability": "--chunk 20 --steps 1 --every 1",
    "learning_rate": "--batch-size 10 --epochs 1 --measurements 1 --lr 0.01 0.02 0.05 "
    f"--measured-on 10 {NARROW}",
}
LONGER = {
    "sharpening_lower_bound": "--steps 2 --every 2 --label-smoothing 0 0.5 --examples 4 --chunk 2 "
    "--measured-on 3 --points 20",
    "layerwise_structure": "--batch-size 10 --steps 1 --lenet5-steps 1 --every 1 --pairs 10 "
    "--measured 10",
    "weight_decay": "--batch-size 10 --epochs 1 --measurements 1 --lr 0.05 --mediated 2 "
    f"--weight-decay 0 1e-4 1e-3 {NARROW}",
}
MNIST = ("layerwise_structure",)


def from_files_to_report(folder, name, flags):
    """The records of the runs of one seed, and the page about them."""
    if name in MNIST:
        write_mnist(folder / "data", IMAGES)
    else:
        write_cifar10(folder / "data", IMAGES // 5)
    given = ["--preset", "paper", "--folder", str(folder / "data"), "--seeds", "1"]
    if "--examples" not in flags:
        given += ["--examples", str(IMAGES)]
    study, out = STUDIES[name], folder / "run"
    options, config = _parse_run(study, [*given, *flags.split()])
    with without_checks():
        found = run_study(study, config, out, seeds=options.seeds, executor=Here())
        page = render([out]).read_text()
    runs = study.plan(config, options.seeds)
    records = [Record.open(run_folder(out, run.name)) for run in runs]
    assert found
    assert study.title in page
    assert [record.status for record in records] == ["finished"] * len(runs)
    return records


@pytest.mark.parametrize(
    ("name", "flags"),
    [*SHORT.items(), *(pytest.param(*each, marks=pytest.mark.slow) for each in LONGER.items())],
)
def test_from_files_to_report(tmp_path, name, flags):
    records = from_files_to_report(tmp_path, name, flags)
    assert all(record.rows() for record in records)


@pytest.mark.slow
def test_resnet18_as_wide_as_the_papers(tmp_path):
    flags = SHORT["learning_rate"].replace(NARROW, "")
    records = from_files_to_report(tmp_path, "learning_rate", flags)
    assert {record.manifest["parameters"] for record in records} == {11_173_962}
