"""Samples cover the supports of distributions with known constants."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from scipy.special import betainc
from scipy.stats import chi2, ncx2

from lossgeom.bounds import Cube, DeltaGood, Gaussian, Product, PushForward, Sphere
from lossgeom.lipschitz import Bracket

DISTRIBUTIONS = {
    "interval": Cube(1, tight=True),
    "square": Cube(2, side=3.0, tight=True),
    "cube": Cube(3, tight=True),
    "circle": Sphere(1, scale=2.0, tight=True),
    "sphere": Sphere(2, tight=True),
    "cylinder": Product((Sphere(1), Cube(1))),
    "normal": Gaussian(2, cut=2.0),
    "normal line": Gaussian(1, cut=3.0),
    "parabola": PushForward(
        Cube(1, tight=True),
        lambda u: torch.cat([u, u**2], dim=1),
        Bracket(torch.tensor([1.0]), torch.tensor([5**0.5])),
    ),
}
SQUARE_CORNERS = torch.tensor(list(product([0.0, 1.0], repeat=2)), dtype=torch.float64)
every_distribution = pytest.mark.parametrize("name", DISTRIBUTIONS)


class Atoms(DeltaGood):
    """K points at a distance of 1 from each other, in its worst case the proof loses nothing."""

    def __init__(self, K, factor=1.0):
        self.K, self.factor, self.dimension = K, factor, 1

    def log_ball_mass(self, r):
        return 0.0 if r >= 1 else math.log(self.factor / self.K)

    def draw(self, N, generator):
        raise NotImplementedError

    def missing(self, N):
        """The probability that N points leave out one of the K."""
        return sum(
            (-1) ** (k + 1) * math.comb(self.K, k) * (1 - k / self.K) ** N for k in range(1, self.K)
        )


def covering_radius_seen(points, support):
    return cKDTree(points.numpy()).query(support.numpy())[0].max()


@pytest.mark.parametrize(
    ("distribution", "N", "epsilon", "value"),
    [
        (Cube(1), 1000, 0.05, 0.019807),
        (Cube(2), 1000, 0.05, 0.224584),
        (Cube(3), 10_000, 0.05, 0.265189),
        (Cube(10), 50_000, 0.01, 1.623037),
        (Cube(100), 50_000, 0.01, 9.187732),
        (Sphere(2, gamma=0.1), 1000, 0.05, 0.296700),
        (Sphere(10, gamma=0.1), 50_000, 0.01, 1.006786),
        (Sphere(2, gamma=0.0), 1000, 0.05, 0.281475),
    ],
)
def test_formulas_of_the_paper(distribution, N, epsilon, value):
    assert distribution.radius(N, epsilon) == pytest.approx(value, abs=1e-6)


def test_the_smallest_gamma_of_the_paper_s_proof():
    for d, gamma in {1: 0.595, 2: 0.5, 3: 0.435, 5: 0.351, 10: 0.245, 100: 0.049}.items():
        default, named = Sphere(d).stated(10**6, 0.05), Sphere(d, gamma=gamma).stated(10**6, 0.05)
        assert default == pytest.approx(named, rel=2e-3)


@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_the_paper_s_proof_of_its_formulas(d):
    """The split in halves, with the mass of a ball that it takes, is log(N / epsilon) / N."""
    N, epsilon = 2000, 0.05
    for distribution in (Cube(d, side=2.0), Sphere(d, scale=2.0)):
        r = distribution.radius(N, epsilon) / 2
        mass = math.exp(distribution.log_ball_mass(r))
        exact = (d < 3 and isinstance(distribution, Sphere)) or isinstance(distribution, Cube)
        assert mass == pytest.approx(math.log(N / epsilon) / N, rel=1e-6 if exact else 0.1)
    for gamma in (0.1, 0.9):  # what is stated for all gamma, and what that proof needs
        assert Sphere(d, gamma=gamma).radius(N, epsilon) >= Sphere(d, tight=True).radius(N, epsilon)


def test_masses_of_balls_in_closed_form():
    r = torch.linspace(0.01, 0.99, 20).tolist()
    assert [math.exp(Cube(2).log_ball_mass(x)) for x in r] == pytest.approx(
        [math.pi * x**2 / 4 for x in r]
    )
    assert [math.exp(Cube(1, side=2.0).log_ball_mass(x)) for x in r] == pytest.approx(
        [x / 2 for x in r]
    )
    assert [math.exp(Sphere(2).log_ball_mass(x)) for x in r] == pytest.approx([x**2 / 4 for x in r])
    two = Product((Cube(1), Cube(1)))
    assert [math.exp(two.log_ball_mass(x)) for x in r] == pytest.approx([x**2 / 2 for x in r])


@given(st.integers(1, 60), st.floats(1e-3, 1.99))
def test_caps_of_spheres_are_no_smaller(d, r):
    assert math.exp(Sphere(d).log_ball_mass(r)) <= betainc(d / 2, d / 2, r**2 / 4) * (1 + 1e-12)


@given(st.integers(1, 20), st.floats(0.5, 6), st.floats(1e-2, 12))
def test_truncated_normal_balls_are_no_smaller(d, cut, r):
    """The mass of the ball inside of both, from the noncentral chi squared distribution."""
    rho = min(r / 2, cut)
    inner = ncx2.cdf(rho**2, d, (cut - rho) ** 2) if rho < cut else chi2.cdf(rho**2, d)
    assert math.exp(Gaussian(d, cut).log_ball_mass(r)) <= inner * (1 + 1e-9)


@settings(max_examples=30)
@given(st.integers(1, 200), st.floats(1.0, 15))
def test_large_balls_round_a_corner_are_no_smaller(d, r):
    points = Cube(d).sample(4000, seed=d)
    seen = float((points.norm(dim=1) <= r).double().mean())
    assert math.exp(Cube(d).log_ball_mass(r)) <= seen + 4 * 0.5 / 4000**0.5


@every_distribution
def test_balls_have_at_least_that_mass(name):
    """Round many points, and the smallest of all is close to it where the formula is exact."""
    distribution = DISTRIBUTIONS[name]
    points, centres = distribution.sample(20_000), distribution.sample(200, seed=1)
    for r in (0.1, 0.5, 1.0, 2.0):
        masses = (torch.cdist(centres, points) <= r).double().mean(1)
        error = (masses.clamp(1e-4) / 20_000).sqrt()
        assert (masses + 5 * error).min() >= math.exp(distribution.log_ball_mass(r))


@pytest.mark.parametrize("scale", [1e-100, 1e100])
def test_radii_are_in_proportion_to_the_size_of_the_support(scale):
    for one, scaled in (
        (Cube(2, tight=True), Cube(2, side=scale, tight=True)),
        (Sphere(2, tight=True), Sphere(2, scale=scale, tight=True)),
    ):
        assert scaled.radius(1000, 0.05) == pytest.approx(scale * one.radius(1000, 0.05), rel=1e-8)
        mass = scaled.radius_of_mass(0.05)
        assert mass == pytest.approx(scale * one.radius_of_mass(0.05), rel=1e-8)


@pytest.mark.parametrize(("d", "cut"), [(1, 4.0), (2, 6.0), (20, 9.0)])
def test_masses_of_truncated_normal_balls_do_not_fall_with_their_radius(d, cut):
    normal = Gaussian(d, cut)
    masses = [normal.log_ball_mass(2 * cut * k / 200) for k in range(1, 300)]
    assert masses == sorted(masses)
    assert Gaussian(2, cut=6.0).radius(1000, 0.05) < 12  # the diameter, with few points far out


def test_a_wrong_mass_is_caught_at_a_corner():
    points = Cube(2).sample(20_000)
    for corner in SQUARE_CORNERS:
        seen = float(((points - corner).norm(dim=1) <= 0.3).double().mean())
        mass = math.exp(Cube(2).log_ball_mass(0.3))
        assert mass <= seen + 0.01 < 1.5 * mass


@every_distribution
def test_samples_cover(name):
    distribution = DISTRIBUTIONS[name]
    support = distribution.sample(10_000, seed=99)
    for seed in range(12):
        N = 100 + 60 * seed
        seen = covering_radius_seen(distribution.sample(N, seed), support)
        assert seen <= distribution.radius(N, 0.05)


def test_known_covering_radii():
    support = torch.cat([Cube(2).sample(20_000, seed=99), SQUARE_CORNERS])
    seen = [covering_radius_seen(Cube(2).sample(1000, seed), support) for seed in range(30)]
    assert sum(seen) / 30 == pytest.approx(0.0632, abs=3e-3)
    assert max(seen) < 0.1053 < Cube(2, tight=True).radius(1000, 0.05) < 0.224584
    assert min(seen) > Cube(2).radius(1000, 0.05) / 6  # a constant of 4 / 6 would be wrong
    assert sum(x > Cube(2).radius(1000, 0.05) / 4 for x in seen) > 15  # and so would 1
    parts = math.hypot(*[Cube(1).radius(1000, 0.05)] * 2)
    assert min(seen) > parts  # a joint sample is no grid of the samples of its parts


def test_the_proof_loses_nothing_for_distant_atoms():
    atoms, epsilon = Atoms(10), 0.2
    enough = math.ceil(10 * math.log(10 / epsilon))
    assert atoms.radius(enough, epsilon) < 1e-9 < 1 <= atoms.radius(enough - 1, epsilon)
    assert epsilon / 2 < atoms.missing(enough) <= epsilon


@pytest.mark.parametrize("factor", [1.25, 2.0])
def test_a_wrong_constant_is_violated_by_distant_atoms(factor):
    wrong, epsilon = Atoms(10, factor), 0.2
    enough = next(N for N in range(5, 40) if wrong.radius(N, epsilon) < 1)
    assert Atoms(10).missing(enough) > epsilon


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(200, 10**6), st.floats(1e-6, 0.5))
def test_the_best_split_is_between_the_halves_and_their_half(d, N, epsilon):
    best, halves = Cube(d, tight=True).radius(N, epsilon), Cube(d).stated(N, epsilon)
    assert halves / 2 < best <= halves * (1 + 1e-12)
    assert Cube(d, tight=True).radius(2 * N, epsilon) < best


def test_images_have_the_radius_times_the_constant():
    image, bracket = DISTRIBUTIONS["parabola"], Bracket(torch.ones(1), torch.full((1,), 3.0))
    assert image.radius(500, 0.1) == pytest.approx(5**0.5 * image.of.radius(500, 0.1))
    assert image.sample(7).shape == (7, 2)
    assert (image.certified, image.convex, image.dimension) == (True, False, 1)
    stretched = PushForward(Product((Cube(2), Gaussian(1, 2.0))), lambda u: 3 * u, bracket, True)
    assert (stretched.convex, stretched.dimension) == (True, 3)
    assert stretched.left_out == pytest.approx(math.erfc(2**0.5))
    inner = Product((PushForward(Cube(2), lambda u: 3 * u, bracket),))
    assert inner.radius(500, 0.1) == pytest.approx(Cube(2, 3.0, tight=True).radius(500, 0.1))
    assert inner.certified
    assert not Product((PushForward(Cube(1), lambda u: u, 1.0), Cube(1))).certified


def test_truncated_normal_points():
    latent = Gaussian(3, cut=1.5)
    points = latent.sample(20_000)
    assert points.norm(dim=1).max() <= 1.5
    assert latent.left_out == pytest.approx(chi2.sf(1.5**2, 3))
    expected = chi2.cdf(1.0, 3) / chi2.cdf(1.5**2, 3)
    assert (points.norm(dim=1) <= 1).double().mean().item() == pytest.approx(expected, abs=0.015)


def test_samples_are_repeated_and_leave_the_random_state():
    state = torch.get_rng_state()
    for distribution in DISTRIBUTIONS.values():
        assert torch.equal(distribution.sample(5, seed=3), distribution.sample(5, seed=3))
        assert distribution.sample(5).dtype == torch.float64
    assert torch.equal(torch.get_rng_state(), state)
    first, second = Product((Cube(1), Cube(1))).sample(4).unbind(1)
    assert not torch.equal(first, second)


def test_errors():
    with pytest.raises(ValueError, match=r"no covering radius of 2\.636, with the paper's formula"):
        Cube(2).radius(3, 0.05)
    with pytest.raises(ValueError, match=r"for N = 1 and epsilon = 0\.5: expected more points$"):
        Gaussian(2, 2.0).radius(1, 0.5)
    with pytest.raises(ValueError, match=r"expected epsilon > 0 and < 1, got 1\.0"):
        Cube(2).radius(100, 1.0)
    with pytest.raises(ValueError, match="expected N of at least 1, got 0"):
        Cube(2).radius(0, 0.1)
    with pytest.raises(ValueError, match="expected dimension of at least 1, got 0"):
        Product(())
    with pytest.raises(ValueError, match="expected dimension of at least 1, got 0"):
        Sphere(0)
    with pytest.raises(ValueError, match=r"expected side > 0 and finite, got inf"):
        Cube(2, side=math.inf)
    with pytest.raises(ValueError, match=r"expected gamma >= 0 and < 1, got 1\.0"):
        Sphere(2, gamma=1.0)
    with pytest.raises(ValueError, match=r"expected scale > 0, got 0\.0"):
        Sphere(2, scale=0.0)
    with pytest.raises(ValueError, match=r"expected cut > 0, got -1\.0"):
        Gaussian(2, cut=-1.0)
    with pytest.raises(ValueError, match=r"expected lipschitz > 0, got nan"):
        PushForward(Cube(1), torch.sin, math.nan)
