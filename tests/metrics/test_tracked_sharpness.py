"""The sharpness at every step, measured or predicted, against eigenvalues that are known."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.metrics import EdgeRatio, Sharpness
from lossgeom.metrics._track import SAFETY, through, turned
from lossgeom.metrics.step import Step
from lossgeom.recording.estimates import read_estimate
from lossgeom.stability import OptimizerState, Threshold
from tests.stability.quadratics import Quadratic

pytestmark = pytest.mark.quick
TOL = 1e-2
STATE = OptimizerState(kinds=("SGD",), groups=(), lr=0.1, threshold=Threshold(20.0))


def cubic(at_zero, rises):
    """The problem whose Hessian at (s, 0, 0, ...) has the eigenvalues at_zero + rises s and 0."""
    a, b = (torch.tensor([0.0, *values], dtype=torch.float64) for values in (at_zero, rises))

    def terms(outputs, batch):
        curvatures = a + b * outputs[:, :1]
        return (curvatures * outputs.square()).sum() / 2, len(outputs)

    data = [(torch.zeros(2, 1).double(), torch.zeros(2, 1))]
    return lg.Problem(Quadratic(torch.zeros(len(a)).double()), terms, data)


def followed(problem, places, metric=None):
    """What is found at each place (s, 0, 0, ...)."""
    metric, memory, found = metric or Sharpness(TOL, tracked=True), {}, []
    for s in places:
        theta = torch.zeros_like(problem.theta)
        theta[0] = s
        step = Step(problem.at(theta), torch.zeros_like(theta), STATE, memory=memory)
        found.append(metric.of_step(step))
    return found


def off(estimate, value):
    return abs(estimate.value - value)


def test_a_straight_line_is_predicted():
    problem, places = cubic([4.0, 1.0, 0.5], [1.0, 0.5, -1.0]), torch.linspace(0, 1, 60).tolist()
    found = followed(problem, places)
    predicted = [estimate.predicted for estimate in found]
    assert sum(predicted) > 40
    assert not any(predicted[:4])
    for s, estimate in zip(places, found, strict=True):
        assert off(estimate, 4 + s) <= TOL * (4 + s)
        if estimate.predicted:
            assert estimate.matvecs == 0
            assert off(estimate, 4 + s) <= estimate.stderr <= TOL * estimate.value
            assert estimate.residual is None
            assert "predicted" in f"{estimate}"
        else:
            assert estimate.matvecs > 0
            assert estimate.converged
            assert off(estimate, 4 + s) <= estimate.residual
    assert [estimate.verified for estimate in found] == [True] + 59 * [False]


def test_fewer_products_than_from_scratch():
    problem, places = cubic([4.0, 2.0, 1.0], [1.0, 0.5, -1.0]), torch.linspace(0, 1, 60).tolist()
    spent = sum(estimate.matvecs for estimate in followed(problem, places))
    cold = sum(Sharpness(TOL)(problem.at(problem.theta + s)).matvecs for s in places[:5]) * 12
    assert spent * 5 < cold


def test_a_second_eigenvalue_that_is_near_is_looked_at():
    """What was known of it is soon out of date, and would call for more products, or too few."""
    problem, places = cubic([4.0, 3.8, 1.0], [-1.0, -1.2, 0.0]), torch.linspace(0, 1, 60).tolist()
    found = followed(problem, places)
    measured = [estimate for estimate in found[1:] if not estimate.predicted]
    assert all(estimate.matvecs == 2 for estimate in measured)
    for s, estimate in zip(places, found, strict=True):
        assert off(estimate, 4 - s) <= (estimate.stderr or TOL * 4) <= TOL * 4


def test_the_length_of_the_path_decides():
    """Not the number of steps: of a learning rate that is halved, and then 0."""
    problem = cubic([4.0, 1.0], [1.0, 0.0])
    steps = [0.02] * 20 + [0.01] * 20 + [0.0] * 5
    places = torch.tensor(steps).cumsum(0).tolist()
    found = followed(problem, places)
    assert all(off(e, 4 + s) <= TOL * 4 for s, e in zip(places, found, strict=True))
    assert all(estimate.predicted for estimate in found[-4:])
    assert len({estimate.value for estimate in found[-4:]}) == 1


def test_a_crossing_that_nobody_follows_is_found_by_the_search():
    """Before, the value is that of the eigenvector followed, and says that it is not verified."""
    problem, places = cubic([4.0, 3.0, 1.0], [0.0, 1.0, 0.0]), torch.linspace(0, 2, 60).tolist()
    found = followed(problem, places, Sharpness(TOL, tracked=True, search_every=10))
    right = [max(4.0, 3 + s) for s in places]
    assert all(off(e, r) <= TOL * r for e, r in zip(found, right, strict=True) if e.verified)
    wrong = [i for i in range(60) if off(found[i], right[i]) > TOL * right[i]]
    assert len(wrong) < 10
    assert all(off(found[i], right[i]) <= TOL * right[i] for i in range(45, 60))
    assert sum(bool(estimate.verified) for estimate in found) == 6


def test_a_jump_is_measured():
    problem = cubic([4.0, 1.0], [1.0, 0.0])
    places = [*torch.linspace(0, 0.3, 30).tolist(), 5.0]
    found = followed(problem, places)
    assert found[29].predicted
    assert not found[30].predicted
    assert found[30].value == pytest.approx(9, rel=TOL)


def test_a_change_of_sign():
    problem, places = cubic([-1.0], [1.0]), torch.linspace(0, 0.9, 40).tolist()
    for estimate in followed(problem, places):
        assert estimate.value == pytest.approx(0, abs=1e-6)  # the other eigenvalue
    problem = cubic([-1.0, -4.0], [1.0, 0.0])
    places = torch.linspace(0.5, 2, 40).tolist()
    for s, estimate in zip(places, followed(problem, places), strict=True):
        assert off(estimate, max(0.0, s - 1)) <= TOL * abs(s - 1) + 1e-6 or not estimate.verified
    assert followed(problem, [0.5, 2.0])[1].value >= 0


def test_values_that_alternate_are_measured():
    """As at the edge of stability, by more than the tolerance."""
    problem = cubic([4.0, 1.0], [1.0, 0.0])
    places = [0.3 * (i % 2) + 0.001 * i for i in range(40)]
    found = followed(problem, places)
    assert not any(estimate.predicted for estimate in found)
    assert all(off(e, 4 + s) <= TOL * 4 for s, e in zip(places, found, strict=True))


def turning(places):
    """What is found where the first eigenvector, of 4 + s, turns by s; the others are of 2 and 1.

    The Hessian at (s, 0, 0, 0).
    """

    def terms(outputs, batch):
        s, x = outputs[:, :1], outputs[:, 1:]
        a = torch.cat([s.cos(), s.sin(), torch.zeros_like(s)], 1)
        b = torch.tensor([[0.0, 0.0, 1.0]]).double()
        along = (a * x).sum(1).square(), (b * x).sum(1).square()
        curved = (3 + s[:, 0]) * along[0] + along[1] + x.square().sum(1)
        return curved.sum() / 2, len(outputs)

    data = [(torch.zeros(2, 1).double(), torch.zeros(2, 1))]
    return followed(lg.Problem(Quadratic(torch.zeros(4).double()), terms, data), places)


def test_an_eigenvector_that_turns_to_and_fro_is_taken_from_two_steps_before():
    """As at the edge of stability: it is then known, where that of the step before is far off."""
    places = [0.3 * (-1) ** i + 0.001 * i for i in range(30)]
    found = turning(places)
    assert all(off(e, 4 + s) <= TOL * 4 for s, e in zip(places, found, strict=True))
    spent = [estimate.matvecs for estimate in found[6:]]
    assert set(spent) == {1, 2}
    assert spent.count(2) <= len(spent) / 4  # which look at the second eigenvector, too


def test_a_bend_without_a_sign_of_it_shows_at_the_next_measurement():
    """No error bar can hold there; it ends within the distance that predictions were good for."""
    problem = cubic([4.0, 2.0, 1.0], [0.0, 0.0, 40.0])
    places = torch.linspace(0, 0.2, 81).tolist()
    found = followed(problem, places, Sharpness(TOL, tracked=True, search_every=20))
    for i in range(0, 81, 20):
        right = max(4.0, 1 + 40 * places[i])
        assert found[i].verified
        assert not found[i].predicted
        assert found[i].value == pytest.approx(right, rel=TOL)


def test_a_network_at_every_step():
    """Against dense eigenvalues along gradient descent; what is predicted, too."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    x, y = torch.randn(30, 4).double(), torch.randn(30, 2).double()
    problem, memory = lg.Problem(model, "squared_error", [(x, y)], mode="eval"), {}
    metric, predicted = Sharpness(TOL, tracked=True), 0
    for _ in range(80):
        estimate = metric.of_step(Step(problem, problem.theta, STATE, memory=memory))
        right = float(torch.linalg.eigvalsh(lg.Hessian(problem).dense())[-1])
        assert off(estimate, right) <= TOL * right
        if estimate.predicted:
            predicted += 1
            assert off(estimate, right) <= estimate.stderr
        problem = problem.at(problem.theta - 0.05 * problem.gradient())
    assert predicted > 40


def test_one_parameter():
    found = followed(cubic([], []), [0.0, 0.1, 0.2])
    assert [estimate.value for estimate in found] == [0, 0, 0]


def test_nothing_is_kept_of_what_is_not_finite():
    problem, metric, memory = cubic([4.0, 1.0], [1.0, 0.0]), Sharpness(TOL, tracked=True), {}
    good, bad = (Step(problem.at(problem.theta + s), problem.theta, STATE, memory=memory)
                 for s in (0.1, float("nan")))  # fmt: skip
    metric.of_step(good)
    before = dict(memory)
    with pytest.raises(lg.NonFiniteError):
        metric.of_step(bad)
    assert memory == before
    assert metric.of_step(good).value == pytest.approx(4.1, rel=TOL)


def test_another_number_of_parameters_begins_anew():
    metric, memory = Sharpness(TOL, tracked=True), {}
    for problem in (cubic([4.0], [1.0]), cubic([5.0, 1.0], [1.0, 0.0])):
        found = metric.of_step(Step(problem, problem.theta, STATE, memory=memory))
        assert found.verified
    assert found.value == pytest.approx(5)


def test_untracked_it_is_the_pair_of_other_metrics(monkeypatch):
    problem = cubic([4.0, 1.0], [1.0, 0.0])
    step = Step(problem, problem.theta, STATE)
    ratio = EdgeRatio().of_step(step)
    monkeypatch.setattr(lg.Hessian, "matmat", SimpleNamespace)  # no further product is needed
    assert Sharpness().of_step(step).value == pytest.approx(20 * ratio.value)


def test_rows_say_what_is_predicted():
    assert read_estimate({"value": 1.0, "stderr": 0.1, "predicted": True}).predicted
    assert not read_estimate({"value": 1.0}).predicted


def test_settings():
    with pytest.raises(ValueError, match="expected search_every of at least 1, got 0"):
        Sharpness(search_every=0)


def test_polynomials_through_points():
    xs = (0.0, 1.0, 3.0)
    assert through(xs, [x * x for x in xs], 4.0) == pytest.approx(16)
    assert through(xs[:1], (2.0,), 9.0) == 2.0
    assert SAFETY >= 1


def test_vectors_turn_on():
    here, before = torch.tensor([0.6, 0.8]), torch.tensor([0.8, 0.6])
    for other in (before, -before):  # signs of eigenvectors are arbitrary
        assert torch.allclose(turned([here, other], 0.5), torch.tensor([0.5, 0.9]))
    assert turned([here], 0.5) is here
    assert turned([here, before], 0.0) is here
    assert turned([here, torch.tensor([0.8, -0.6])], 0.5) is here  # not one that turns
