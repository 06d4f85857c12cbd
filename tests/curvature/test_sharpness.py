import itertools

import curvlinops
import pytest
import torch
from torch import nn

import lossgeom as lg
from tests import reference
from tests.problems import CASES


@pytest.mark.parametrize(
    ("case", "which"), list(zip(CASES, itertools.cycle(["largest", "smallest"]), strict=False))
)
def test_agrees_with_dense_eigenvalues(case, which):
    values = torch.linalg.eigvalsh(reference.hessian(case))
    estimate = lg.sharpness(case.problem(), which=which, tol=1e-5, max_matvecs=300)
    expected = values[-1] if which == "largest" else values[0]
    assert estimate.value == pytest.approx(
        expected.item(), rel=1e-5, abs=1e-7 * values.abs().max().item()
    )
    assert estimate.converged


@pytest.mark.quick
def test_linear_regression_in_closed_form():
    """The Hessian of half a mean squared error is X^T X / N."""
    X = torch.randn(50, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model = nn.Linear(6, 1, bias=False).double()
    batches = [(X[:32], torch.zeros(32, 1)), (X[32:], torch.zeros(18, 1))]
    H = lg.Hessian(lg.Problem(model, "squared_error", batches)).dense()
    torch.testing.assert_close(H, X.T @ X / 50)


@pytest.mark.quick
def test_softmax_regression_in_closed_form():
    """The Hessian of cross-entropy in W is the mean of (diag(p) - p p^T) kron x x^T."""
    g = torch.Generator().manual_seed(0)
    X = torch.randn(20, 4, dtype=torch.float64, generator=g)
    model = nn.Linear(4, 3, bias=False).double()
    p = model(X).softmax(1).detach()
    A = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    expected = sum(torch.kron(A[i], torch.outer(X[i], X[i])) for i in range(20)) / 20
    problem = lg.Problem(model, "cross_entropy", [(X, torch.zeros(20, dtype=torch.long))])
    torch.testing.assert_close(lg.Hessian(problem).dense(), expected)
    torch.testing.assert_close(lg.GaussNewton(problem).dense(), expected)


@pytest.mark.parametrize("kind", ["Hessian", "GGN"])
def test_agrees_with_curvlinops(kind):
    case = next(case for case in CASES if case.name == "ragged")
    ours = {"Hessian": lg.Hessian, "GGN": lg.GaussNewton}[kind](case.problem())
    theirs = getattr(curvlinops, f"{kind}LinearOperator")(
        case.model, nn.CrossEntropyLoss(), list(case.model.parameters()), case.data
    )
    V = torch.randn(ours.shape[0], 3, dtype=torch.float64)
    torch.testing.assert_close(ours @ V, theirs @ V)
    # and their operator goes into our solver
    pairs, expected = lg.top_eigenpairs(theirs, 2, tol=1e-8), lg.top_eigenpairs(ours, 2, tol=1e-8)
    torch.testing.assert_close(pairs.values, expected.values)


@pytest.mark.quick
def test_a_last_batch_of_one_does_not_count_for_more():
    """33 examples as 32 + 1 are 33 examples."""
    torch.manual_seed(0)
    x, y = torch.randn(33, 4).double(), torch.randint(3, (33,))
    model = nn.Linear(4, 3).double()
    together = lg.sharpness(lg.Problem(model, "cross_entropy", [(x, y)]), tol=1e-8)
    apart = lg.sharpness(
        lg.Problem(model, "cross_entropy", [(x[:32], y[:32]), (x[32:], y[32:])]), tol=1e-8
    )
    assert apart.value == pytest.approx(together.value, rel=1e-10)


def test_signed_largest_is_not_the_largest_magnitude():
    class Saddle(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.tensor([0.3, 0.2]))

        def forward(self, x):
            return (0.5 * self.w[0] ** 2 - 1.5 * self.w[1] ** 2) * x

    def value(outputs, batch):
        return outputs.sum(), len(outputs)

    problem = lg.Problem(Saddle(), value, [(torch.ones(1, 1), torch.zeros(1))])
    for which, expected in (("largest", 1.0), ("smallest", -3.0), ("magnitude", -3.0)):
        assert lg.sharpness(problem, which=which).value == pytest.approx(expected, rel=1e-5)


def test_a_loss_linear_in_the_parameters_has_no_curvature():
    def linear(outputs, batch):
        return outputs.sum(), len(outputs)

    problem = lg.Problem(nn.Linear(3, 1), linear, [(torch.ones(4, 3), torch.zeros(4))])
    assert lg.sharpness(problem).value == 0
    assert lg.GaussNewton(problem).dense().abs().max() == 0


def test_measuring_twice_gives_the_same():
    problem = CASES[0].problem()
    assert lg.sharpness(problem) == lg.sharpness(problem)


def test_kept_graphs_are_within_the_budget():
    x, y = torch.randn(64, 100), torch.randint(10, (64,))
    model = nn.Sequential(nn.Linear(100, 100), nn.Tanh(), nn.Linear(100, 10))
    problem = lg.Problem(
        model, "cross_entropy", [(x[i : i + 8], y[i : i + 8]) for i in range(0, 64, 8)]
    )
    V = torch.ones(problem.theta.numel(), 1)
    kept = []
    least = lg.Hessian(problem).memory.least
    for memory_budget in (0, least + 100_000, 2**30):
        hessian = lg.Hessian(problem, memory_budget=memory_budget)
        hessian @ V
        kept.append(len(hessian._kept._linear))
    assert kept[0] == 0 < kept[1] < kept[2] == 8


def test_a_first_product_that_fails_half_way_spoils_nothing():
    model = nn.Linear(2, 1, bias=False)
    failing = True

    def loss(outputs, batch):
        if failing and len(outputs) == 3:
            raise RuntimeError("half-way")
        return outputs.square().sum(), len(outputs)

    data = [(torch.ones(1, 2), torch.zeros(1)), (torch.ones(3, 2), torch.zeros(3))]
    hessian = lg.Hessian(lg.Problem(model, loss, data, check=False))
    with pytest.raises(RuntimeError, match="half-way"):
        hessian @ torch.ones(2)
    failing = False
    assert (hessian @ torch.ones(2)).tolist() == [4.0, 4.0]


@pytest.mark.parametrize("which", ["largest", "magnitude"])
def test_a_pair_that_may_be_the_second_is_not_called_verified(unchecked, which):
    """With a gap of 2 % some seeds give the second eigenvalue, within the tolerance."""
    values = torch.cat([torch.linspace(0, 0.5, 298), torch.tensor([1.0, 1.02])]).double()
    A, wrong, products = torch.diag(values), {}, {}
    for verify in (False, None):
        found = [
            lg.top_eigenpairs(A, which=which, verify=verify, seed=seed).top for seed in range(150)
        ]
        wrong[verify] = [e for e in found if abs(e.value - 1.02) > 1e-3]
        products[verify] = sum(e.matvecs for e in found) / len(found)
        assert all(e.converged for e in found)
        assert not any(e.verified for e in wrong[verify])
        if verify is None:
            assert sum(bool(e.verified) for e in found) > 140
    assert len(wrong[False]) > len(wrong[None])  # the control: without further products it is so
    assert len(wrong[None]) <= 1
    assert products[None] <= products[False] + 3


def test_sharpness_is_verified():
    problem = CASES[0].problem()
    found = lg.sharpness(problem)
    assert found.verified
    assert found.matvecs <= lg.top_eigenpairs(lg.Hessian(problem), verify=False).matvecs + 3


def test_what_three_products_do_not_verify_says_so():
    """Where eigenvalues are so dense that the start's share of the last one grows slowly."""
    A = torch.diag(torch.cat([torch.linspace(0, 1, 1000), torch.tensor([1.02, 1.03])]).double())
    found = [lg.top_eigenpairs(A, seed=seed) for seed in range(6)]
    assert all(pairs.converged.all() for pairs in found)
    doubtful = [pairs.top for pairs in found if not pairs.verified]
    assert doubtful
    assert all("not verified" in f"{top}" for top in doubtful)


def test_verification_by_the_first_iteration_holds_at_both_ends():
    """A start that has nothing of the other end is not mistaken for a matrix without one."""
    values = torch.cat([torch.linspace(-0.3, 0.3, 400), torch.tensor([1.0, -1.05])]).double()
    for which, best in (("largest", 1.0), ("smallest", -1.05), ("magnitude", -1.05)):
        for seed in range(20):
            pairs = lg.top_eigenpairs(torch.diag(values), which=which, seed=seed)
            assert pairs.values.item() == pytest.approx(best, rel=1e-3)
            assert pairs.verified
