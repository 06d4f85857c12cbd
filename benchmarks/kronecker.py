"""``python -m benchmarks.kronecker``: how far Kronecker products are from blocks of the models.

Printed are tables for the documentation: of each layer, and of medians over the layers of a model.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

import lossgeom as lg
from benchmarks.cases import CASES, Case
from benchmarks.table import markdown, publish

BEGIN, END = "<!-- kronecker: begin -->", "<!-- kronecker: end -->"
TOKENS = 2  # of a sequence: each has as many columns as there are words
EXAMPLES = {"mlp": 200, "vgg": 32, "resnet_eval": 32, "gpt": 2}
BEST = "best"


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
    """The table of a model: relative errors."""
    first, *_ = errors.layers
    head = ["layer", "size", *first.errors]
    rows = [
        [
            f"`{layer.name}`",
            "{} x {}".format(*layer.shape),
            *(cell(error) for error in layer.errors.values()),
        ]
        for layer in errors.layers
    ]
    return markdown(head, rows)


def cell(error: lg.Estimate) -> str:
    """A relative error, with its bar where that shows."""
    bar = f" ± {error.stderr:.3f}" if (error.stderr or 0.0) >= 5e-4 else ""
    return f"{error.value:.3f}{bar}{'' if error.converged else '?'}"


def medians(found: Mapping[str, lg.KroneckerErrors]) -> tuple[str, str]:
    """Tables of all models: errors by that of the closest product, and traces."""
    names = list(next(iter(found.values())).layers[0].errors)
    others = [name for name in names if name != BEST]
    errors, traces = [], []
    for title, model in found.items():
        best = [layer.errors[BEST].value for layer in model.layers]
        ratios = [
            [layer.errors[name].value / own for layer, own in zip(model.layers, best, strict=True)]
            for name in others
        ]
        errors.append([title, *map(middle, ratios), f"{statistics.median(best):.3f}"])
        of_traces = ([layer.trace_ratios[name] for layer in model.layers] for name in names)
        traces.append([title, *map(middle, of_traces)])
    return markdown(["", *others, f"error of {BEST}"], errors), markdown(["", *names], traces)


def middle(values: Sequence[float]) -> str:
    """The median."""
    return f"{statistics.median(values):.2f}"


def parts(options: Options) -> Iterator[str]:
    """All tables."""
    found = {}
    for name in options.cases:
        case = CASES[name](options.quick)
        found[name] = lg.kronecker_errors(problem(case, 2 if options.quick else EXAMPLES[name]))
        sys.stderr.write(f"{name}\n")
    errors, traces = medians(found)
    yield errors
    yield "Traces, relative to that of the block, medians over layers:"
    yield traces
    for name, model in found.items():
        yield f"#### `{name}`"
        yield layers(model)


def main(arguments: list[str] | None = None) -> int:
    """Print the tables, or put them into a page; return the exit status."""
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks.kronecker")
    return publish(lambda: "\n\n".join(parts(options)), options.into, BEGIN, END)


if __name__ == "__main__":
    sys.exit(main())
