"""``lossgeom --tyro-print-completion SHELL``: what a shell completes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import make_dataclass
from typing import Annotated, Any, Union

import tyro

from lossgeom.cli.all_bounds import AllBoundsOptions
from lossgeom.cli.arguments import REGISTRY
from lossgeom.cli.doctor import DoctorOptions
from lossgeom.cli.listing import ListOptions
from lossgeom.cli.measure import MeasureOptions
from lossgeom.cli.mirror import MirrorOptions
from lossgeom.cli.pac_bayes import PacBayesOptions
from lossgeom.cli.report import ReportOptions
from lossgeom.cli.run import ALL, RunOptions


def main(arguments: list[str]) -> int:
    """Print the script of a shell; return the exit status."""
    from lossgeom.lab.studies import STUDIES

    runs = dict.fromkeys([*STUDIES, ALL], RunOptions)
    bounds = {"all": AllBoundsOptions, "pac-bayes": PacBayesOptions}
    commands = {
        "list": ListOptions,
        "run": make_dataclass("Run", [("study", _one_of(runs))]),
        "report": ReportOptions,
        "measure": MeasureOptions,
        "bound": make_dataclass("Bound", [("name", _one_of(bounds))]),
        "mirror": MirrorOptions,
        "doctor": DoctorOptions,
    }
    tyro.cli(
        _one_of(commands),
        args=arguments,
        prog="lossgeom",
        registry=REGISTRY,
        config=[tyro.conf.OmitSubcommandPrefixes],
    )
    return 0


def _one_of(commands: Mapping[str, type]) -> Any:
    kinds = [Annotated[kind, tyro.conf.subcommand(name)] for name, kind in commands.items()]
    return Union[tuple(kinds)]  # noqa: UP007
