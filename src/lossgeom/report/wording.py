"""Words for measurements, in a terminal and on a page."""

from __future__ import annotations

import math
from typing import Any

from lossgeom.plot.style import threshold

NOT_CONVERGED = (
    "Values that have not converged are known no better than their residuals say; --max-matvecs "
    "allows more products, and --tol asks for less."
)


ASKED = "--mode train, or Problem(..., mode='train'), compares the loss that is trained"


def setting(problem: dict[str, Any] | None) -> str:
    """Say on what model, data and loss it was measured."""
    if problem is None:
        return "Nothing is measured yet"
    terms = problem["terms"]
    per = "" if terms in (None, problem["examples"]) else f" with {terms:,.10g} terms"
    return (
        f"{problem['parameters']:,} parameters, {problem['examples']:,} examples{per} in "
        f"{problem['batches']} batches, {problem['loss']}, {problem['mode']} mode, "
        f"{problem['dtype'].removeprefix('torch.')}"
    )


def verdict(stability: dict[str, Any]) -> str:
    """Say where sharpness is relative to the edge of stability.

    >>> found = {"lr": 0.7, "momentum": 0.0, "threshold": 20 / 7, "ratio": 0.75}
    >>> verdict({**found, "formula": "2/lr"})
    'Sharpness is 0.75 times 2/lr = 2.86, up to which full-batch steps with learning rate 0.7 are
    stable.'
    """
    known = stability["ratio"] is not None
    ratio = f"{stability['ratio']:.3g} times" if known else "not measured yet; the edge is"
    momentum = f" and momentum {stability['momentum']:g}" if stability["momentum"] else ""
    return (
        f"Sharpness is {ratio} {named_threshold(stability)}, up to which "
        f"full-batch steps with learning rate {stability['lr']:g}{momentum} are stable."
        + (f" Warning: {stability['caution']}; {ASKED}." if stability.get("caution") else "")
    )


def of_sgd(stability: dict[str, Any] | None) -> list[str]:
    """Say whether SGD was certified to be stable, line by line."""
    return list(((stability or {}).get("sgd") or {}).get("told", ()))


def notes_of(found: dict[str, Any]) -> list[str]:
    """Notes on how the measurement differs from training, without the one in the verdict."""
    notes = found["problem"]["notes"] if found["problem"] else []
    caution = (found["stability"] or {}).get("caution")
    return [note for note in notes if note != caution]


def named_threshold(stability: dict[str, Any]) -> str:
    """Name the edge of stability, by its formula where the record has it."""
    return threshold(formula_of(stability), stability["threshold"])


def formula_of(stability: dict[str, Any]) -> str:
    """The formula of the edge of stability, where the record has it."""
    return stability.get("formula") or "the edge of stability"


def rounded(value: float, error: float | None = None) -> str:
    """Write a value with as many digits as its error allows, six at most.

    >>> rounded(4.5983, 0.1988), rounded(0.79610246, 1e-7), rounded(1234567.0), rounded(math.nan)
    ('4.60', '0.796102', '1.23457e+06', 'nan')
    """
    if not math.isfinite(value) or value == 0 or not error or not math.isfinite(error):
        return f"{value:.6g}"
    digits = math.floor(math.log10(abs(value))) - math.floor(math.log10(error)) + 2
    return f"{value:#.{min(max(digits, 1), 6)}g}".rstrip(".")


def error_of(quantity: dict[str, Any]) -> str:
    """Write the error of a quantity; nothing for an exact one.

    >>> error_of({"stderr": 0.1988, "residual": None, "converged": True})
    '± 0.20'
    """
    if quantity["stderr"]:
        return "± " + f"{quantity['stderr']:#.2g}".rstrip(".")
    if quantity["residual"] is None:
        return ""
    doubt = "" if quantity["converged"] else ", not converged"
    return f"residual {quantity['residual']:.1e}{doubt}"
