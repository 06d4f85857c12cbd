import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import eigsh

from lossgeom import conjugate_gradients, top_eigenpairs
from lossgeom.linalg import Dense, LinearOperator, MatrixFree, Memory, lanczos, random_numbers
from tests.linalg.spectra import FORMS, SPECTRA, check_pairs, rotated, wanted


@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("name", SPECTRA)
def test_known_spectra(name, k, which):
    values = SPECTRA[name]
    k = min(k, len(values))
    A = rotated(values)
    pairs = top_eigenpairs(A, k, which=which, tol=1e-6, max_matvecs=2000)
    assert pairs.converged.all()
    expected = wanted(values, which)[:k]
    actual = pairs.values if which != "magnitude" else pairs.values.abs()
    expected = expected if which != "magnitude" else expected.abs()
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-12)
    check_pairs(A, pairs, 1e-6)


@pytest.mark.parametrize("name", ["distinct", "outliers", "triple", "rank_two", "negative"])
def test_float32(name):
    A = rotated(SPECTRA[name], dtype=torch.float32)
    pairs = top_eigenpairs(A, 3, tol=1e-4, max_matvecs=500)
    assert pairs.converged.all()
    expected = wanted(SPECTRA[name], "largest")[:3]
    torch.testing.assert_close(pairs.values.double(), expected, rtol=1e-5, atol=1e-5)
    check_pairs(A, pairs, 1e-4)


def test_zero_operator():
    assert top_eigenpairs(torch.zeros(60, 60)).verified
    pairs = top_eigenpairs(torch.zeros(5, 5), 3)
    assert pairs.values.tolist() == [0, 0, 0]
    assert pairs.converged.all()


def test_one_by_one():
    pairs = top_eigenpairs(torch.tensor([[-2.0]]))
    assert pairs.values.item() == -2
    assert abs(pairs.vectors.item()) == 1
    assert pairs.matvecs == 2  # one of them for the residual


@pytest.mark.quick
def test_all_pairs():
    A = rotated(torch.tensor([3.0, 3.0, 1.0, -5.0]))
    pairs = top_eigenpairs(A, 4)
    torch.testing.assert_close(pairs.values, torch.tensor([3.0, 3.0, 1.0, -5.0]).double())
    assert pairs.converged.all()


def test_agrees_with_scipy():
    A = rotated(torch.cat([torch.randn(200) * 0.1, torch.tensor([2.0, 3.0, 5.0])]), seed=3)
    pairs = top_eigenpairs(A, 3, tol=1e-8)
    expected = eigsh(A.numpy(), k=3, which="LA", return_eigenvectors=False)[::-1].copy()
    torch.testing.assert_close(pairs.values, torch.from_numpy(expected), rtol=1e-10, atol=0)


@pytest.mark.parametrize("form", FORMS)
def test_takes_what_multiplies(form):
    A = rotated(SPECTRA["outliers"])
    expected = top_eigenpairs(A, 2)
    torch.testing.assert_close(top_eigenpairs(FORMS[form](A), 2).values, expected.values)


def test_products_come_in_blocks_and_are_counted():
    A, widths = rotated(SPECTRA["hessian"]), []

    def product(V):
        widths.append(V.shape[1])
        return A @ V

    operator = MatrixFree(A.shape, A.dtype, A.device, product, lambda: operator)
    pairs = top_eigenpairs(operator, 10, start=top_eigenpairs(A, 12).vectors)
    assert sum(widths) == pairs.matvecs
    assert max(widths) <= 8
    assert widths.count(1) < len(widths)


def test_same_seed_same_bits_and_global_generator_untouched():
    A = rotated(SPECTRA["distinct"])
    state = torch.get_rng_state()
    first, again = (top_eigenpairs(A, 2, seed=5) for _ in range(2))
    assert torch.equal(first.values, again.values)
    assert torch.equal(first.vectors, again.vectors)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.quick
def test_a_warm_start_saves_products():
    A = rotated(torch.cat([torch.linspace(0, 1, 300), torch.tensor([2.0])]))
    cold = top_eigenpairs(A, tol=1e-6)
    warm = top_eigenpairs(A, tol=1e-6, start=cold.vectors[:, 0], verify=False)
    assert warm.matvecs <= 3 < cold.matvecs
    torch.testing.assert_close(warm.values, cold.values)


def test_a_warm_block_saves_products():
    values = torch.cat([torch.linspace(-0.2, 0.3, 300), torch.logspace(0, 1.3, 10)])
    A, noise = rotated(values), rotated(torch.linspace(-1, 1, 310), seed=7)
    near = A + 1e-3 * noise
    warm = top_eigenpairs(near, 4, start=top_eigenpairs(A, 4).vectors)
    assert warm.converged.all()
    assert warm.matvecs < 0.7 * top_eigenpairs(near, 4).matvecs
    expected = torch.linalg.eigvalsh(near).flip(0)[:4]
    torch.testing.assert_close(warm.values, expected, rtol=1e-5, atol=0)


def test_more_start_vectors_than_needed_and_dependent_ones():
    A = rotated(SPECTRA["hessian"])
    start = torch.ones(90, 3, dtype=torch.float64)
    many = torch.cat([start, torch.eye(90, dtype=torch.float64)], 1)
    pairs = top_eigenpairs(A, 2, start=many, tol=1e-6, max_matvecs=500)
    torch.testing.assert_close(pairs.values, wanted(SPECTRA["hessian"], "largest")[:2])
    assert top_eigenpairs(A, 2, start=start).converged.all()


def test_smallest_pairs_by_the_inverse():
    """As docs/explanation/spectral-algorithms.md says: where a nearly exact inverse is known."""
    values = torch.logspace(-3, 2, 300, dtype=torch.float64)
    A, T = torch.diag(values), torch.diag(1 / (values + 1e-3))

    def solve(B):
        return conjugate_gradients(A, B, preconditioner=T).x

    inverse = MatrixFree((300, 300), A.dtype, A.device, solve, lambda: inverse)
    pairs = top_eigenpairs(inverse, 2)
    assert pairs.converged.all()
    torch.testing.assert_close(1 / pairs.values, values[:2], rtol=1e-3, atol=0)
    assert not top_eigenpairs(A, 2, which="smallest", max_matvecs=300).converged.any()


@pytest.mark.parametrize("wrong", [0, 1, 50])
def test_a_start_that_is_another_eigenvector_does_not_mislead(wrong):
    values = torch.linspace(0, 1, 60)
    values[-1] = 3
    values[1] = 2
    start = torch.zeros(60)
    start[wrong] = 1
    pairs = top_eigenpairs(torch.diag(values), start=start)
    assert pairs.converged.all()
    assert abs(pairs.values.item() - 3) < 1e-4


def test_unverified_result_can_miss_a_copy():
    """The negative control of the verification: without it, the second copy is not seen."""
    A = torch.diag(torch.cat([torch.tensor([3.0, 3.0, 2.0]), torch.zeros(50)])).double()
    assert top_eigenpairs(A, 2).values.tolist() == pytest.approx([3, 3])
    assert top_eigenpairs(A, 2, verify=False).values.tolist() == pytest.approx([3, 2])


@pytest.mark.quick
def test_restarts_within_a_small_basis():
    values = torch.cat([torch.linspace(0, 1, 200), torch.tensor([1.5, 2.0])])
    pairs = top_eigenpairs(rotated(values), 2, tol=1e-8, max_basis=6, max_matvecs=3000)
    assert pairs.converged.all()
    torch.testing.assert_close(pairs.values, torch.tensor([2.0, 1.5]).double())


@pytest.mark.parametrize("which", ["largest", "smallest"])
def test_restarts_where_memory_is_short(monkeypatch, which):
    """The same eigenvalues from a basis of 2 k + 2 vectors, for more products."""
    A = rotated(SPECTRA["hessian"])
    plenty = top_eigenpairs(A, 2, which=which, tol=1e-8, max_matvecs=5000)
    monkeypatch.setattr(Memory, "vectors", lambda *_: 0)
    short = top_eigenpairs(A, 2, which=which, tol=1e-8, max_matvecs=5000)
    assert short.converged.all()
    assert short.matvecs > plenty.matvecs
    torch.testing.assert_close(short.values, plenty.values, rtol=1e-10, atol=0)


def test_fewer_of_long_vectors_are_held(monkeypatch):
    A, asked = rotated(SPECTRA["hessian"]), []
    monkeypatch.setattr(Memory, "vectors", lambda _, each, most: asked.append(most) or most)
    expected = top_eigenpairs(A, 2, tol=1e-8)
    monkeypatch.setattr(lanczos, "LONG", 0)
    fewer = top_eigenpairs(A, 2, tol=1e-8)
    assert asked[-1] < asked[0]
    assert fewer.converged.all()
    torch.testing.assert_close(fewer.values, expected.values, rtol=1e-10, atol=0)


@pytest.mark.quick
@pytest.mark.parametrize("seed", range(3))
def test_four_vectors_take_hardly_more_products_than_any_number(seed):
    """A restart keeps what matters, and what the start has shown stays known."""
    bulk = 0.3 * torch.arange(1.0, 591) ** -0.4
    bulk[::5] *= -0.5
    values = torch.cat([0.8 ** torch.arange(10.0), bulk]).double()
    A = rotated(values)
    plenty, few = top_eigenpairs(A, seed=seed), top_eigenpairs(A, max_basis=4, seed=seed)
    assert few.converged.all()
    assert few.verified == plenty.verified
    assert few.matvecs <= 1.3 * plenty.matvecs
    check_pairs(A, few, 1e-3)


@pytest.mark.quick
@pytest.mark.parametrize("seed", [13, 27, 61, 71, 78])
def test_what_the_start_has_of_a_pair_is_not_lost_beyond_it_after_restarts(seed):
    """There a polynomial may be zero close to the other end of the spectrum, and large farther."""
    n, share = 300, 0.02  # of what a random vector has typically
    bulk = 0.3 * torch.linspace(-2, 2, n - 6)
    values = torch.cat([torch.tensor([10.0, 9, 7, 5, 4]), bulk, torch.zeros(1)]).double()
    b, u = (torch.randn(n, generator=random_numbers(seed + i)).double() for i in range(2))
    b /= b.norm()  # what the search starts from
    u -= b * (b @ u)
    u = share / n**0.5 * b + (1 - share**2 / n) ** 0.5 * u / u.norm()
    P = torch.eye(n).double() - torch.outer(u, u)
    A = P @ torch.diag(values) @ P - 12 * torch.outer(u, u)
    pairs = top_eigenpairs((A + A.T) / 2, which="magnitude", tol=0.01, max_basis=4, seed=seed)
    assert pairs.values[0] < 0 or not pairs.verified


def test_says_when_it_has_not_converged():
    A = rotated(torch.linspace(0, 1, 300))
    pairs = top_eigenpairs(A, 2, tol=1e-8, max_matvecs=10)
    assert not pairs.converged.any()
    assert pairs.matvecs == 10
    check_pairs(A, pairs, 1e-8)


def test_products_that_are_not_finite_in_the_search_for_a_rival():
    """They show that A is not what it should be, also where the pairs found are finite."""
    A, seen = torch.diag(torch.tensor([5.0, 4.0, *[1.0] * 30])), []

    def product(V):
        seen.append(V)
        return A @ V / (0.0 if len(seen) == 3 else 1.0)

    operator = MatrixFree(A.shape, A.dtype, A.device, product, lambda: operator)
    pairs = top_eigenpairs(operator, start=torch.eye(32)[0])
    assert pairs.values.isnan().all()
    assert not pairs.converged.any()
    assert not pairs.verified


def test_non_finite_products_give_nan():
    pairs = top_eigenpairs(torch.diag(torch.tensor([1.0, math.nan, 2.0])), 2)
    assert pairs.values.isnan().all()
    assert not pairs.converged.any()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-10, 10), min_size=1, max_size=12), st.integers(0, 5))
@example([2.2e-311, 2.2e-311], 0)  # below normal numbers
@example([0.0, -2.2e-311], 0)
def test_any_spectrum(values, seed):
    A = rotated(torch.tensor(values, dtype=torch.float64), seed)
    pairs = top_eigenpairs(A, seed=seed, tol=1e-9, max_matvecs=500)
    assert pairs.values.item() == pytest.approx(max(values), abs=1e-7)
    assert pairs.converged.all()


def test_a_spectrum_far_from_zero():
    """Where a random vector has a small residual relative to every eigenvalue."""
    n = 20_000
    diagonal = torch.ones(n)
    diagonal[7] = 1.5
    A = MatrixFree(
        (n, n), torch.float32, torch.device("cpu"), lambda V: diagonal[:, None] * V, lambda: A
    )
    assert top_eigenpairs(A).values.item() == pytest.approx(1.5, rel=1e-4)


def test_a_start_in_a_spectrum_far_from_zero():
    diagonal = torch.ones(100)
    diagonal[0], diagonal[1] = 1.5, 1.3
    start = torch.eye(100)[1]
    found = [
        top_eigenpairs(torch.diag(diagonal), start=start, seed=seed).values.item()
        for seed in range(50)
    ]
    assert found == pytest.approx([1.5] * 50)


def test_how_often_a_small_degenerate_spectrum_misleads():
    """Six standard errors below one in a hundred of 600 seeds; without verification, far more."""
    A = torch.diag(torch.tensor([1.0, 0.8, 0.6, 0.0, 0.0]))
    wrong = [
        sum(
            top_eigenpairs(A, 2, which="smallest", seed=seed, verify=verify).values[1] > 0.1
            for seed in range(600)
        )
        for verify in (True, False)
    ]
    assert wrong[0] <= 6
    assert wrong[1] > 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "expected 1 <= k <= 3"),
        ({"k": 4}, "expected 1 <= k <= 3"),
        ({"tol": 2.0}, "expected a tolerance 0 < tol < 1"),
        ({"max_matvecs": 0}, "expected max_matvecs of at least 1, got 0"),
        ({"max_basis": -3}, "expected max_basis of at least 1, got -3"),
        ({"tol": -1.0}, "expected a tolerance 0 < tol < 1"),
        ({"start": torch.ones(4)}, r"expected start of shape \(3,\)"),
        ({"start": torch.full((3,), math.nan)}, "expected a finite start"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        top_eigenpairs(torch.eye(3), **arguments)


def test_bad_matrices(unchecked):
    with pytest.raises(ValueError, match="expected a square symmetric operator"):
        top_eigenpairs(torch.ones(2, 3))
    with pytest.raises(ValueError, match="expected a symmetric operator"):
        top_eigenpairs(torch.triu(torch.ones(6, 6)))
    with pytest.raises(TypeError, match="expected an operator in float32 or float64"):
        top_eigenpairs(torch.eye(3).bfloat16())
    with pytest.raises(TypeError, match="expected a matrix"):
        top_eigenpairs("matrix")
    with pytest.raises(ValueError, match="expected which to be one of"):
        top_eigenpairs(torch.eye(3), which="best")


def test_operator_algebra():
    torch.manual_seed(0)
    A, B, V = torch.randn(3, 4), torch.randn(3, 4), torch.randn(4, 2)
    combined = 2 * Dense(A) - Dense(B)
    torch.testing.assert_close(combined @ V, (2 * A - B) @ V)
    torch.testing.assert_close(combined.T.dense(), (2 * A - B).T)
    torch.testing.assert_close((Dense(A) @ Dense(B).T).dense(), A @ B.T)
    torch.testing.assert_close((Dense(A) @ Dense(B).T).T.dense(), B @ A.T)
    torch.testing.assert_close((-Dense(A)) @ V[:, 0], -A @ V[:, 0])
    torch.testing.assert_close(torch.from_numpy(Dense(A).to_scipy() @ V.numpy()), A @ V)
    torch.testing.assert_close(
        torch.from_numpy(Dense(A).to_scipy().rmatvec(V[:3, 0].numpy())), A.T @ V[:3, 0]
    )
    assert isinstance(combined, LinearOperator)
    assert isinstance(combined, MatrixFree)


@pytest.mark.quick
@pytest.mark.parametrize("which", ["largest", "smallest"])
def test_a_small_eigenvalue_that_a_random_vector_sees_little_of(which):
    """Where its share of an image is less than what counts as rounding, though it is not."""
    sign = 1.0 if which == "largest" else -1.0
    A = rotated(sign * torch.tensor([1.0, 1e-5, *[0.0] * 64]), dtype=torch.float32)
    for seed in range(12):
        second = top_eigenpairs(A, 2, which=which, seed=seed).values[1].item()
        assert sign * second == pytest.approx(1e-5, abs=1e-6)


@pytest.mark.parametrize("scale", [2.0**-100, 2.0**100])  # which round nothing
def test_scale_does_not_matter(scale):
    A = rotated(SPECTRA["outliers"], dtype=torch.float32)
    pairs, scaled = top_eigenpairs(A, 2), top_eigenpairs(A * scale, 2)
    torch.testing.assert_close(scaled.values / scale, pairs.values)
    torch.testing.assert_close(scaled.residuals / scale, pairs.residuals, rtol=0.01, atol=1e-6)
    assert scaled.matvecs == pairs.matvecs


def test_operator_errors(unchecked):
    with pytest.raises(TypeError, match=r"got ndarray; to_scipy\(\) multiplies NumPy arrays"):
        Dense(torch.ones(3, 4)) @ torch.ones(4).numpy()
    with pytest.raises(TypeError, match=r"in torch\.float32 by one in torch\.float64"):
        Dense(torch.ones(3, 4)) @ torch.ones(4).double()
    with pytest.raises(ValueError, match=r"cannot multiply .* 3 rows; expected 4"):
        Dense(torch.ones(3, 4)) @ torch.ones(3)
    with pytest.raises(ValueError, match="cannot add operators of shapes"):
        Dense(torch.ones(3, 4)) + Dense(torch.ones(4, 4))


def test_a_basis_may_be_on_another_device_than_the_matrix():
    A = rotated(SPECTRA["outliers"])
    there = top_eigenpairs(A, 3, tol=1e-6, basis_on="cpu")  # the one that is sure to be there
    here = top_eigenpairs(A, 3, tol=1e-6)
    assert torch.equal(there.vectors, here.vectors)
    with pytest.raises(RuntimeError, match="nowhere"):
        top_eigenpairs(A, 3, basis_on="nowhere")


@pytest.mark.parametrize("k", [1, 3, 10])
@pytest.mark.parametrize("size", [60, 70_000])
def test_products_may_be_in_memory_that_the_operator_writes_to_again(size, k):
    numbers = 1 / torch.arange(1.0, size + 1)
    kept = {}

    def product(V):
        place = kept.setdefault(V.shape[1], torch.empty_like(V))
        return torch.mul(numbers[:, None], V, out=place)

    A = MatrixFree((size, size), torch.float32, torch.device("cpu"), product, lambda: A)
    found = top_eigenpairs(A, k, max_matvecs=1_000)
    assert found.converged.all()
    torch.testing.assert_close(found.values, numbers[:k], rtol=1e-3, atol=0)
    differences = numbers[:, None] * found.vectors - found.vectors * found.values
    assert (differences.norm(dim=0) <= 1.01 * found.residuals).all()


def test_long_vectors_round_no_more_than_short_ones():
    """Sums of millions of numbers in float32 would be off by a ten-thousandth of their size."""
    n = 2**21
    rest = torch.rand(n - 43, generator=random_numbers(0)) / 2
    values = torch.cat([torch.tensor([10, 9.7, 9.4]), torch.linspace(0, 9, 40), rest])
    A = MatrixFree(
        (n, n), torch.float32, torch.device("cpu"), lambda V: values[:, None] * V, lambda: A
    )
    pairs = top_eigenpairs(A, tol=1e-4, max_basis=12)
    assert pairs.converged.all()
    assert pairs.values.item() == pytest.approx(10, rel=1.2e-5)
