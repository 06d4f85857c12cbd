"""All that the library computes, to be compared between a device and the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

import lossgeom as lg
from benchmarks.cases import draw
from benchmarks.device_problems import (
    EXACT,
    ROUNDED,
    SOLVED,
    Check,
    images,
    moved,
    perceptron,
    problem_of,
    products_with,
)
from lossgeom import linalg, quadratic
from lossgeom.curvature import MATRICES
from lossgeom.lab.models import mlp
from lossgeom.metrics import METRICS, STEP_METRICS, Sharpness
from lossgeom.smoothness import layer_singular_values

RANDOM = ("dropout",)  # a device draws its own
STEPS = 6


def of_matrices() -> Iterator[Check]:
    """Every matrix on every case of the tests, and in float32 on a few larger ones."""
    cases, make = (
        import_module("tests.problems").CASES,
        _of("tests.contracts.test_matrices", "make"),
    )
    for case in cases:
        for kind in MATRICES if case.name not in RANDOM else ():
            of, name = products_with(partial(make, kind.__name__)), f"{kind.__name__}, {case.name}"
            yield Check(f"matrices/{name}", of, partial(problem_of, case))
    for dtype, tolerance in ((torch.float32, ROUNDED), (torch.float64, EXACT)):
        for mode in ("eval", "train"):
            for kind in (lg.Hessian, lg.GaussNewton, lg.EmpiricalFisher):
                name = f"matrices/{kind.__name__}, ResNet18 in {mode} mode, {dtype}"
                at = partial(images, dtype=dtype, mode=mode)
                yield Check(name, products_with(kind), at, tolerance)


def _of(module: str, name: str) -> Any:
    return getattr(import_module(module), name)


def of_solvers() -> Iterator[Check]:
    """Every algorithm of linear algebra, on a Hessian."""
    solvers: dict[str, Callable[[Any], Any]] = {
        "largest": lambda A: _pairs(lg.top_eigenpairs(A, 4, tol=1e-8)),
        "with a basis on the CPU": lambda A: _pairs(
            lg.top_eigenpairs(A, 4, tol=1e-8, basis_on="cpu")
        ),
        "smallest": lambda A: _pairs(lg.top_eigenpairs(A, 2, which="smallest", tol=1e-8)),
        "magnitude": lambda A: _pairs(lg.top_eigenpairs(A, 2, which="magnitude", tol=1e-8)),
        "followed": lambda A: linalg.followed_pairs(A, _few(A), tol=1e-4).values[0],
        "trace": lg.trace,
        "trace, few products": lambda A: lg.trace(A, matvecs=20),
        "frobenius_norm": lambda A: lg.frobenius_norm(A, matvecs=30),
        "spectral_norm": lambda A: lg.spectral_norm(A, tol=1e-8),
        "diagonal": lambda A: lg.diagonal(A, matvecs=30).values,
        "effective_rank": lambda A: lg.effective_rank(A, matvecs=30),
        "density": lambda A: _density(lg.spectral_density(A, probes=4, steps=12)),
        "conjugate_gradients": lambda A: (
            lg.conjugate_gradients(A, A @ _ones(A), damping=1.0, tol=1e-10).x
        ),
        "dense": lambda A: A.dense(),
        "to_scipy": lambda A: torch.as_tensor(A.to_scipy() @ torch.ones(A.shape[1]).numpy()),
    }
    blocks: dict[str, Callable[[Tensor], Any]] = {
        "eigenspace_overlap": lambda B: lg.eigenspace_overlap(B[:, :3], B[:, 2:5]),
        "rank_one_energy": lambda B: lg.rank_one_energy(B, BLOCK),
        "energy_along": lambda B: lg.energy_along(B, B[: BLOCK[1], 0]),
        "best_kronecker_product": lambda B: lg.best_kronecker_product(B, BLOCK).dense(),
    }
    for name, solve in solvers.items():
        yield Check(f"solvers/{name}", solve, _hessian, SOLVED, repeats=True)
    for name, of_block in blocks.items():
        yield Check(f"solvers/{name}", of_block, _block, SOLVED, repeats=True)


BLOCK = (8, 6)  # outputs and inputs of the first layer


def _hessian(device: str) -> lg.Hessian:
    return lg.Hessian(perceptron(device))


def _block(device: str) -> Tensor:
    n = BLOCK[0] * BLOCK[1]
    return _hessian(device).dense()[:n, :n]


def _few(A: lg.Hessian) -> Tensor:
    return lg.top_eigenpairs(A, 2).vectors


def _ones(A: lg.Hessian) -> Tensor:
    return torch.ones_like(A.problem.theta)


def _pairs(found: Any) -> Any:
    signs = found.vectors.sum(0).sign()
    return found.values, found.vectors * signs


def _density(found: Any) -> Any:
    return found.nodes, found.weights, found.grid, found.density


def of_metrics() -> Iterator[Check]:
    """Every metric of a problem, and of a step."""
    metrics = import_module("tests.contracts.test_metrics")
    steps = import_module("tests.contracts.test_step_metrics")
    for case in import_module("tests.problems").CASES:
        at = partial(moved, case)
        for metric in METRICS if case.name in metrics.NAMES else ():
            of = partial(metrics.estimate_of, metric)
            yield Check(f"metrics/{metric.__name__}, {case.name}", of, at, SOLVED)
        for of_step in STEP_METRICS if case.name in steps.NAMES else ():
            of = partial(_of_step, partial(steps.estimate_of, of_step), steps.step_of)
            yield Check(f"metrics of steps/{of_step.__name__}, {case.name}", of, at, SOLVED)


def _of_step(estimate: Callable[[Any], Any], step_of: Callable[[Any], Any], case: Any) -> Any:
    return estimate(step_of(case))


def of_subjects() -> Iterator[Check]:
    """Smoothness, bounds, stability, layers, models of second order."""
    subjects: dict[str, Callable[[lg.Problem], Any]] = {
        "jacobian_norms": lambda p: lg.jacobian_norms(p).values,
        "jacobian_norms, softmax": lambda p: lg.jacobian_norms(p, "softmax").values,
        "jacobian_norms, frobenius": lambda p: lg.jacobian_norms(p, norm="frobenius").values,
        "jacobian_norms, lanczos": lambda p: (
            lg.jacobian_norms(p, method="lanczos", tol=1e-8).values
        ),
        "jacobian_norms, hutchinson": lambda p: (
            lg.jacobian_norms(p, norm="frobenius", method="hutchinson").values
        ),
        "largest_jacobian_norm": lambda p: lg.largest_jacobian_norm(p).value,
        "parameter_jacobian_norms": lambda p: lg.parameter_jacobian_norms(p).values,
        "sobolev_seminorms": lambda p: lg.sobolev_seminorms(p, orders=[1, 2]).elementwise,
        "layer_singular_values": lambda p: layer_singular_values(p, "2"),
        "multiplicative_inequality": lambda p: lg.multiplicative_inequality(p)[1].left,
        "lipschitz_global": lg.lipschitz_global,
        "lipschitz_local": lambda p: lg.lipschitz_local(p, 0.1),
        "lipschitz_lower": lambda p: lg.lipschitz_lower(p, radius=0.5, steps=5).value,
        "local_variation": lambda p: lg.local_variation(p, 0.1, steps=5).max,
        "jacobian_lipschitz": lambda p: lg.jacobian_lipschitz(p, 0.1),
        "certified_radius": lg.certified_radius,
        "robustness": lambda p: lg.robustness(p, [0.1, 0.5], steps=5).accuracy_under_attack,
        "logit_change": lambda p: [getattr(lg.logit_change(p, 0.1, steps=5), a) for a in SIDES],
        "certify_sgd": lambda p: lg.certify_sgd(p, 0.1, 8).threshold,
        "example_curvatures": lambda p: lg.example_curvatures(p).values,
        "layer_structure": lambda p: [
            (s.overlap, s.eigenpairs.values, s.spectra) for s in lg.layer_structure(p, 3)
        ],
        "kronecker_factors": lambda p: [(f.inputs, f.outputs) for f in lg.kronecker_factors(p)],
        "best_kronecker": lambda p: [b.matrix.dense() for b in lg.best_kronecker(p)],
        "block_sharpness": lambda p: [b.average for b in lg.block_sharpness(p).values()],
        "layer_eigenpairs": lambda p: [e.values for e in lg.layer_eigenpairs(p, 3).values()],
        "layer_summands": lambda p: [s.matrix.dense() for s in lg.layer_summands(p)],
        "off_block_mass": lambda p: lg.off_block_mass(lg.Hessian(p)),
        "worst_case_sharpness": lambda p: lg.worst_case_sharpness_lower(p, steps=3),
        "adaptive_sharpness": lg.adaptive_sharpness,
        "self_stabilisation": lambda p: [
            lg.self_stabilisation(p).sharpening,
            lg.noise_along(p, p.theta),
        ],
        "network": lambda p: quadratic.network(p).at(p.theta[None] * 0.01).z,
        "taylor": lambda p: quadratic.taylor(p).at(p.theta[None] * 0.01).z,
        "doctor": lambda p: bool(lg.doctor(p)),
        "pac_bayes": lambda p: (
            lg.pac_bayes(p, prior=torch.zeros_like(p.theta), epochs=3, samples=20).value
        ),
    }
    for name, of in subjects.items():
        yield Check(f"subjects/{name}", of, perceptron, SOLVED)
    for name in ("jacobian_norms", "lipschitz_global", "kronecker_factors", "example_curvatures"):
        yield Check(f"subjects/{name}, ResNet18", subjects[name], images, SOLVED)


SIDES = ("lower", "first_order", "upper")


def of_training() -> Iterator[Check]:
    """What is recorded beside training, and what the command measures."""
    yield Check("training/watch", _watched, tolerance=SOLVED)
    yield Check("training/tracker", _tracked, tolerance=SOLVED)
    yield Check("training/lossgeom measure", _commanded, tolerance=SOLVED)


def _watched(device: str) -> Any:
    """Rows of a watch on gradient descent."""
    model = mlp(6, 4, [8, 7], "tanh", 5).to(device, torch.float64)
    x, y = draw(0, 40, 6).to(device, torch.float64), (torch.arange(40) % 4).to(device)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    with TemporaryDirectory() as folder:
        with lg.watch(
            model, optimizer, "cross_entropy", [(x, y)], folder, 2, budget=None, on_error="raise"
        ) as run:
            for _ in range(STEPS):
                optimizer.zero_grad()
                torch.autograd.backward(nn.functional.cross_entropy(model(x), y))
                optimizer.step()
        return _rows(run.record)


def _rows(record: Any) -> Any:
    return [row["value"] for row in record.rows() if row["metric"] in ("loss", "sharpness")]


def _tracked(device: str) -> Any:
    problem = perceptron(device)
    with TemporaryDirectory() as folder:
        record = lg.Record.create(folder)
        with lg.Tracker(problem, [lg.metrics.Loss(), Sharpness()], record) as tracker:
            for step in range(2):
                tracker(step)
        return _rows(record)


COMMANDED = """
import torch
from benchmarks.device_problems import perceptron
problem = lambda: perceptron({device!r})
"""


def _commanded(device: str) -> Any:
    from lossgeom.cli import main

    with TemporaryDirectory() as folder:
        file, out = Path(folder) / "net.py", Path(folder) / "out"
        file.write_text(COMMANDED.format(device=device))
        short = ["--k", "2", "--probes", "2", "--steps", "8", "--matvecs", "20", "--out", str(out)]
        status = main(["measure", f"{file}:problem", *short])
        return [status, *_rows(lg.Record.open(out))]


GROUPS: tuple[Callable[[], Iterator[Check]], ...] = (
    of_solvers,
    of_subjects,
    of_training,
    of_metrics,
    of_matrices,
)
