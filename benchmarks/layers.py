"""``python -m benchmarks.layers``: layer-wise curvature and PAC-Bayes, as tables of the docs.

Kronecker factors of all layers beside curvlinops' KFAC of the same type; the top eigenpairs of the
exact Hessian block of every layer beside SciPy's eigsh on other libraries' products, which are told
nothing; a bound beside plain training; and the memory of factors as the data grows.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import Tensor, nn

import lossgeom as lg
from benchmarks.cases import CASES, Case, draw
from benchmarks.machine import commit, machine, now
from benchmarks.memory import peak_megabytes
from benchmarks.peers import curvlinops, double_backward
from benchmarks.peers._peer import Pairs
from benchmarks.peers.lossgeom import problem
from benchmarks.plain import gradient
from benchmarks.table import markdown, publish
from benchmarks.timing import Check, Lap, race, timed
from lossgeom.lab.datasets import digits
from lossgeom.lab.models import mlp

BEGIN, END = "<!-- layers: begin -->", "<!-- layers: end -->"
OURS, CHECKED, KFAC = "lossgeom", "lossgeom, problem checked before", "curvlinops' KFAC"
PAIRS = 20
Kind = Literal["exact", "sampled", "empirical"]
KINDS: dict[Kind, str] = {
    "exact": "type-2",
    "sampled": "mc",
    "empirical": "empirical",
}
RIGHT = 2e-3  # relative, of eigenvalues whose residual may be 1e-3
Factors = dict[str, tuple[Tensor, Tensor]]
BASES = ("standard", "decoupled", "recomputed")


@dataclass(frozen=True)
class Options:
    """What to run."""

    cases: tuple[str, ...] = ("mlp", "vgg")
    """Models and data, of which the first one's eigenpairs are taken, too."""
    repeats: int = 5
    """Rounds, whose medians are printed."""
    k: int = PAIRS
    """Eigenpairs of every layer."""
    epochs: int = 100
    """Of training, and of the search for a bound."""
    quick: bool = False
    """Little data: shows that everything runs."""
    into: Path | None = None
    """A page with the two lines that the tables go between; None prints them."""


def factors(case: Case, repeats: int) -> str:
    """Factors of all layers: the time of each type, in gradients, and how far they agree."""
    rows = []
    for kind, theirs in KINDS.items():
        checked = problem(case)
        _our_factors(checked, kind)
        runs: dict[str, Callable[[], Factors]] = {
            OURS: partial(_factors_anew, case, kind),
            CHECKED: partial(_our_factors, checked, kind),
            KFAC: partial(_their_factors, case, theirs),
        }
        laps = _race(case, runs, lambda found: {"status": "right", "found": found}, repeats)
        times: dict[str, Any] = {name: lap.summary()["gradients"] for name, lap in laps.items()}
        found: dict[str, Any] = {name: lap.verdict["found"] for name, lap in laps.items()}
        apart = _apart(found[OURS], found[KFAC])
        rows.append(
            [
                kind,
                *(f"{time:.1f}" for time in times.values()),
                *(f"{times[name] / times[KFAC]:.2f}" for name in (OURS, CHECKED)),
                "both are random" if kind == "sampled" else f"{apart:.0e}",
            ]
        )
    head = ["Fisher", OURS, CHECKED, KFAC, "ratio", "ratio, checked before"]
    return markdown([*head, "largest difference"], rows)


def _factors_anew(case: Case, kind: Kind) -> Factors:
    return _our_factors(problem(case), kind)


def _our_factors(at: lg.Problem, kind: Kind) -> Factors:
    found = lg.kronecker_factors(at, curvature=kind)
    return {layer.name: (layer.outputs.double(), layer.inputs.double()) for layer in found}


def _their_factors(case: Case, kind: str) -> Factors:
    from curvlinops import KFACLinearOperator

    found = KFACLinearOperator(
        case.model,
        nn.CrossEntropyLoss(),
        case.parameters,
        case.batches,
        check_deterministic=False,
        fisher_type=kind,
        num_data=case.N,
    )
    found.compute_kronecker_factors()
    outputs, inputs = found._gradient_covariances, found._input_covariances
    return {name: (outputs[name].double(), inputs[name].double()) for name in outputs}


def _apart(ours: Factors, theirs: Factors) -> float:
    """The largest relative difference of the Kronecker products of factors."""

    def difference(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> float:
        square, other = (float(p[0].norm() * p[1].norm()) ** 2 for p in (a, b))
        inner = float((a[0] * b[0]).sum() * (a[1] * b[1]).sum())
        return math.sqrt(max(square - 2 * inner + other, 0.0) / other)

    return max(difference(ours[name], theirs[name]) for name in ours)


def eigenpairs(case: Case, k: int, repeats: int) -> str:
    """The top pairs of every layer, set-up included, in gradients."""
    layers = [layer.parameters[0] for layer in lg.kronecker_factors(problem(case))]
    right = [
        _values(double_backward, _only(case.copy(torch.float64), name), k, 1) for name in layers
    ]

    def check(found: list[Tensor]) -> dict[str, object]:
        pairs = zip(found, right, strict=True)
        error = max(float((a.double() - b).abs().max() / b.abs().max()) for a, b in pairs)
        return {"status": "right" if error <= RIGHT else "wrong", "error": error}

    peers = {"double backward + eigsh": double_backward, "curvlinops + eigsh": curvlinops}
    runs: dict[str, Callable[[], list[Tensor]]] = {OURS: partial(_our_pairs, case, k)}
    for name, peer in peers.items():
        for threads in (None, 1):
            title = name if threads is None else f"{name}, one BLAS thread"
            runs[title] = partial(_their_pairs, peer, case, layers, k, threads)
    laps = _race(case, runs, check, repeats)
    times: dict[str, Any] = {name: lap.summary() for name, lap in laps.items()}
    fastest = min(t["gradients"] for n, t in times.items() if n != OURS and t["status"] == "right")
    rows = [
        [name, f"{t['gradients']:.0f}", f"{t['error']:.0e}", t["status"]]
        for name, t in times.items()
    ]
    ours = times[OURS]["gradients"]
    return (
        markdown(["", "gradients", "largest error", ""], rows)
        + f"\n\nThe fastest of the others takes {fastest / ours:.1f} times as long."
    )


def _our_pairs(case: Case, k: int) -> list[Tensor]:
    return [pairs.values for pairs in lg.layer_eigenpairs(problem(case), k).values()]


def _their_pairs(
    peer: Any, case: Case, layers: Sequence[str], k: int, threads: int | None
) -> list[Tensor]:
    return [_values(peer, _only(case, name), k, threads) for name in layers]


def _values(peer: Any, case: Case, k: int, threads: int | None) -> Tensor:
    pairs: Pairs = peer.top(case, min(k, case.P - 1), threads)
    return pairs.values.double().sort(descending=True).values


def _only(case: Case, name: str) -> Case:
    """The case in one parameter alone."""
    copied = case.copy()
    for other, parameter in copied.model.named_parameters():
        parameter.requires_grad_(other == name)
    return copied


def _race(
    case: Case, runs: Mapping[str, Callable[[], Any]], check: Check[Any], repeats: int
) -> dict[str, Lap]:
    timing = {name: partial(timed, run) for name, run in runs.items()}
    laps = race(timing, partial(gradient, case.copy()), check, repeats)
    for name, lap in laps.items():
        if not lap.units:
            raise ValueError(f"{name}: {lap.verdict['message']}")
    return laps


def bound(epochs: int, examples: int, repeats: int) -> str:
    """An epoch of the search for a bound, beside one of training."""
    data, batch = digits(examples, 0, False), 100
    x, y = data.train[0].flatten(1), data.train[1] % 2
    batches = list(zip(torch.split(x, batch), torch.split(y, batch), strict=True))
    initial = mlp(64, 2, [100], "relu", 0)
    case = Case("digits", "", mlp(64, 2, [100], "relu", 0), batches)
    train(case, epochs)
    case.model.eval()
    search = partial(lg.pac_bayes, problem(case), prior=initial, epochs=epochs, samples=2)
    runs: dict[str, Callable[[], object]] = {"training": partial(train, case.copy(), epochs)}
    runs |= {f'basis="{basis}"': partial(search, basis=basis) for basis in BASES}
    laps = _race(case, runs, lambda _: {"status": "right"}, repeats)
    times: dict[str, Any] = {name: lap.summary()["seconds"] for name, lap in laps.items()}
    unit = times["training"]
    rows = [[name, f"{1e3 * t / epochs:.1f}", f"{t / unit:.1f}"] for name, t in times.items()]
    return markdown(["", "ms an epoch", "times training"], rows)


def train(case: Case, epochs: int) -> None:
    """Train as the networks of a bound are trained."""
    optimizer = torch.optim.SGD(case.parameters, 0.01, momentum=0.9)
    for _ in range(epochs):
        for x, y in case.batches:
            optimizer.zero_grad()
            case.criterion(case.model(x), y).backward()
            optimizer.step()


@dataclass(frozen=True)
class Drawn:
    """Batches that are drawn anew in every pass, so that data takes no memory."""

    number: int
    size: int = 128

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for i in range(self.number):
            yield draw(i, self.size, 3, 32, 32), torch.arange(self.size) % 10


def memory(quick: bool) -> str:
    """Peak memory of all factors of the VGG, as the data grows."""
    case, rows = CASES["vgg"](True), []
    size = 8 if quick else 128
    for number in (2, 4) if quick else (2, 8, 16):
        drawn = replace(case.copy(), batches=Drawn(number, size))  # type: ignore[arg-type]
        peak = peak_megabytes(partial(_factors_anew, drawn, "exact"))
        rows.append([f"{number * size:,}", "" if peak is None else f"{peak:.0f}"])
    return markdown(["images", "MB"], rows)


def tables(options: Options) -> str:
    """All that is measured."""
    about = machine()
    text = [
        f"{about['cpu']}, threads: {about['torch_threads']}, {now()[:10]}, commit {commit()}; "
        f"medians of {options.repeats} rounds in turns."
    ]
    for place, name in enumerate(options.cases):
        case = CASES[name](options.quick)
        text += [f"#### {case.title}", factors(case, options.repeats)]
        if not place:
            text += [f"The {options.k} largest eigenvalues of every layer's Hessian:"]
            text += [eigenpairs(case, options.k, options.repeats)]
    text += ["#### An epoch of the search for a PAC-Bayes bound"]
    text += [bound(options.epochs, 400 if options.quick else 1400, options.repeats)]
    text += ["#### Peak memory of all factors of the VGG, batches of 128 images"]
    text += [memory(options.quick)]
    return "\n\n".join(text)


def main(arguments: list[str] | None = None) -> int:
    """Measure and write; return the exit status."""
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks.layers")
    return publish(lambda: tables(options), options.into, BEGIN, END)


if __name__ == "__main__":
    sys.exit(main())
