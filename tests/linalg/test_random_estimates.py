"""What trace, diagonal, Frobenius norm and effective rank have in common."""

import itertools
import math

import pytest
import torch

import lossgeom as lg
from lossgeom.linalg import MatrixFree
from lossgeom.linalg.probes import AGREEING_FORMS, VANISHING_PRODUCTS
from tests.linalg.spectra import FORMS, SPECTRA, covered, rotated


def first_entry(A, matvecs, seed):
    found = lg.diagonal(A, matvecs=matvecs, seed=seed)
    return lg.Estimate(found.values[0].item(), found.stderr[0].item(), matvecs=found.matvecs)


def rank(kind):
    return lambda A, matvecs, seed: lg.effective_rank(A, kind=kind, matvecs=matvecs, seed=seed)


ESTIMATES = {
    "trace": lambda A, matvecs, seed: lg.trace(A, matvecs=matvecs, seed=seed),
    "hutchinson": lambda A, matvecs, seed: lg.trace(
        A, matvecs=matvecs, seed=seed, method="hutchinson"
    ),
    "diagonal": first_entry,
    "frobenius_norm": lambda A, matvecs, seed: lg.frobenius_norm(A, matvecs=matvecs, seed=seed),
    "participation": rank("participation"),
    "stable": rank("stable"),
    "intrinsic": rank("intrinsic"),
}
TRUTH = {
    "trace": lambda A: A.trace(),
    "hutchinson": lambda A: A.trace(),
    "diagonal": lambda A: A[0, 0],
    "frobenius_norm": lambda A: A.norm(),
    "participation": lambda A: A.trace() ** 2 / A.norm() ** 2,
    "stable": lambda A: (A.norm() / torch.linalg.matrix_norm(A, ord=2)) ** 2,
    "intrinsic": lambda A: A.trace() / torch.linalg.matrix_norm(A, ord=2),
}
DEFINITE = ["triple", "rank_two", "graded", "wishart", "rank_deficient", "tiny_gap"]
WHERE = {"participation": DEFINITE, "stable": ["hessian"], "intrinsic": ["wishart"]}
CASES = [
    (name, spectrum)
    for name in ESTIMATES
    for spectrum in WHERE.get(name, [s for s in SPECTRA if len(SPECTRA[s]) > 20])
]


@pytest.mark.parametrize(("name", "spectrum"), CASES)
def test_the_error_is_honest(unchecked, name, spectrum):
    """Of 100 seeds, t intervals at 99 % hold the truth; with a quarter of the error, few do."""
    A = rotated(SPECTRA[spectrum])
    truth, scale = TRUTH[name](A).item(), A.norm().item()
    for matvecs in (10, len(A) - 1):
        found = [ESTIMATES[name](A, matvecs, seed) for seed in range(100)]
        inside = {
            factor: covered(found, truth, matvecs // 2, 0.99, factor, rounding=1e-10 * scale)
            for factor in (1.0, 0.25)
        }
        assert inside[1.0] >= 0.9
        if 1e-9 * scale < max(estimate.stderr for estimate in found) < math.inf:
            assert inside[0.25] < 0.9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("matvecs", [2, 3, 6])
@pytest.mark.parametrize("name", ESTIMATES)
def test_samples_that_agree_by_chance_are_no_exact_answer(name, matvecs, dtype):
    """Of a matrix with few entries signs give few values; three of a kind are the worst of them."""
    A = torch.zeros(75, 75, dtype=dtype)
    A[:3, :3], A[10, 10] = 1.0, 2.0
    truth = TRUTH[name](A.double()).item()
    quantile = {2: 63.7, 3: 9.92, 6: 4.03}[matvecs]  # of t, 99 %
    found = [ESTIMATES[name](A, matvecs, seed) for seed in range(40)]
    wrong = [estimate for estimate in found if abs(estimate.value - truth) > 1e-4 * truth]
    assert all(estimate.stderr > 1e-4 for estimate in wrong)
    held = [abs(e.value - truth) <= quantile * e.stderr + 1e-4 * truth for e in found]
    assert sum(held) >= 0.9 * len(held)
    if name == "trace":
        assert sum(estimate.stderr == math.inf for estimate in found) > 0


def test_agreement_of_many_samples_is_an_exact_answer():
    """Where a quadratic form takes a value with a probability of 3/4 at most, and no more."""
    values = [sum(z[i] * z[j] for i, j in ((0, 1), (0, 2), (1, 2)))
              for z in itertools.product((-1, 1), repeat=3)]  # fmt: skip
    assert max(values.count(value) for value in values) / len(values) == 0.75
    assert 0.75 ** (AGREEING_FORMS - 1) < 0.01 < 0.75 ** (AGREEING_FORMS - 2)
    for name in ("trace", "diagonal", "frobenius_norm"):
        assert ESTIMATES[name](torch.eye(75), 60, 0).stderr == 0
        assert ESTIMATES[name](torch.zeros(75, 75), VANISHING_PRODUCTS, 0).stderr == 0
        assert ESTIMATES[name](torch.zeros(75, 75), VANISHING_PRODUCTS - 1, 0).stderr == math.inf


@pytest.mark.parametrize("name", ["trace", "hutchinson", "diagonal", "frobenius_norm"])
def test_a_biased_operator_is_found(unchecked, name):
    A = rotated(SPECTRA["wishart"])
    other = MatrixFree(A.shape, A.dtype, A.device, lambda V: 1.5 * (A @ V), lambda: other)
    found = [ESTIMATES[name](other + 0.3 * eye(60), 50, seed) for seed in range(20)]
    assert covered(found, TRUTH[name](A).item(), 25, 0.99) < 0.2


def eye(n):
    A = MatrixFree((n, n), torch.float64, torch.device("cpu"), lambda V: V, lambda: A)
    return A


@pytest.mark.quick
@pytest.mark.parametrize("name", ESTIMATES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exact_where_the_products_suffice(name, dtype):
    A = rotated(SPECTRA["wishart"], dtype=dtype)
    estimate = ESTIMATES[name](A, 60, 0)
    assert estimate.value == pytest.approx(TRUTH[name](A).item(), rel=1e-5)
    assert estimate.stderr == 0
    assert estimate.matvecs >= 60


@pytest.mark.parametrize("name", ESTIMATES)
@pytest.mark.parametrize("form", FORMS)
def test_takes_what_multiplies(name, form):
    A = rotated(SPECTRA["hessian"])
    expected, found = (ESTIMATES[name](M, 30, 0) for M in (A, FORMS[form](A)))
    assert found.value == pytest.approx(expected.value)
    assert found.stderr == pytest.approx(expected.stderr)


@pytest.mark.parametrize("name", ESTIMATES)
def test_one_by_one_and_zero(name):
    single = ESTIMATES[name](torch.tensor([[2.5]]), 2, 0)
    assert single.value == pytest.approx(1 if name in WHERE else 2.5)
    assert single.stderr == 0
    for n in (3, 60):
        zero = ESTIMATES[name](torch.zeros(n, n), 30, 0)
        assert (zero.value, zero.stderr) == (0, 0)


@pytest.mark.parametrize("name", ESTIMATES)
@pytest.mark.parametrize("matvecs", [4, 30, 100])
def test_non_finite_products_are_recorded(name, matvecs):
    A = torch.eye(50)
    A[7, 7] = math.nan
    estimate = ESTIMATES[name](A, matvecs, 0)
    assert estimate.status == "nonfinite"
    if name != "diagonal":
        assert not estimate.converged


@pytest.mark.parametrize("name", ESTIMATES)
def test_same_seed_same_bits_and_global_generator_untouched(name):
    state = torch.get_rng_state()
    A = rotated(SPECTRA["hessian"])
    first, again, other = (ESTIMATES[name](A, 40, seed) for seed in (1, 1, 2))
    assert first == again
    assert first.value != other.value
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["trace", "diagonal", "frobenius_norm"])
@pytest.mark.parametrize("spectrum", ["hessian", "identity"])
def test_products_come_in_blocks_and_are_counted(name, spectrum):
    A, widths = rotated(SPECTRA[spectrum]), []

    def product(V):
        widths.append(V.shape[1])
        return A @ V

    operator = MatrixFree(A.shape, A.dtype, A.device, product, lambda: operator)
    estimate = ESTIMATES[name](operator, 29, 0)
    assert sum(widths) == estimate.matvecs <= 29
    assert max(widths) <= 8
    assert len(widths) <= 6


@pytest.mark.parametrize("name", ["trace", "frobenius_norm", "diagonal"])
def test_outliers_are_taken_out(name):
    """As accurate as if they were not there, but for the products that took them out."""
    outliers = torch.cat([SPECTRA["wishart"], torch.tensor([100.0, 200.0, 500.0])])
    bulk = torch.cat([SPECTRA["wishart"], torch.zeros(3)])
    steep, flat = (ESTIMATES[name](rotated(values), 40, 0) for values in (outliers, bulk))
    assert steep.stderr < 3 * flat.stderr
    if name == "trace":
        assert ESTIMATES["hutchinson"](rotated(outliers), 40, 0).stderr > 10 * flat.stderr


@pytest.mark.parametrize("scale", [1e-15, 1e15])
@pytest.mark.parametrize("name", ["trace", "diagonal", "frobenius_norm"])
def test_scale_does_not_matter(name, scale):
    A = rotated(SPECTRA["hessian"], dtype=torch.float32)
    one, other = (ESTIMATES[name](factor * A, 40, 0) for factor in (1.0, scale))
    assert other.value / scale == pytest.approx(one.value, rel=1e-5)
    assert other.stderr / scale == pytest.approx(one.stderr, rel=1e-3)


def test_a_nonsymmetric_matrix():
    A = torch.randn(50, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    A = A + 20 * torch.outer(A[0], A[1])
    for name in ("trace", "diagonal", "frobenius_norm"):
        found = [ESTIMATES[name](A, 40, seed) for seed in range(200)]
        assert covered(found, TRUTH[name](A).item(), 20, 0.99) >= 0.9


def test_errors(unchecked):
    for function in (lg.trace, lg.diagonal, lg.frobenius_norm, lg.effective_rank):
        with pytest.raises(ValueError, match="expected matvecs of at least 2, got 1"):
            function(torch.eye(3), matvecs=1)
        with pytest.raises(TypeError, match="expected a matrix"):
            function("A")
        with pytest.raises(TypeError, match=r"in float32 or float64, got torch\.bfloat16"):
            function(torch.eye(3).bfloat16())
    for function in (lg.trace, lg.diagonal):
        with pytest.raises(ValueError, match=r"expected a square matrix, got one of shape \(2, 3"):
            function(torch.ones(2, 3))
    with pytest.raises(ValueError, match="expected method to be one of"):
        lg.trace(torch.eye(3), method="best")
    with pytest.raises(ValueError, match="expected kind to be one of"):
        lg.effective_rank(torch.eye(3), kind="best")
    with pytest.raises(ValueError, match=r"expected a positive semi-definite matrix.* is about -3"):
        lg.effective_rank(-torch.eye(3), kind="participation")
