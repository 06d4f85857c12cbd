"""Stochastic Lanczos quadrature."""

import dataclasses
import math

import numpy as np
import pytest
import torch

import lossgeom as lg
from lossgeom.linalg import MatrixFree
from tests.linalg.spectra import FORMS, SPECTRA, covered, rotated, wishart

LARGE = wishart(600, 1200)


def marchenko_pastur(grid, width, ratio):
    """The law of a Wishart matrix's eigenvalues, smoothed with a normal density."""
    low, high = (1 - math.sqrt(ratio)) ** 2, (1 + math.sqrt(ratio)) ** 2
    x = torch.linspace(low, high, 4001, dtype=torch.float64)
    law = torch.sqrt((high - x) * (x - low)) / (2 * math.pi * ratio * x)
    kernel = torch.exp(-0.5 * ((grid[:, None] - x) / width) ** 2) / (width * math.sqrt(2 * math.pi))
    return torch.trapezoid(kernel * law, x)


def test_of_a_wishart_matrix():
    density = lg.spectral_density(rotated(LARGE), probes=8, steps=40, width=0.05)
    assert not density.exact
    assert density.reorthogonalized
    assert density.matvecs <= 8 * 40

    def distance(ratio):
        law = marchenko_pastur(density.grid, 0.05, ratio)
        return torch.trapezoid((density.density - law).abs(), density.grid).item()

    # some 60 eigenvalues in a kernel, 8 probes: 6 % of the density, so 5 % on average
    assert distance(0.5) < 0.1
    assert distance(0.8) > 0.2


@pytest.mark.quick
@pytest.mark.parametrize("name", SPECTRA)
def test_exact_where_the_products_suffice(name):
    values = SPECTRA[name].double()
    density = lg.spectral_density(rotated(values), grid=torch.linspace(-99, 30, 50_000), width=0.05)
    assert density.exact
    assert density.matvecs == len(values)
    torch.testing.assert_close(density.nodes[0], values.sort().values, rtol=1e-9, atol=1e-12)
    assert density.moment(2).value == pytest.approx((values**2).mean().item())
    assert density.moment(2).stderr == 0
    limit = 0.48
    assert (values - limit).abs().min() > 1e-6  # no eigenvalue whose side is a matter of rounding
    assert density.count(limit, math.inf).value == pytest.approx((values >= limit).sum().item())
    assert density.mass == pytest.approx(1, abs=1e-6)
    assert not density.stderr.any()


@pytest.mark.parametrize("name", [name for name in SPECTRA if len(SPECTRA[name]) > 20])
def test_the_error_of_moments_is_honest(unchecked, name):
    """Of 100 seeds, t intervals at 99 % hold the truth; with a tenth of the error, they do not."""
    values = SPECTRA[name].double()
    A = rotated(values)
    found = [lg.spectral_density(A, probes=5, steps=4, seed=seed) for seed in range(100)]
    assert not any(density.exact for density in found)
    for k in (1, 2):
        moments = [density.moment(k) for density in found]
        truth = (values**k).mean().item()
        assert covered(moments, truth, freedom=4, level=0.99) >= 0.9
        if name != "identity":
            assert covered(moments, truth, freedom=4, level=0.99, factor=0.1) < 0.9


def test_the_error_of_the_density_is_honest(unchecked):
    values = wishart(200, 400)
    A, grid = rotated(values), torch.linspace(0, 3, 7, dtype=torch.float64)
    truth = lg.spectral_density(A, probes=20, grid=grid, width=0.2)
    assert truth.exact
    found = [
        lg.spectral_density(A, probes=6, steps=15, grid=grid, width=0.2, seed=seed)
        for seed in range(200)
    ]

    def shares(factor):
        return [
            covered(
                [lg.Estimate(d.density[i].item(), d.stderr[i].item()) for d in found],
                truth.density[i].item(), freedom=5, level=0.99, factor=factor,
            )
            for i in range(len(grid))
        ]  # fmt: skip

    assert min(shares(1.0)) >= 0.9
    assert max(shares(0.2)) < 0.9


def test_equal_weights_would_be_wrong():
    """The negative control of the weights: outliers are few, though many nodes are on them."""
    values = torch.cat([torch.linspace(-0.1, 0.1, 990), torch.linspace(5, 9, 10)])
    density = lg.spectral_density(torch.diag(values.double()), probes=4, steps=30)
    assert density.fraction(1, 10).value == pytest.approx(0.01)
    equal = dataclasses.replace(density, weights=torch.full_like(density.weights, 1 / 30))
    assert equal.fraction(1, 10).value > 0.2


def test_signs_have_no_variance_on_a_diagonal_matrix():
    density = lg.spectral_density(torch.diag(LARGE), probes=18, steps=20)
    assert density.moment(3).value == pytest.approx((LARGE**3).mean().item())
    assert density.moment(3).stderr == pytest.approx(0, abs=1e-12)


def one_pair(n=75):
    """A diagonal matrix with one entry off the diagonal, which signs see half the time each way."""
    A = torch.zeros(n, n, dtype=torch.float64)
    A[0, 0], A[3, 40], A[40, 3] = 2, 1, 1
    return A


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_probes_that_agree_by_chance_are_no_exact_answer(dtype):
    values = torch.linalg.eigvalsh(one_pair())
    alike = 0
    for seed in range(60):
        density = lg.spectral_density(one_pair().to(dtype), probes=2, steps=10, seed=seed)
        for found, truth in (
            (density.moment(1), values.mean().item()),
            (density.mean(torch.exp), values.exp().mean().item()),
            (density.count(0.5, 3), 2),
            (density.count(-2, 3), 75),
        ):
            assert found.stderr > 0
            assert abs(found.value - truth) <= 64 * found.stderr  # t, one degree of freedom, 99 %
        alike += density.moment(1).stderr == math.inf
    assert 20 < alike < 60  # signs agree every other time


def test_what_a_few_probes_may_not_have_seen():
    """Of r probes that see nothing in an interval, 6 / r eigenvalues are there at most."""
    A = torch.diag(torch.linspace(-1, 1, 400, dtype=torch.float64))
    for probes, missed in ((2, 3), (4, 1), (7, 0)):
        density = lg.spectral_density(A, probes=probes, steps=20)
        assert density.count(2, 3).stderr == pytest.approx(missed)
        assert density.count(-2, 2).stderr == pytest.approx(missed)


def apart(dtype, probes):
    """Densities with room for all bases, for one at a time and for none, of ten outliers."""
    values = torch.cat([torch.linspace(-0.1, 0.1, 590), torch.linspace(5, 9, 10)])
    A = rotated(values, dtype=dtype)
    settings = {"grid": torch.linspace(-1, 10, 400).double(), "width": 0.1, "probes": probes}
    found = [
        lg.spectral_density(A, steps=100, memory_budget=budget, **settings)
        for budget in (2**30, 10**6, 10**4)
    ]
    assert [density.reorthogonalized for density in found] == [True, True, False]
    torch.testing.assert_close(
        found[1].density, found[0].density, rtol=0, atol=1e-4 * found[0].density.max()
    )
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_the_memory_of_a_basis(dtype):
    kept, _, none = apart(dtype, probes=2)
    assert none.outliers == 0
    assert (none.nodes > 1).sum() > 1.5 * (kept.nodes > 1).sum()  # copies
    one, other = (density.nodes[:1, density.outliers :] for density in (kept, none))
    assert other.max() == pytest.approx(kept.nodes.max())
    assert one.max() < 1 < other.max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_outliers_are_looked_for_where_there_is_memory(dtype):
    kept, group, none = apart(dtype, probes=4)
    assert [density.outliers > 0 for density in (kept, group, none)] == [True, True, False]
    error = (none.stderr.square() + kept.stderr.square()).sqrt()
    assert ((none.density - kept.density).abs() <= 6 * error + 0.02 * kept.density.max()).all()
    assert kept.count(1, 10).value == pytest.approx(10)
    assert abs(none.count(1, 10).value - 10) <= 6 * none.count(1, 10).stderr


def outliers_and_bulk(n=500):
    """Nine outliers, one of them negative, and a bulk with many zeros."""
    bulk = torch.cat([torch.zeros(n // 2), torch.linspace(-0.05, 0.1, n - n // 2 - 9)])
    return torch.cat([bulk, torch.tensor([-2.0]), torch.linspace(2, 9, 8)]).double()


def test_outliers_are_taken_out():
    values = outliers_and_bulk()
    density = lg.spectral_density(rotated(values), probes=8, steps=24)
    q = density.outliers
    assert 9 <= q <= 12
    assert density.matvecs == 24 + 7 * (24 - q)
    apart = (density.nodes[0, :q, None] - values).abs().amin(1)
    assert apart.max() < 0.01 * 11 / 24
    assert (density.weights[:, :q] == 1 / 500).all()
    torch.testing.assert_close(density.weights.sum(1), torch.ones(8, dtype=torch.float64))
    found = density.count(1, math.inf)
    assert found.value == pytest.approx(8)
    assert found.stderr == pytest.approx(0, abs=1e-9)
    few = lg.spectral_density(rotated(values), probes=4, steps=24).count(1, math.inf)
    assert few.value == pytest.approx(8)
    assert few.stderr == pytest.approx(1)  # of what all four may have missed
    pairs = lg.top_eigenpairs(rotated(values), k=8)
    known = lg.spectral_density(rotated(values), probes=2, steps=24, known=pairs)
    assert (known.outliers, known.matvecs) == (8, 2 * 16 + 1)
    assert known.count(1, math.inf).value == pytest.approx(8)
    assert known.count(-math.inf, -1).value == pytest.approx(1, abs=20 * known.count(-9, -1).stderr)


@pytest.mark.quick
def test_a_first_iteration_that_goes_on_until_outliers_have_converged():
    values = outliers_and_bulk()
    found = [lg.spectral_density(rotated(values), probes=2, steps=14, seed=s) for s in range(10)]
    assert {density.outliers for density in found} == {7}  # half of the steps
    spent = [density.matvecs - 7 for density in found]
    assert min(spent) >= 14
    assert max(spent) <= 21


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_single_probe_claims_no_error(dtype):
    """Outliers are counted as by two; what is beside them has an error that is unknown."""
    A, grid = rotated(outliers_and_bulk(), dtype=dtype), torch.linspace(-3, 10, 500).double()
    density = lg.spectral_density(A, probes=1, steps=24, grid=grid)
    assert not density.exact
    assert density.outliers >= 9
    assert 24 <= density.matvecs <= 36
    assert density.nodes.shape[1] == density.matvecs
    assert density.count(1, math.inf).value == pytest.approx(8)
    assert density.count(1, math.inf).stderr == pytest.approx(491)  # all that was not taken out
    assert density.moment(1).stderr == math.inf
    assert (density.stderr == math.inf).all()
    assert density.on(width=0.1).stderr.isinf().all()
    assert lg.spectral_density(A, probes=1, steps=500).exact
    few = rotated(torch.linspace(1, 9, 20).double(), dtype=dtype)
    assert not lg.spectral_density(few, probes=1, steps=15).exact
    assert lg.spectral_density(few, probes=1, steps=15).matvecs < 20


def test_a_single_probe_is_right_on_average(unchecked):
    values = outliers_and_bulk()
    A = rotated(values)
    found = [lg.spectral_density(A, probes=1, steps=20, seed=seed) for seed in range(100)]
    assert all(density.outliers >= 9 for density in found)
    for function in (torch.exp, torch.sin):
        means = torch.tensor([density.mean(function).value for density in found])
        beside = (2 * function(values[:-9]).square().sum()) ** 0.5 / 500  # the outliers
        assert abs(means.mean() - function(values).mean()) <= 4 * means.std() / 10
        assert means.std() < 1.3 * beside


@pytest.mark.parametrize("distance", [0.0, 1e-3])
def test_copies_of_outliers_are_seen(unchecked, monkeypatch, distance):
    """The probe that finds an eigenvalue sees nothing of its copies, so it is none then."""
    values = torch.cat([torch.linspace(-1, 1, 296), torch.tensor([9.0, 9, 9, 5])]).double()
    values[-2] += distance
    A = rotated(values)

    def counts(seeds=60):
        found = [lg.spectral_density(A, probes=2, steps=12, seed=s) for s in range(seeds)]
        counted = torch.tensor([density.count(8, 10).value for density in found])
        right = covered([d.moment(2) for d in found], values.square().mean().item(), 1, 0.99)
        return counted.mean().item(), counted.std().item() / seeds**0.5, right

    mean, error, right = counts()
    assert abs(mean - 3) <= 4 * error
    assert right >= 0.9
    monkeypatch.setattr("lossgeom.linalg._sampled_spectrum._seen_again", lambda *_: False)
    mean, error, _ = counts()
    assert abs(mean - 3) > 4 * error


def test_many_known_pairs_leave_half_of_the_steps():
    """Otherwise one node would stand for all that is not known, outliers included."""
    values = outliers_and_bulk()
    A = rotated(values)
    pairs = lg.top_eigenpairs(A, k=30, which="smallest", max_matvecs=2000)
    density = lg.spectral_density(A, probes=4, steps=24, known=pairs)
    assert density.outliers >= 24
    assert density.matvecs == 1 + 4 * 12
    moment, exact = density.moment(2), values.square().mean().item()
    assert abs(moment.value - exact) <= 5 * moment.stderr
    assert density.count(1, math.inf).stderr > 0.1


def test_the_error_beside_outliers_is_honest(unchecked):
    """Of the bulk and of the trace, also with eigenvalues of which a probe sees one combination."""
    values = outliers_and_bulk()
    A = rotated(values)
    found = [lg.spectral_density(A, probes=5, steps=20, seed=seed) for seed in range(60)]
    assert all(density.outliers >= 9 for density in found)
    for function in (torch.exp, torch.sin):
        means, truth = [density.mean(function) for density in found], function(values).mean().item()
        assert covered(means, truth, freedom=4, level=0.99) >= 0.9
        assert covered(means, truth, freedom=4, level=0.99, factor=0.05) < 0.9
    errors = torch.tensor([density.mean(torch.sin).stderr for density in found])
    assert (
        errors.mean() < 0.3 * (2 / 500 / 5 * values.sin().square().mean()) ** 0.5
    )  # of plain ones


def test_breakdown_of_some_probes():
    """Where a probe sees few eigenvalues its iteration ends; the others go on."""
    values = torch.zeros(200, dtype=torch.float64)
    values[:5] = torch.arange(1.0, 6)
    density = lg.spectral_density(rotated(values), probes=4, steps=12)
    torch.testing.assert_close(density.weights.sum(1), torch.ones(4, dtype=torch.float64))
    assert density.matvecs < 4 * 12
    real = density.nodes[density.weights > 1e-12]
    assert (real - real.round()).abs().max() < 1e-8
    assert density.mass == pytest.approx(1, abs=1e-4)


def test_float32_agrees_with_float64():
    A = rotated(LARGE)
    one, two = (lg.spectral_density(M, probes=4, steps=30, width=0.1) for M in (A, A.float()))
    torch.testing.assert_close(
        one.on(two.grid).density, two.density, rtol=0, atol=1e-4 * one.density.max().item()
    )


@pytest.mark.parametrize("form", FORMS)
def test_takes_what_multiplies(form):
    A = rotated(LARGE)
    expected = lg.spectral_density(A, probes=2, steps=10)
    found = lg.spectral_density(FORMS[form](A), probes=2, steps=10)
    torch.testing.assert_close(found.density, expected.density)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
def test_one_by_one_zero_and_any_scale(scale):
    single = lg.spectral_density(torch.tensor([[scale]]))
    assert single.moment(1).value == pytest.approx(scale)
    many = lg.spectral_density(scale * torch.eye(700), probes=2, steps=30)
    assert many.moment(1).value == pytest.approx(scale)
    assert many.matvecs == 2  # no direction is left after the first step
    assert [single.mass, many.mass] == pytest.approx([1, 1], abs=1e-5)


def test_on_another_grid():
    density = lg.spectral_density(rotated(LARGE), probes=2, steps=20)
    part = density.on(torch.linspace(-1, 1, 200), width=0.02)
    assert part.matvecs == density.matvecs
    assert part.width == 0.02
    assert 0.3 < part.mass < 0.7  # the grid holds that much of it
    assert density.on().mass == pytest.approx(1, abs=1e-5)
    assert torch.equal(density.on(density.grid, density.width).density, density.density)


def test_a_coarse_grid_shows_in_the_mass():
    density = lg.spectral_density(torch.eye(3), grid=torch.tensor([0.5, 1.0, 1.5]))
    assert density.mass > 2


@pytest.mark.parametrize("n", [3, 700])
def test_non_finite_products_are_recorded(n):
    diagonal = torch.ones(n)
    diagonal[1] = math.nan
    density = lg.spectral_density(torch.diag(diagonal), probes=3, steps=20)
    assert density.density.isnan().all()
    assert density.moment(1).status == "nonfinite"
    assert not density.count(0, 1).converged
    assert math.isnan(density.mass)
    assert density.on(torch.linspace(0, 1, 5)).density.isnan().all()


def test_same_seed_same_bits_and_global_generator_untouched():
    state = torch.get_rng_state()
    A = rotated(LARGE)
    first, again, other = (
        lg.spectral_density(A, probes=2, steps=10, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(first.nodes, again.nodes)
    assert torch.equal(first.density, again.density)
    assert not torch.equal(first.nodes, other.nodes)
    assert torch.equal(torch.get_rng_state(), state)


def test_products_come_in_blocks():
    widths = []

    def product(V):
        widths.append(V.shape[1])
        return torch.arange(500.0)[:, None] * V

    A = MatrixFree((500, 500), torch.float32, torch.device("cpu"), product, lambda: A)
    lg.spectral_density(A, probes=10, steps=3)
    assert widths == [1] * 3 + [5] * 3 + [4] * 3  # the first looks for outliers


def test_bad_input(unchecked):
    for arguments, message in (
        ({"probes": 0}, "expected probes of at least 1, got 0"),
        ({"steps": 0}, "expected steps of at least 1, got 0"),
        ({"memory_budget": 0}, "expected memory_budget of at least 1, got 0"),
        ({"width": -1.0}, r"expected a positive width, got -1\.0"),
        ({"grid": torch.tensor([1.0, 0.0])}, "at least two ascending points"),
    ):
        with pytest.raises(ValueError, match=message):
            lg.spectral_density(torch.eye(3), **arguments)
    with pytest.raises(ValueError, match="expected a positive width, got 0"):
        lg.spectral_density(torch.eye(3)).on(width=0)
    with pytest.raises(ValueError, match=r"expected a square matrix, got one of shape \(2, 3\)"):
        lg.spectral_density(torch.ones(2, 3))
    with pytest.raises(TypeError, match=r"in float32 or float64, got torch\.int64"):
        lg.spectral_density(torch.ones(2, 2, dtype=torch.int64))
    with pytest.raises(TypeError, match="expected a matrix"):
        lg.spectral_density(np.eye(2))
    pairs = lg.top_eigenpairs(rotated(LARGE), k=2)
    for other in (rotated(LARGE + 0.1), rotated(LARGE[:500])):
        with pytest.raises(ValueError, match="expected known= to be eigenpairs of this matrix"):
            lg.spectral_density(other, probes=2, steps=5, known=pairs)
    same, V = pairs.vectors[:, [0, 0]], pairs.vectors
    for changes in (
        {"values": pairs.values[[0, 0]], "vectors": same, "residuals": pairs.residuals[[0, 0]]},
        {"vectors": 2 * V, "residuals": pairs.residuals + 1},
        {"vectors": V / 2},
        {"vectors": V.flip(1), "residuals": torch.full((2,), math.nan)},
        {"vectors": V.flip(1), "residuals": torch.full((2,), math.inf)},
    ):
        known = dataclasses.replace(pairs, **changes)
        with pytest.raises(ValueError, match="expected known= to be eigenpairs of this matrix"):
            lg.spectral_density(rotated(LARGE), probes=2, steps=5, known=known)
    for n in (6, 600):
        with pytest.raises(ValueError, match="expected a symmetric operator"):
            lg.spectral_density(torch.triu(torch.ones(n, n)), probes=2, steps=5)
