"""Times on a device, beside plain double backward and other libraries."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import SGD

import lossgeom as lg
from benchmarks import tracking
from benchmarks.cases import INITIAL, Case, draw, images, trained
from benchmarks.input_output import InputOutput
from benchmarks.peers import PEERS
from benchmarks.plain import gauss_newton_product, gradient, hessian_product
from benchmarks.timing import said
from benchmarks.tracking_runs import power_iteration
from lossgeom.lab.models import gpt, mlp, resnet18
from lossgeom.metrics import Sharpness, Step
from lossgeom.recording.budget import device_clock
from lossgeom.stability import optimizer_state

Row = dict[str, Any]
PRODUCTS = (
    "lossgeom", "lossgeom_without_memory", "double_backward", "curvlinops",
    "hessian_eigenthings", "pyhessian",
)  # fmt: skip
CASES = ("mlp", "resnet18", "gpt")
NORMS = ("lossgeom", "jacrev", "rows_gram")
NEXT, FOLLOWED = 5, 6
LANCZOS_STEPS, PATIENCE = (20, 40, 80), 10.0  # the seconds after which no more are tried
ROOM = 20 * 2**30  # bytes, for what a Hessian of a large batch keeps
RIGHT, RESIDUAL, FOLLOWED_WITHIN = 1e-3, 2e-3, 2e-2


@dataclass(frozen=True)
class Bench:
    """A case on a device, with its unit of time and what is right."""

    case: Case
    device: torch.device
    unit: float

    def timed(self, function: Callable[[], Any]) -> tuple[float, Any]:
        """Seconds until the device has done what a function told it, and the result."""
        clock = device_clock(self.device)
        start = clock()
        result = function()
        return clock() - start, result

    def row(self, task: str, peer: str, make: Callable[[], Row]) -> Row:
        """What a competitor took, or the words of the error that it raised."""
        gc.collect()
        on_gpu = self.device.type == "cuda"
        if on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
        known = {"case": self.case.name, "task": task, "peer": peer}
        try:
            found = make()
        except Exception as error:  # of whatever a competitor is; its words are its result
            return {**known, "status": "error", "message": said(error)}
        if on_gpu:
            found["gigabytes"] = (torch.cuda.max_memory_allocated(self.device) - before) / 1e9
        for key in ("first", "next", "seconds"):
            if key in found:
                found[f"{key}_in_gradients"] = found[key] / self.unit
        return {**known, **found}


def makers(quick: bool) -> dict[str, Callable[[], Case]]:
    """Models and batches as users have them; small ones where all is only tried."""
    return {
        "mlp": partial(_mlp, *((8, 16) if quick else (2_048, 2_048))),
        "resnet18": partial(_resnet, *((8, 2) if quick else (512, 64))),
        "gpt": partial(_gpt, *((2, 8, 1, 16, 50) if quick else (8, 512, 12, 768, 50_257))),
    }


def _mlp(width: int, examples: int) -> Case:
    inputs = 3072 if width > 64 else 12
    model = mlp(inputs, 10, [width] * 4, "relu", INITIAL).eval()
    x, y = draw(0, examples, inputs), torch.arange(examples) % 10
    return Case("mlp", f"MLP, {examples:,} x {inputs:,}, width {width:,}", model, [(x, y)])


def _resnet(examples: int, width: int) -> Case:
    model = resnet18(width=width, seed=INITIAL).eval()
    title = f"ResNet18 of width {width}, {examples} x 3 x 32 x 32"
    return Case("resnet18", title, model, images(examples, 1))


def _gpt(examples: int, length: int, layers: int, width: int, vocabulary: int) -> Case:
    model = gpt(vocabulary, length, layers, width, max(1, width // 64), INITIAL).eval()
    generator = torch.Generator().manual_seed(0)
    steps = torch.randint(1, 5, (examples, length + 1), generator=generator)
    tokens = (37 * steps.cumsum(1)) % vocabulary
    title = f"GPT, {layers} layers of {width}, {examples} x {length} tokens of {vocabulary:,}"
    batches = [(tokens[:, :-1], tokens[:, 1:])]
    return Case("gpt", title, model, batches, loss="token_cross_entropy")


def on(case: Case, device: torch.device) -> Case:
    """A case with model and data on a device, trained a little."""
    batches = [(x.to(device), y.to(device)) for x, y in case.batches]
    return trained(replace(case, model=case.model.to(device), batches=batches), steps=5)


def times(
    device: torch.device, names: Iterable[str], quick: bool, say: Callable[[str], None]
) -> Iterator[Row]:
    """Every case, one after the other; all arithmetic in float32 without TF32."""
    torch.backends.cudnn.allow_tf32 = False
    for name in names:
        case = on(makers(quick)[name](), device)
        gradients = [partial(gradient, case.copy())] * NEXT
        bench = Bench(case, device, unit=1.0)
        gradients[0]()
        unit = statistics.median(bench.timed(one)[0] for one in gradients)
        bench = replace(bench, unit=unit)
        say(f"{name}: {case.title}, P = {case.P:,}, a gradient takes {1e3 * unit:.1f} ms")
        yield {"case": name, "task": "gradient", "seconds": unit, "title": case.title, "P": case.P}
        yield from products(bench, "hessian", hessian_product)
        yield from top(bench, 1)
        if name != "gpt":
            yield from jacobians(bench)
            yield from following(bench)
        yield from products(bench, "gauss_newton", gauss_newton_product)
        if name == "mlp":
            yield from top(bench, 10)


def products(bench: Bench, kind: str, plain: Callable[[Case, Tensor], Tensor]) -> Iterator[Row]:
    """The first product with what it sets up, and the following ones."""
    vectors = directions(bench.case, NEXT + 1)
    right = _reference(bench.case, vectors[-1], plain)
    ways = {PEERS[n].name: getattr(PEERS[n], kind) for n in PRODUCTS if PEERS[n].available}
    if bench.case.name == "resnet18":  # where the default is too little to keep anything
        matrix = {"hessian": lg.Hessian, "gauss_newton": lg.GaussNewton}[kind]
        ways[f"lossgeom, memory_budget={ROOM >> 30} GiB"] = partial(_roomy, matrix)
    for name, build in ways.items():
        if build is not None:
            make = partial(_product, bench, build, vectors, right)
            yield bench.row(kind, name, make)


def _roomy(matrix: Any, case: Case) -> Any:
    problem = lg.Problem(case.model, case.loss, case.batches, mode=case.mode)
    return matrix(problem, memory_budget=ROOM).__matmul__


def directions(case: Case, k: int) -> list[Tensor]:
    """Random directions, drawn on the device: a CPU would take seconds for 100 million numbers."""
    like = case.parameters[0]
    generator = torch.Generator(like.device).manual_seed(1)
    return [
        F.normalize(torch.randn(case.P, generator=generator, device=like.device), dim=0)
        for _ in range(k)
    ]


def _reference(case: Case, v: Tensor, plain: Callable[[Case, Tensor], Tensor]) -> Tensor:
    """The product in float64 where it fits in memory, on a few examples of a time."""
    exact = case.copy(torch.float64)
    few = 64 if case.name != "gpt" else 1
    parts = [
        pair
        for x, y in exact.batches
        for pair in zip(torch.split(x, few), torch.split(y, few), strict=True)
    ]
    return plain(replace(exact, batches=parts), v.double()).cpu()


def _product(bench: Bench, build: Any, vectors: list[Tensor], right: Tensor) -> Row:
    case = bench.case.copy()
    first, (product, _) = bench.timed(lambda: (A := build(case), A(vectors[0])))
    laps = [bench.timed(partial(product, v)) for v in vectors[1:]]
    error = float((laps[-1][1].double().cpu() - right).norm() / right.norm())
    status = "right" if error <= RIGHT else "wrong"
    following = statistics.median(seconds for seconds, _ in laps)
    return {"first": first, "next": following, "error": error, "status": status}


def top(bench: Bench, k: int) -> Iterator[Row]:
    """The largest eigenpairs, by the fewest steps that are right for those who have to be told."""
    small = bench.case.name == "mlp"
    for name in ("lossgeom", "hessian_eigenthings", *["double_backward"] * small):
        if PEERS[name].available and PEERS[name].top is not None:
            yield bench.row(f"top{k}", PEERS[name].name, partial(_top, bench, name, k))


def _top(bench: Bench, name: str, k: int) -> Row:
    solve: Any = PEERS[name].top
    steps = LANCZOS_STEPS if name == "hessian_eigenthings" else (None,)
    for setting in steps:
        seconds, found = bench.timed(partial(solve, bench.case.copy(), k, setting))
        order = found.values.double().cpu().argsort(descending=True)
        residual = max(
            _residual(bench.case, float(found.values[i]), found.vectors[:, i]) for i in order[:k]
        )
        if residual <= RESIDUAL or seconds > PATIENCE:
            break
    status = "right" if residual <= RESIDUAL else "wrong"
    value, spent = float(found.values.max()), found.products
    return {"seconds": seconds, "value": value, "residual": residual, "status": status,
            "products": spent, "told": setting or ""}  # fmt: skip


def _residual(case: Case, value: float, vector: Tensor) -> float:
    v = vector.to(case.parameters[0])
    v = v / v.norm()
    return float((hessian_product(case.copy(), v) - value * v).norm()) / abs(value)


def jacobians(bench: Bench) -> Iterator[Row]:
    """Spectral norms of the Jacobians of all examples."""
    function = InputOutput(bench.case)
    (x, y), *_ = bench.case.batches
    exact = lg.Problem(bench.case.model, bench.case.loss, [(x[:8], y[:8])], dtype=torch.float64)
    right = lg.jacobian_norms(exact).values
    for name in NORMS:
        yield bench.row("jacobian", PEERS[name].name, partial(_norms, bench, function, name, right))


def _norms(bench: Bench, function: InputOutput, name: str, right: Tensor) -> Row:
    norms: Any = PEERS[name].jacobian
    chunk = 64 if name == "jacrev" else None
    laps = [bench.timed(lambda: norms(function.copy(), chunk)) for _ in range(2)]
    found = laps[-1][1][: len(right)].double()
    error = float(((found - right) / right).abs().max())
    return {"seconds": laps[-1][0], "error": error, "status": "right" if error <= 2e-3 else "wrong"}


def following(bench: Bench) -> Iterator[Row]:
    """The sharpness at every step of gradient descent."""
    case = bench.case.copy()
    problem = lg.Problem(case.model, case.loss, case.batches, mode=case.mode)
    optimizer = SGD(case.model.parameters(), 0.5 / lg.sharpness(problem).value)
    ways: dict[str, Callable[[Step], lg.Estimate]] = {
        tracking.WARM: Sharpness(tracking.TOL).of_step,
        tracking.TRACKED: Sharpness(tracking.TOL, tracked=True).of_step,
        "power iteration, from the step before": partial(power_iteration, case, {}),
    }
    spent: dict[str, list[float]] = {name: [] for name in ways}
    memories: dict[str, dict[str, Any]] = {name: {} for name in ways}
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(FOLLOWED):
        before, state = problem.refreshed(), optimizer_state(problem, optimizer)
        tracking.take(case, optimizer)
        made = Step(before, problem.refreshed().theta - before.theta, state)
        for name, way in ways.items():
            step = replace(made, before=before.at(before.theta), memory=memories[name])
            seconds, estimate = bench.timed(partial(way, step))
            spent[name].append(seconds)
            found[name].append(estimate.value)
    right = torch.tensor(list(found.values())).amax(0)
    for name in ways:
        error = float((torch.tensor(found[name]) / right - 1).abs().max())
        seconds = statistics.median(spent[name])
        yield {
            "case": bench.case.name,
            "task": "following",
            "peer": name,
            "error": error,
            "seconds": seconds,
            "seconds_in_gradients": seconds / bench.unit,
            "status": "right" if error <= FOLLOWED_WITHIN else "wrong",
        }
