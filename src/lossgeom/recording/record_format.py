"""The form of each file of a record, which is checked when it is read or written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from lossgeom.bounds.bound import Bound
from lossgeom.bounds.row import Row
from lossgeom.messages.wording import printable
from lossgeom.recording.claim import Claim
from lossgeom.recording.for_report import ForReport
from lossgeom.recording.forms import ArrayName, parse

SCHEMA = 2
MEASUREMENT = "measurement"  # the kind of a record of one point
BOUND = "bound"  # and of one that holds what a theorem promises there
MATRICES = {
    "loss": "Loss",
    "hessian": "Hessian H",
    "gauss_newton": "Gauss-Newton matrix G",
    "residual": "Residual term H - G",
    "layers": "Largest eigenvalue of each layer's Hessian",
}


class RecordError(Exception):
    """A folder is not what was expected; nothing has been written."""

    def __str__(self) -> str:
        return printable(str(self.args[0]))


@dataclass(frozen=True)
class Contents:
    """What a record that is over holds: how many rows, checksums of files, names of arrays."""

    rows: int
    sha256: Mapping[str, str]
    arrays: tuple[ArrayName, ...]


@dataclass(frozen=True)
class PlannedQuantity:
    """A number that is to be measured at a point, and what it is a number of."""

    part: str
    matrix: Annotated[str, MATRICES]
    metric: str
    label: str


@dataclass(frozen=True)
class SGDStability:
    """Whether SGD stays near a point, as it was certified, in words and numbers.

    The numbers are those of ``SGDCertificate``.
    """

    batch_size: int
    sampling: str
    state: Annotated[str, ("stable", "unstable", "between")]
    told: tuple[str, ...]
    reasons: tuple[str, ...] = ()
    examples: int | None = None
    lower: float | None = None
    upper: float | None = None
    threshold: float | None = None
    ratio: float | None = None
    smallest_batch: int | None = None
    minimum: str | None = None
    gradient_norm: float | None = None
    example_gradient_norm: float | None = None
    residual: float | None = None
    lowest: float | None = None
    sharpness: float | None = None
    single_batch: float | None = None
    noise_kernel: float | None = None
    excess_loss: float | None = None
    bounds: Mapping[str, float] | None = None
    moments: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Stability:
    """The edge of stability of an optimiser, to compare the sharpness at a point with."""

    lr: float
    momentum: float
    threshold: float
    formula: str | None = None
    caution: str | None = None
    sgd: SGDStability | None = None


@dataclass(frozen=True)
class Watched:
    """The optimisers of a run that is watched, and what their threshold is.

    Attributes:
        optimizers: their types, such as ``"SGD"``.
        first_step: the number of the first step that was seen, by whoever watched last.
        budget: the share of wall-clock time that measuring keeps to; ``None`` for no limit.
        formula: of the threshold.
        matrix: whose largest eigenvalue is compared with it.
        status: of the threshold, ``"ok"``, ``"nominal"`` or ``"unknown"``.
        instead: what answers where it is unknown.
        unknown: the types of which none is known.
        full_batch: whether the optimisers get the gradient of what is measured; ``None`` where
            that is not known.
        maximized: whether they raise the loss.
    """

    optimizers: tuple[str, ...]
    first_step: int = 0
    budget: float | None = None
    formula: str | None = None
    matrix: str | None = None
    status: str | None = None
    instead: str | None = None
    unknown: tuple[str, ...] = ()
    full_batch: bool | None = None
    maximized: bool = False


@dataclass(frozen=True)
class Manifest:
    """The fields of a manifest, without those for the report; users may add more."""

    schema: int
    kind: str
    config: dict[str, Any]
    status: str
    created: str
    versions: Mapping[str, str]
    git_commit: str | None
    machine: dict[str, Any]
    ended: str | None = None
    contents: Contents | None = None
    loss: str | None = None
    mode: str | None = None
    parameters: int | None = None
    dtype: str | None = None
    device: str | None = None
    examples: int | None = None
    batches: int | None = None
    terms: float | None = None
    geometry: dict[str, Any] | None = None
    planned: tuple[PlannedQuantity, ...] | None = None
    stability: Stability | None = None
    bound: Bound | None = None
    compared: tuple[Row, ...] | None = None
    compared_with: Mapping[str, str] | None = None
    watched: Watched | None = None
    checkpoint_notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measured:
    """A row with a number; with the learning rate and threshold of its step, where it has one.

    And whether that is nominal.
    """

    step: int
    metric: str
    value: float
    status: str | None = None
    message: str | None = None
    lr: float | None = None
    threshold: float | None = None
    nominal: bool | None = None


@dataclass(frozen=True)
class Estimated:
    """The fields that a row of a measurement at a point has as well."""

    status: str
    stderr: float | None
    residual: float | None
    converged: bool
    matvecs: int
    seconds: float


def check_manifest(manifest: Mapping[str, Any]) -> None:
    """Raise a ValueError with what is wrong with a manifest."""
    for kind in (Manifest, ForReport):
        parse(kind, manifest, others=True)


def read_json(path: Path) -> Any:
    """Read the content of a JSON file.

    Raises:
        FileNotFoundError: if there is none.
        RecordError: if it cannot be read.
    """
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"{path} cannot be read: {error}") from None


def read_claims(path: Path) -> tuple[Claim, ...]:
    """Read the claims of a file, and check that their verdicts follow from their numbers.

    Raises:
        FileNotFoundError: if there is none.
        RecordError: if it is damaged.
    """
    content, claims = read_json(path), []
    try:
        for i, each in enumerate(parse(tuple[dict[str, Any], ...], content)):
            claim = parse(Claim, each, f"[{i}]", others=True)
            if each.get("verdict") != claim.verdict:
                found = printable(repr(each.get("verdict"))[:40])
                raise ValueError(f"expected {claim.verdict} at [{i}].verdict, found {found}")
            claims.append(claim)
    except ValueError as error:
        raise RecordError(f"{path} is damaged: {error}") from None
    return tuple(claims)
