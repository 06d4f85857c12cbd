"""What every curvature matrix must do, on every case."""

import functools
import gc
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom import Problem
from lossgeom.curvature import MATRICES
from lossgeom.losses import Loss, as_loss
from tests import reference
from tests.problems import CASES, Case, in_float64, rows
from tests.sentinels import hung_into

KINDS = {matrix.__name__: matrix for matrix in MATRICES}
NAMES = list(KINDS)


def optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """RMSprop with two groups, as it is after some steps."""
    parameters = list(model.parameters())
    groups = [{"params": parameters[:1], "lr": 0.1}, {"params": parameters[1:], "lr": 0.3}]
    made = torch.optim.RMSprop(groups, eps=1e-2)
    generator = torch.Generator().manual_seed(5)
    for parameter in parameters:
        v = torch.rand(parameter.shape, generator=generator)
        made.state[parameter] = {"step": torch.tensor(3.0), "square_avg": v}
    return made


def make(name: str, problem: Problem, **options):
    kinds = {
        "ObjectiveHessian": lambda: lg.ObjectiveHessian(problem, 0.3, **options),
        "PreconditionedHessian": lambda: lg.PreconditionedHessian(
            problem, optimizer(problem.model), **options
        ),
        "BlockDiagonal": lambda: lg.BlockDiagonal(lg.Hessian(problem, **options)),
        "OutputRoot": lambda: lg.OutputRoot(problem),
        "Decoupled": lambda: lg.Decoupled(problem),  # which keeps no more than its factors
    }
    return kinds.get(name, lambda: getattr(lg, name)(problem, **options))()


# Dense code


def preconditioned(case: Case) -> torch.Tensor:
    state = optimizer(case.model)
    lr = {id(p): group["lr"] for group in state.param_groups for p in group["params"]}
    pieces = [
        (lr[id(p)] / (state.state[p]["square_avg"].double().sqrt() + 1e-2)).reshape(-1)
        for p in reference.trainable(case, case.model)
    ]
    scaling = torch.cat(pieces).sqrt()
    return scaling[:, None] * reference.hessian(case) * scaling


def block_diagonal(case: Case) -> torch.Tensor:
    layers = reference.layers(case)
    return torch.where(layers[:, None] == layers, reference.hessian(case), 0.0)


def objective(case: Case) -> torch.Tensor:
    H = reference.hessian(case)
    return H + 0.3 * torch.eye(len(H), dtype=H.dtype)


def conjugate(case: Case) -> torch.Tensor:
    """With the library's root, which is compared with dense code itself."""
    CJ = lg.OutputRoot(case.problem()).dense() @ reference.parameter_jacobian(case)
    return CJ @ CJ.T


def sampled(case: Case) -> torch.Tensor:
    """Targets drawn as documented, and gradients of torch's losses at them by differences."""
    theta = reference.theta_of(case)
    f = reference.outputs(case, theta)
    if (isinstance(case.loss, str) and "cross" in case.loss) or case.name == "weighted":
        dim = 1 if case.name not in ("classes_last", "language_model") else -1
        p = f.softmax(dim).movedim(dim, -1)
        u = uniform(p[..., :1].numel()).reshape(p[..., :1].shape)
        y = (p.cumsum(-1) < u).sum(-1)
        weights = weight_of_terms(case, f)

        def terms(theta):
            logits = reference.outputs(case, theta).movedim(dim, -1).flatten(0, -2)
            losses = torch.nn.functional.cross_entropy(logits, y.flatten(), reduction="none")
            return weights.sqrt().flatten() * losses

    elif case.name == "coins":
        y = (uniform(f.numel()).reshape(f.shape) < f.sigmoid()).double()

        def terms(theta):
            return case.terms(reference.outputs(case, theta), y)

    else:
        curvature = 1.0 if case.loss == "squared_error" else 2.0
        y = f - torch.special.ndtri(uniform(f.numel())).reshape(f.shape) / curvature**0.5

        def terms(theta):
            return case.terms(reference.outputs(case, theta), y)

    G = reference.central_differences(terms, theta)
    return G.T @ G / reference.divisor(case)


def uniform(n: int) -> torch.Tensor:
    return torch.from_numpy(np.random.Generator(np.random.PCG64([0, 0])).random(n))


def weight_of_terms(case: Case, f: torch.Tensor) -> torch.Tensor:
    """From the loss Hessian: w in w (diag p - p p^T)."""
    targets = case.targets
    if case.name == "weighted":
        weight = case.loss.weight
        return 0.9 * weight[targets] + 0.1 * weight.mean()
    if case.name == "language_model":
        shifted = torch.cat([targets[:, 1:], torch.full((len(targets), 1), -100)], dim=1)
        return (shifted != -100).double()
    if targets.is_floating_point():
        return torch.ones(len(targets), dtype=torch.float64)
    return (targets != -100).double()


DENSE = {
    "Hessian": reference.hessian,
    "GaussNewton": reference.gauss_newton,
    "Residual": reference.residual,
    "EmpiricalFisher": reference.empirical_fisher,
    "MonteCarloFisher": sampled,
    "GradientCovariance": reference.gradient_covariance,
    "ObjectiveHessian": objective,
    "PreconditionedHessian": preconditioned,
    "BlockDiagonal": block_diagonal,
    "ParameterJacobian": reference.parameter_jacobian,
    "NTK": lambda case: (J := reference.parameter_jacobian(case)) @ J.T,
    "ConjugateGaussNewton": conjugate,
    "Decoupled": reference.decoupled,
}


# Which matrix meets which case


# all parameters are of linear layers and convolutions, one weight with its bias
ONLY_LAYERS = (
    "ragged", "smoothing", "probabilities", "squared_error", "mse", "sum", "coins", "weighted",
    "tokens", "classes_last", "own_loss", "two_paths", "frozen", "adapter", "in_place",
    "two_inputs", "flat_tuple", "mapping", "encoding", "keywords", "own_form", "conv",
    "attention", "dropout",
)  # fmt: skip
SOME_CASES = [CASES[0], *(c for c in CASES if c.name in ("language_model", "encoding"))]


def known(case: Case) -> bool:
    return problem_of(case).criterion.likelihood is not None


def defined(name: str, case: Case) -> bool:
    if name == "Decoupled":
        return case.name in ONLY_LAYERS
    return name != "MonteCarloFisher" or known(case)


def keeps_graphs(name: str, case: Case) -> bool:
    return name != "OutputRoot" and defined(name, case)


def indifferent_to_the_split(name: str, case: Case) -> bool:
    return case.splittable and defined(name, case)


def indifferent_to_order(name: str, case: Case) -> bool:
    """Where no statistics or draws depend on it."""
    return case.splittable and name != "MonteCarloFisher" and defined(name, case)


def scales(name: str, case: Case) -> bool:
    # without its likelihood, an observation is an example
    tokens = known(case) and case.targets.ndim > 1
    of_observations = KINDS[name].degree == 2 or name == "Decoupled"
    scaling = KINDS[name].degree is not None and defined(name, case)
    return scaling and not (tokens and of_observations)


def evaluates_the_loss(name: str, case: Case) -> bool:
    return KINDS[name].degree != 0 and defined(name, case)


def pairs(chosen: Iterable[tuple[str, Case]], quick: Sequence[Case] = ()) -> Any:
    marks = [(), pytest.mark.quick]
    found = [
        pytest.param(*pair, id=f"{pair[0]}-{pair[1].name}", marks=marks[pair[1] in quick])
        for pair in chosen
    ]
    return pytest.mark.parametrize(("name", "case"), found)


def every(
    applies: Callable[[str, Case], bool],
    cases: Sequence[Case] = CASES,
    quick: Sequence[Case] = (),
) -> Any:
    """Every matrix on every case that a contract applies to, one case after the other."""
    chosen = ((name, case) for case in cases for name in NAMES if applies(name, case))
    return pairs(chosen, quick)


def covering(applies: Callable[[str, Case], bool], turn: int) -> Any:
    """A third of the pairs, and all of some cases.

    A case meets every third matrix, which is one of each kind: of the loss, of observations'
    gradients, made of another matrix, on outputs. A matrix meets every third case. Contracts that
    take turns meet a pair one after the other. All pairs are compared with dense code.
    """
    return pairs(
        (name, case)
        for j, case in enumerate(CASES)
        for i, name in enumerate(NAMES)
        if (i + j + turn) % 3 == 0 or case in SOME_CASES
        if applies(name, case)
    )


@functools.cache
def problem_of(case: Case) -> Problem:
    """One for all contracts, which use each other's first look at the model."""
    return case.problem()


@functools.cache
def matrix_of(name: str, case: Case) -> Any:
    return make(name, problem_of(case))


@functools.cache
def block(columns: int, k: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randn(
        columns, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def close(actual: torch.Tensor, expected: torch.Tensor, rtol: float) -> None:
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=rtol * float(expected.abs().max()))


# The contract


def test_all_but_layers_are_not_decoupled():
    others = [case for case in CASES if case.name not in ONLY_LAYERS]
    assert len(others) == len(CASES) - len(ONLY_LAYERS)
    for case in others:
        with pytest.raises(
            ValueError, match=r"expected (all parameters to be of|a model with) linear"
        ):
            lg.Decoupled(problem_of(case))


@every(defined)
def test_agrees_with_dense_code(name, case):
    A = matrix_of(name, case)
    if name == "OutputRoot":
        C = A.dense()
        close(C.T @ C, reference.output_hessian(case), 1e-6)
    else:
        dense = DENSE[name](case)
        assert tuple(dense.shape) == A.shape
        scale = reference.hessian(case) if name == "Residual" else dense
        V = block(A.shape[1])
        atol = 1e-6 * float((scale @ V).abs().max())
        torch.testing.assert_close(A @ V, dense @ V, rtol=1e-6, atol=atol)


@every(defined, SOME_CASES[:2], quick=SOME_CASES[:1])
def test_its_dense_form_has_its_products_as_columns(name, case):
    A = make(name, case.problem())
    dense, V = A.dense(), block(A.shape[1])
    assert tuple(dense.shape) == A.shape
    assert dense.dtype == A.dtype == torch.float64
    close(A @ V, dense @ V, 1e-10)


@covering(defined, 0)
def test_is_linear_and_its_transpose_fits(name, case):
    A = matrix_of(name, case)
    V, U = block(A.shape[1]), block(A.shape[0])
    AV, AU = A @ V, A.T @ U
    close(A @ (2 * V[:, 0] - 3 * V[:, 1]), 2 * AV[:, 0] - 3 * AV[:, 1], 1e-10)
    close(U.T @ AV, AU.T @ V, 1e-10)
    assert (A.T is A) == (name not in ("ParameterJacobian", "OutputRoot"))


@covering(indifferent_to_the_split, 1)
def test_does_not_depend_on_the_split(name, case):
    x, y = case.inputs, case.targets
    one_by_one = [(rows(x, torch.tensor([i])), y[i : i + 1]) for i in range(len(y))]
    expected = matrix_of(name, case)
    V = block(expected.shape[1])
    for data in ([(x, y)], one_by_one):
        close(make(name, case.problem(data)) @ V, expected @ V, 1e-10)


@covering(indifferent_to_order, 2)
def test_does_not_depend_on_the_order(name, case):
    x, y = case.inputs, case.targets
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(1))
    parts = [(rows(x, order[:2]), y[order[:2]]), (rows(x, order[2:]), y[order[2:]])]
    shuffled, A = make(name, case.problem(parts)), matrix_of(name, case)
    V = block(A.shape[1])

    def moved(M: torch.Tensor, space: str) -> torch.Tensor:
        if space == "parameters":
            return M
        return M[torch.arange(len(M)).reshape(len(y), -1)[order].flatten()]

    close(shuffled @ moved(V, A.columns), moved(A @ V, A.rows), 1e-10)


@covering(scales, 0)
def test_scales_with_the_loss(name, case):
    loss = as_loss(case.loss, case.options.get("label_smoothing", 0.0))
    factor = 3.0

    def scaled(outputs, batch):
        total, count = loss.terms(outputs, batch)
        return factor * total, count

    problem = with_loss(case, Loss("scaled", scaled, average=loss.average))
    close(
        spectrum_or_product(name, make(name, problem)),
        factor ** KINDS[name].degree * spectrum_or_product(name, matrix_of(name, case)),
        1e-6,
    )


def with_loss(case: Case, loss: Loss) -> Problem:
    options = {k: v for k, v in case.options.items() if k != "label_smoothing"}
    return Problem(case.model, loss, [case.form(*batch) for batch in case.data], **options)


def spectrum_or_product(name, A):
    """Of a loss without a known likelihood, the root is another one with the same spectrum."""
    if name == "OutputRoot":
        return torch.linalg.svdvals(A.dense())
    if name == "ConjugateGaussNewton":
        return torch.linalg.eigvalsh(A.dense())
    return A @ block(A.shape[1])


@pytest.mark.parametrize("memory_budget", [0, 2000, 2**30])
@every(keeps_graphs, SOME_CASES)
def test_does_not_depend_on_the_memory_budget(name, case, memory_budget):
    A = make(name, problem_of(case), memory_budget=memory_budget if memory_budget != 2000 else None)
    V = block(A.shape[1])
    if memory_budget == 2000:  # besides what is needed at least
        A @ V
        A = make(name, problem_of(case), memory_budget=A.memory.least + 2000)
    for _ in range(3):  # the first product linearises, the later ones use what was kept
        close(A @ V, matrix_of(name, case) @ V, 1e-12)


@pytest.mark.usefixtures("unchecked")
@covering(defined, 1)
def test_leaves_no_trace_in_any_grad_mode(name, case):
    check = name == "Hessian"  # of derivatives, which all others make as well
    found = []
    for context in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with context():
            before = reference.fingerprint(case.model)
            A = make(name, case.problem(check=check))
            found += [A @ block(A.shape[1], k=1) for _ in range(2)]
            assert reference.fingerprint(case.model) == before
    assert all(torch.equal(result, found[0]) for result in found)  # the same bits every time
    assert not any(result.requires_grad for result in found)


@pytest.mark.usefixtures("unchecked")
@covering(evaluates_the_loss, 2)
def test_leaves_no_trace_when_it_raises(name, case):
    def failing(outputs, batch):
        raise RuntimeError("half-way")

    before = reference.fingerprint(case.model)
    likelihood = as_loss(case.loss).likelihood
    problem = with_loss(case, Loss("failing", failing, likelihood=likelihood))
    with pytest.raises(RuntimeError, match="half-way"):
        product(name, problem)
    assert reference.fingerprint(case.model) == before


@every(defined, SOME_CASES)
def test_training_goes_on_under_it(name, case):
    """The matrix stays where it was taken while the model's parameters move."""
    A = make(name, case.problem(), **({} if name == "OutputRoot" else {"memory_budget": 0}))
    V = block(A.shape[1])
    expected = A @ V
    state = {key: tensor.clone() for key, tensor in case.model.state_dict().items()}
    try:
        with torch.no_grad():
            for parameter in case.model.parameters():
                parameter += 1
        assert torch.equal(A @ V, expected)
    finally:
        case.model.load_state_dict(state)


def product(name: str, problem: Problem) -> torch.Tensor:
    A = make(name, problem)
    return A @ block(A.shape[1])


@pytest.mark.parametrize("name", NAMES)
def test_frees_its_graphs(name):
    """A sentinel hung into the graph of the forward pass goes with the operator."""
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    sentinels = hung_into(model[1])
    data = [(torch.ones(2, 4), torch.zeros(2).long())]
    problem = Problem(model, "cross_entropy", data, check=False)
    A = make(name, problem)
    A @ torch.ones(A.shape[1])
    if name not in ("OutputRoot", "Decoupled"):  # which keep no graphs
        assert any(reference() is not None for reference in sentinels)  # for the next product
    gc.collect()
    gc.disable()  # no cycle may keep them until the next collection
    try:
        del A
    finally:
        gc.enable()
    assert all(reference() is None for reference in sentinels)


@pytest.mark.parametrize("name", NAMES)
def test_refuses_what_is_no_problem(name, unchecked):
    model = nn.Linear(4, 3)
    model.model = nn.Linear(1, 1)  # which the optimiser above is made for
    with pytest.raises(TypeError, match=r"expected a Problem\(model, loss, batches\), got Linear"):
        make(name, model)


def test_cases_are_in_float64():
    assert all(in_float64(case).problem().theta.dtype == torch.float64 for case in CASES[:3])
