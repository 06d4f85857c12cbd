"""What the tests of the studies share."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from lossgeom import Claim, Record
from lossgeom.lab.studies._network import Network
from lossgeom.lab.studies._study import SeedRun, Study
from tests.conftest import without_checks
from tests.lab.files import write_cifar10


class StopError(Exception):
    """A run is stopped on its way."""


def varied(numbers: dict[str, dict[str, float]], seeds: int = 6) -> list[dict[str, Any]]:
    """The numbers of a seed for several, which differ by less than a thousandth."""
    return [
        {
            stage: {name: value * (1 + 1e-4 * seed) for name, value in row.items()}
            for stage, row in numbers.items()
        }
        for seed in range(seeds)
    ]


def claims_of_stages(
    study: Study, config: Any, folder: Path, numbers: list[dict[str, Any]]
) -> list[Claim]:
    """The claims on records whose seeds have these numbers in the stages of a study."""
    records = []
    for seed, each in enumerate(numbers):
        record = Record.create(folder / f"seed{seed}", SeedRun("run", seed, config, {}).settings)
        for step, (name, row) in enumerate(each.items(), 1):
            record.append({"step": step, "metric": name, **row})
        record.finish()
        records.append(record)
    return study.judge(config, records)


def run_of(study: Study, run: SeedRun, folder: Path) -> Record:
    """The record of a run, without checks of annotations."""
    with without_checks(), Record.create(folder, run.settings) as record:
        study.run(run, record)
    return record


def on_few_images(network: Network, folder: Path, images: int, **changes: Any) -> Network:
    """A network of CIFAR-10 on a few images, in the format of the real files."""
    write_cifar10(folder, images)
    assert network.data == "cifar10"
    return replace(network, folder=str(folder), **changes)
