"""What a dashboard shows of a row: finite numbers, by key."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

PREFIX = "lossgeom/"
DETAILS = ("residual", "stderr", "seconds")  # that verbose adds
OTHER = re.compile(r"[^\w.-]+")  # what not every dashboard takes in a key


def logged(row: Mapping[str, Any], *, verbose: bool = False) -> dict[str, float]:
    """The finite numbers of a row of a record, by the keys that dashboards show.

    Args:
        row: of a measurement.
        verbose: add the residual, the standard error and the seconds that it took.

    Returns:
        ``lossgeom/METRIC``, and ``lossgeom/METRIC/residual`` and so on; nothing for what is not
        finite, and what is not there.

    >>> row = {"step": 3, "metric": "loss (eval)", "value": 0.5, "stderr": None, "seconds": 0.25}
    >>> logged(row)
    {'lossgeom/loss_eval': 0.5}
    >>> logged(row, verbose=True)
    {'lossgeom/loss_eval': 0.5, 'lossgeom/loss_eval/seconds': 0.25}
    """
    name = PREFIX + key(row["metric"])
    found = {name: row["value"]}
    if verbose:
        found |= {f"{name}/{detail}": row.get(detail) for detail in DETAILS}
    return {name: float(x) for name, x in found.items() if x is not None and math.isfinite(x)}


def no_run(of: str, made_by: str, mirror: str, given: str = "run") -> ValueError:
    """The error where there is no run to log to, and none is asked for.

    Args:
        of: the dashboard.
        made_by: its function that begins a run.
        mirror: the class that has nothing to log to.
        given: what its argument is called.

    >>> print(no_run("W&B", "wandb.init", "WandB"))
    expected a run of W&B to log to: call wandb.init(...) first, pass WandB(run), or let \
WandB(start={...}) begin one with these settings
    """
    return ValueError(
        f"expected a run of {of} to log to: call {made_by}(...) first, pass {mirror}({given}), or "
        f"let {mirror}(start={{...}}) begin one with these settings"
    )


def key(name: str) -> str:
    """A name without what not every dashboard, or file system, takes.

    >>> key("sharpness (eval)"), key("λ_max")
    ('sharpness_eval', 'λ_max')
    """
    return OTHER.sub("_", name).strip("_")
