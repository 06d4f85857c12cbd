"""``lossgeom list``."""

from __future__ import annotations

import dataclasses
from typing import Any

from lossgeom.cli.arguments import parsed
from lossgeom.cli.messages import show

TOO = " Of a step, too."


@dataclasses.dataclass(frozen=True)
class ListOptions:
    """List studies, models, data sets, metrics and bounds."""


def main(arguments: list[str]) -> int:
    """Print the names of each kind, with a line on each; return the exit status."""
    parsed(ListOptions, arguments, "list")
    from lossgeom.cli.bound import summaries
    from lossgeom.lab.datasets import DATASETS
    from lossgeom.lab.generators import GENERATORS
    from lossgeom.lab.models import MODELS
    from lossgeom.lab.studies import STUDIES
    from lossgeom.metrics import METRICS, STEP_METRICS

    of = {metric.__name__: _first_line(metric) for metric in METRICS}
    of_steps = {metric.__name__: _first_line(metric) for metric in STEP_METRICS}
    kinds = {
        "studies": {name: study.title for name, study in STUDIES.items()},
        "models": {name: _first_line(model) for name, model in MODELS.items()},
        "data sets": {name: _first_line(data) for name, data in DATASETS.items()},
        "generated tasks": {name: _first_line(task) for name, task in GENERATORS.items()},
        "metrics": {name: text + (TOO if name in of_steps else "") for name, text in of.items()},
        "metrics of a step": {name: text for name, text in of_steps.items() if name not in of},
        "bounds": summaries(),
    }
    for kind, members in kinds.items():
        show(kind)
        for name, text in members.items():
            show(f"  {name:<24}{text}")
    return 0


def _first_line(thing: Any) -> str:
    return str(thing.__doc__).strip().split("\n")[0].replace("``", "")
