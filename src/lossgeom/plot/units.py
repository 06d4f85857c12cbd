"""Units of metrics, for the labels of axes."""

from __future__ import annotations

import re
from collections.abc import Iterable

from lossgeom.recording.metric_figures import Panel
from lossgeom.recording.record import Record

LOSSES = {"cross_entropy": "nats"}  # whose unit has a name
UNITS = (  # of what has one: with L for the loss, and θ for a parameter
    (r"loss(_sampling_error)?|adaptive_sharpness|(adaptive_)?worst_case_sharpness_lower_.*", "L"),
    (r"((momentum_)?batch_|directional_|critical_)?sharpness(_sampling_error)?", "L / θ²"),
    ("gradient_norm", "L / θ"),
    ("update_norm", "θ"),
    (r"\w+_parameter_jacobian_\w+", "output / θ"),
    (r"\w+_jacobian_\w+|lipschitz_global", "output / input"),
)


def with_unit(panel: Panel, records: Iterable[Record]) -> str:
    r"""What to call a metric on its axis, with its unit below, unless its study calls it otherwise.

    >>> with_unit(Panel("update_norm", "update norm"), [])
    'update norm\n(θ)'
    """
    name = panel.metric.partition(" (")[0]
    unit = next((unit for pattern, unit in UNITS if re.fullmatch(pattern, name)), None)
    losses = {LOSSES.get(record.manifest.get("loss") or "", "loss") for record in records}
    loss = losses.pop() if len(losses) == 1 else "loss"
    if panel.label != panel.metric.replace("_", " ") or unit in (None, loss.replace("loss", "L")):
        return panel.label
    return f"{panel.label}\n({unit.replace('L', loss)})"
