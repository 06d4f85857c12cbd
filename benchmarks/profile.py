"""Where the time of a first Hessian product goes, and what the next one consists of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest import mock

from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cases import Case
from benchmarks.peers import lossgeom
from benchmarks.plain import gradient, unit_vectors
from benchmarks.timing import Lap, timed, unit
from lossgeom.curvature import _memory, _microbatches, _parameter_matrix
from lossgeom.curvature._parameter_matrix import ParameterMatrix
from lossgeom.problem import first_look

CHECKS: dict[str, tuple[Any, str]] = {
    "two evaluations of the model": (first_look, "_checked_outputs"),
    "derivatives beside differences, on 4 examples": (_parameter_matrix, "guard"),
    "the size of a graph, on 4 examples": (_memory, "graph_size"),
    "pieces beside whole batches": (_microbatches, "_apart"),
    "recordings beside graphs, on 4 examples": (ParameterMatrix, "_agrees"),
}
FIRST = "graphs or recordings, and the first product"
NEXT = "the next product"
ARITHMETIC = "multiplications in it, by those of a gradient"


def profile(case: Case, repeats: int) -> dict[str, Lap]:
    """All parts, in gradients; the last in floating-point operations of matrix products."""
    laps: dict[str, Lap] = {}
    for _ in range(repeats):
        one = unit(partial(gradient, case.copy()))
        for part, seconds in _parts(case.copy()).items():
            lap = laps.setdefault(part, Lap(verdict={"status": "part"}))
            lap.seconds.append(seconds)
            lap.units.append(seconds / one)
    product = lossgeom.hessian(case.copy())
    first, second = unit_vectors(case, 2)
    product(first)
    laps[ARITHMETIC] = arithmetic(lambda: product(second), partial(gradient, case.copy()))
    return laps


def _parts(case: Case) -> dict[str, float]:
    spent: dict[str, float] = {}
    first, second = unit_vectors(case, 2)
    with ExitStack() as stack:
        for part, (owner, name) in CHECKS.items():
            stack.enter_context(_watched(owner, name, part, spent))
        product = lossgeom.hessian(case)
        seconds, _ = timed(lambda: product(first))
    rest = seconds - sum(spent.values())
    return {**spent, FIRST: rest, NEXT: timed(lambda: product(second))[0]}


@contextmanager
def _watched(owner: Any, name: str, part: str, spent: dict[str, float]) -> Iterator[None]:
    """Add up the time that a function takes."""
    function: Callable[..., Any] = getattr(owner, name)

    def watched(*args: Any, **kwargs: Any) -> Any:
        seconds, result = timed(lambda: function(*args, **kwargs))
        spent[part] = spent.get(part, 0.0) + seconds
        return result

    with mock.patch.object(owner, name, watched):
        yield


def arithmetic(work: Callable[[], object], gradient: Callable[[], object]) -> Lap:
    """Floating-point operations of matrix products and convolutions, by those of a gradient."""
    counts = []
    for counted in (work, gradient):
        with FlopCounterMode(display=False) as counter:
            counted()
        counts.append(counter.get_total_flops())
    return Lap([float(counts[0] / max(counts[1], 1))], [0.0], {"status": "part"})
