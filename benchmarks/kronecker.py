"""``python -m benchmarks.kronecker``: how far Kronecker products are from blocks of the models.

Printed are tables for the documentation: of each layer, and of medians over the layers of a model.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

import lossgeom as lg
from benchmarks.cases import CASES, Case
from benchmarks.table import markdown, publish

BEGIN, END = "<!-- kronecker: begin -->", "<!-- kronecker: end -->"
TOKENS = 2  # of a sequence: each has as many columns as there are words
EXAMPLES = {"mlp": 200, "vgg": 32, "resnet_eval": 32, "gpt": 4}
BEST, EXACT = "best", "decoupling"


@dataclass(frozen=True)
class Options:
    """What to measure."""

    cases: tuple[str, ...] = tuple(EXAMPLES)
    """Names of models; one with statistics of the batch has no blocks of single examples."""
    quick: bool = False
    """Little data: shows that everything runs."""
    into: Path | None = None
    """A page with the two lines that the tables go between; None prints them."""


def problem(case: Case, examples: int) -> lg.Problem:
    """The first examples of a case, and of sequences the first tokens."""
    batches = case.batches
    if case.loss == "token_cross_entropy":
        batches = [(x[:, :TOKENS], y[:, :TOKENS]) for x, y in batches]
    whole = lg.Problem(case.model, case.loss, batches, mode=case.mode, check=False)
    return whole.take(min(examples, case.N))


def layers(errors: lg.KroneckerErrors) -> str:
    """The table of a model: relative errors, with the trace of the decoupling."""
    first, *_ = errors.layers
    head = ["layer", "size", *first.errors, "trace"]
    rows = [
        [
            f"`{layer.name}`",
            "{} x {}".format(*layer.shape),
            *(cell(error) for error in layer.errors.values()),
            f"{layer.trace_ratios[EXACT]:.2f}",
        ]
        for layer in errors.layers
    ]
    return markdown(head, rows)


def cell(error: lg.Estimate) -> str:
    """A relative error, with its bar where that shows."""
    bar = f" ± {error.stderr:.3f}" if (error.stderr or 0.0) >= 5e-4 else ""
    return f"{error.value:.3f}{bar}{'' if error.converged else '?'}"


def medians(found: Sequence[tuple[str, lg.KroneckerErrors]]) -> str:
    """The table of all models: errors by that of the closest product, medians over layers."""
    names = list(found[0][1].layers[0].errors)
    rows = []
    for title, errors in found:
        ratios = {
            name: statistics.median(
                layer.errors[name].value / layer.errors[BEST].value for layer in errors.layers
            )
            for name in names
        }
        best = statistics.median(layer.errors[BEST].value for layer in errors.layers)
        ratios.pop(BEST)
        rows.append([title, *(f"{ratio:.2f}" for ratio in ratios.values()), f"{best:.3f}"])
    head = ["", *(name for name in names if name != BEST), f"error of {BEST}"]
    return markdown(head, rows)


def parts(options: Options) -> Iterator[str]:
    """All tables."""
    found = []
    for name in options.cases:
        case = CASES[name](options.quick)
        at = problem(case, 2 if options.quick else EXAMPLES[name])
        sys.stderr.write(f"{name}\n")
        found.append((name, lg.kronecker_errors(at)))
    yield medians(found)
    for name, errors in found:
        yield f"#### `{name}`"
        yield layers(errors)


def main(arguments: list[str] | None = None) -> int:
    """Print the tables, or put them into a page; return the exit status."""
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks.kronecker")
    return publish(lambda: "\n\n".join(parts(options)), options.into, BEGIN, END)


if __name__ == "__main__":
    sys.exit(main())
