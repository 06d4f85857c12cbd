"""What is measured: each task is a race between the competitors that offer it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks import checks
from benchmarks.cases import Case
from benchmarks.input_output import InputOutput, wide
from benchmarks.memory import peak_megabytes
from benchmarks.peers import Peer
from benchmarks.plain import (
    Reference,
    gauss_newton_product,
    gradient,
    hessian_product,
    jacobian_norms,
)
from benchmarks.plain import unit_vectors as vectors
from benchmarks.profile import ARITHMETIC, arithmetic
from benchmarks.profile import profile as parts
from benchmarks.settings import Attempt, Setting, best_setting
from benchmarks.timing import Lap, race, steady, timed

ACCOUNT_FOR = 30  # products that pay for the set-up
BLOCK = 8
SINGLES = 4
ACCURACIES, STEPS = (0.15, 0.3), 20  # of densities, and the steps of each of their probes
REPEAT_WITHIN = 4.0  # times the fastest; who takes longer for a solution is timed once

Offer = Callable[[Peer], Any]
Laps = dict[str, Lap]


@dataclass(frozen=True, eq=False)
class Bench:
    """A case with its competitors and the reference."""

    case: Case
    reference: Reference
    peers: Mapping[str, Peer]
    repeats: int

    def offering(self, offer: Offer) -> dict[str, Peer]:
        """The competitors that have something, and can be imported."""
        return {key: peer for key, peer in self.peers.items() if peer.available and offer(peer)}

    def race(self, runs: Mapping[str, Any], check: Any, within: float = math.inf) -> Laps:
        """Race in units of this case's gradient."""
        return race(runs, partial(gradient, self.case.copy()), check, self.repeats, within)


def products(bench: Bench, offer: Offer, reference: Callable[[Case, Tensor], Tensor]) -> Laps:
    """Time the set-up and many products, per product."""
    last = vectors(bench.case, bench.case.products)[-1]
    right = reference(bench.reference.exact, last.double())
    peers = bench.offering(offer)
    runs = {key: partial(_amortised, bench.case, offer(peer)) for key, peer in peers.items()}
    laps = bench.race(runs, partial(checks.product, right))
    for key, peer in peers.items():
        if laps[key].units:
            laps[key].verdict["megabytes"] = _memory(bench.case, offer(peer))
    return laps


def _amortised(case: Case, build: Any) -> tuple[float, Tensor]:
    case, (first, *others) = case.copy(), vectors(case, case.products)
    start, (product, result) = timed(lambda: _first(build, case, first))
    times = [start]
    for v in others:
        seconds, result = timed(partial(product, v))
        times.append(seconds)
    return steady(times, ACCOUNT_FOR), result


def _first(build: Any, case: Case, v: Tensor) -> tuple[Any, Tensor]:
    product = build(case)
    return product, product(v)


def _memory(case: Case, build: Any) -> float | None:
    case, (v,) = case.copy(), vectors(case, 1)

    def two_products() -> None:
        product = build(case)
        product(v)
        product(v)

    return peak_megabytes(two_products)


def hvp(bench: Bench) -> Laps:
    """One Hessian product, the set-up shared by 30."""
    return products(bench, lambda peer: peer.hessian, hessian_product)


def gauss_newton(bench: Bench) -> Laps:
    """One Gauss-Newton product, the set-up shared by 30."""
    return products(bench, lambda peer: peer.gauss_newton, gauss_newton_product)


def block(bench: Bench) -> Laps:
    """Time a vector of a block of 8, and of several alone, after the set-up."""
    V = torch.stack(vectors(bench.case, BLOCK), 1)
    right = hessian_product(bench.reference.exact, V[:, -1].double())
    check = partial(checks.product, right)
    runs = {}
    for key, peer in bench.offering(lambda peer: peer.block).items():
        runs[key] = partial(_block, bench.case, peer.block, V)
        runs[f"{key}:single"] = partial(_singles, bench.case, peer.hessian, V)
    return bench.race(runs, check)


def _block(case: Case, build: Any, V: Tensor) -> tuple[float, Tensor]:
    product = build(case.copy())
    product(V)
    seconds, result = timed(lambda: product(V))
    return seconds / BLOCK, result[:, -1]


def _singles(case: Case, build: Any, V: Tensor) -> tuple[float, Tensor]:
    product = build(case.copy())
    product(V[:, 0])
    columns = [V[:, j].contiguous() for j in range(BLOCK - SINGLES, BLOCK)]
    seconds, results = timed(lambda: [product(v) for v in columns])
    return seconds / SINGLES, results[-1]


def top(k: int, bench: Bench) -> Laps:
    """The largest eigenvalues with their vectors, set-up included."""
    check = partial(checks.pairs, bench.case, bench.reference.values[:k])
    peers = bench.offering(lambda peer: peer.top)
    attempts = {key: partial(_top, bench.case, peer, k) for key, peer in peers.items()}
    return at_best(bench, attempts, check, k)[0]


def at_best(
    bench: Bench, attempts: Mapping[str, Attempt], check: Any, k: int = 1
) -> tuple[Laps, dict[str, Setting]]:
    """Race every competitor with the setting that is best for it."""
    patience = bench.case.patience
    found = {
        key: best_setting(bench.peers[key].setting, attempt, check, k, patience)
        for key, attempt in attempts.items()
    }
    runs = {key: partial(attempt, found[key].value) for key, attempt in attempts.items()}
    laps = bench.race(runs, check, REPEAT_WITHIN)
    for key, lap in laps.items():
        if found[key].words:
            lap.verdict["setting"] = found[key].words
    return laps, found


def _top(case: Case, peer: Peer, k: int, setting: Any) -> tuple[float, Any]:
    case, solve = case.copy(), peer.top
    return timed(lambda: solve(case, k, setting))  # type: ignore[misc]


def density(bench: Bench) -> Laps:
    """The spectral density by stochastic Lanczos quadrature, set-up included, to each accuracy.

    Each competitor takes as many probes as it needs to be so accurate, and all the same steps.
    """
    P, values, forms = bench.case.P, bench.reference.values, bench.reference.quadratic_forms
    peers, laps = bench.offering(lambda peer: peer.density), {}
    attempts = {key: partial(_density, bench.case, peer, values) for key, peer in peers.items()}
    for accuracy in ACCURACIES:
        probes = {key: _probes(attempt, accuracy) for key, attempt in attempts.items()}
        runs = {key: partial(attempts[key], probes[key]) for key in peers}
        check = partial(checks.density, P, values, forms, accuracy)
        for key, lap in bench.race(runs, check, REPEAT_WITHIN).items():
            lap.verdict["accuracy"] = accuracy
            lap.verdict["setting"] = f"probes: {probes[key]}, of {STEPS} steps"
            laps[f"{key}:{accuracy:.0%}"] = lap
    return laps


def _density(case: Case, peer: Peer, values: Tensor, probes: int) -> tuple[float, Any]:
    case, estimate, largest = case.copy(), peer.density, values[0].item()
    return timed(lambda: estimate(case, probes, STEPS, (-largest, largest)))  # type: ignore[misc]


def _probes(attempt: Callable[[int], tuple[float, Any]], accuracy: float) -> int:
    """The fewest probes that are as accurate, which rest on the outliers that are taken out."""
    probes = 1
    with suppress(Exception):  # it will raise again in the race, where that is recorded
        outliers = attempt(probes)[1].outliers
        while (needed := checks.probes_for(outliers, accuracy)) > probes:
            probes = needed
            outliers = attempt(probes)[1].outliers if outliers else 0
    return probes


def jacobian(bench: Bench) -> Laps:
    """Spectral norms of the Jacobians of all examples."""
    return jacobians(bench, InputOutput(bench.case))


def jacobian_wide(bench: Bench) -> Laps:
    """Norms of Jacobians of 1,000 outputs, except where another case is the same in eval mode."""
    if bench.case.mode == "train":
        return {}
    function = wide(bench.case)
    return jacobians(replace(bench, case=function.case), function)


def jacobians(bench: Bench, function: InputOutput) -> Laps:
    """Race norms of Jacobians, with checks and memory; the last line counts what is multiplied."""
    check = partial(checks.norms, jacobian_norms(function))
    peers = bench.offering(lambda peer: peer.jacobian)
    attempts = {key: partial(_jacobian, function, peer) for key, peer in peers.items()}
    laps, found = at_best(bench, attempts, check)
    for key, attempt in attempts.items():
        if laps[key].units:
            run = partial(attempt, found[key].value)
            laps[key].verdict["megabytes"] = peak_megabytes(run)
    if "lossgeom" in peers:
        work = partial(attempts["lossgeom"], None)
        laps[f"lossgeom:{ARITHMETIC}"] = arithmetic(work, partial(gradient, bench.case.copy()))
    return laps


def _jacobian(function: InputOutput, peer: Peer, setting: Any) -> tuple[float, Tensor]:
    function, norms = function.copy(), peer.jacobian
    return timed(lambda: norms(function, setting))  # type: ignore[misc]


def profile(bench: Bench) -> Laps:
    """What lossgeom's own time consists of."""
    found = parts(bench.case, bench.repeats)
    return {f"lossgeom:{part}": lap for part, lap in found.items()}


TASKS: dict[str, Callable[[Bench], Laps]] = {
    "hvp": hvp,
    "gauss_newton": gauss_newton,
    "block": block,
    "top1": partial(top, 1),
    "top10": partial(top, 10),
    "density": density,
    "jacobian": jacobian,
    "jacobian_wide": jacobian_wide,
    "profile": profile,
}
