"""Verdicts on series of known answer: simple ones, and recorded ones."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lossgeom as lg
from lossgeom.stability import EdgeSeries, edge_verdict
from lossgeom.stability.verdict_text import Kind
from tests.stability import recorded_runs as runs

pytestmark = pytest.mark.quick
NAN, INF = math.nan, math.inf


def full(ratios, steps=None, **others):
    """A full-batch run with a ratio of each step."""
    return EdgeSeries(steps or range(len(ratios)), ratios, full_batch=True, **others)


def kind(ratios, **others):
    return edge_verdict(full(ratios, **others)).kind


RISING = [0.1 * i for i in range(1, 10)]  # to .9


@pytest.mark.parametrize(
    ("expected", "ratios"),
    [
        ("below", [0.4] * 9),
        ("below", [0.8] * 9),  # constant, and not rising
        ("at the edge", [1.0] * 9),
        ("at the edge", [0.87] * 9),
        ("not stated", [1.4] * 9),
        ("below", [0.1, 0.2, 0.3, 0.4, 0.45]),
        ("approaching", RISING[:7]),
        ("approaching", RISING),  # reached it just now
        ("at the edge", [*RISING, 1.0, 1.1]),
        ("at the edge", [*RISING, 1.0, 1.1, 1.25, 1.15, 1.0, 0.95]),  # an overshoot
        ("above and growing", [*RISING, 1.0, 1.2, 1.4, 1.6]),
        ("above and growing", [1.3, 1.6, 2.0, 2.5]),
        ("below", [0.7, 0.6, 0.5, 0.4, 0.3]),
        ("below", [0.9, 0.8, 0.6, 0.4, 0.2]),
        ("at the edge", [*RISING, 1.0, 0.8, 1.05, 0.8, 0.9, 1.1, 0.75, 0.8]),  # oscillating
        ("below", [0.6, 0.8] * 6),
    ],
    ids=str,
)
def test_simple_series(expected, ratios):
    assert kind(ratios) == expected


def test_the_sentence():
    verdict = edge_verdict(full([0.5, 0.7, *[0.98, 1.02, 1.06] * 5], formula="2/lr"))
    assert str(verdict) == "at the edge since step 2: sharpness .98 to 1.06 of 2/lr"
    assert (verdict.kind, verdict.since, verdict.quantity) == ("at the edge", 2, "sharpness")
    assert (verdict.low, verdict.high) == (0.98, 1.06)
    assert str(edge_verdict(full([0.004] * 5))) == "below: sharpness .004 of the threshold"


def test_runs_that_were_at_the_edge_and_left():
    stay = [*RISING, *[1.0] * 10]
    assert kind([*stay, 0.8, 0.8]) == "at the edge"
    fallen = edge_verdict(full([*stay, 0.3, 0.3, 0.3]))
    assert str(fallen) == (
        "below since step 19: sharpness .30 of the threshold; at the edge from step 8 to 18"
    )
    assert kind([*stay, *[0.7] * 4]) == "at the edge"
    assert kind([*stay, *[0.7] * 6]) == "below"
    swinging = [*RISING, *[1.0, 1.0, *[0.7] * 6] * 2, 1.0, 1.0]
    assert kind([*swinging, *[0.7] * 6]) != "at the edge"  # mostly below
    back = edge_verdict(full([*stay, *[0.2] * 5, 0.9, 1.0, 1.1, 1.0]))
    assert (back.kind, back.since, back.low) == ("at the edge", 24, 0.9)  # the last stay alone


def test_one_touch_of_the_edge():
    """A single value decides nothing, and two are told."""
    assert str(edge_verdict(full([0.3, 0.4, 1.0, 0.4, 0.3, 0.3]))) == (
        "below: sharpness .30 to .40 of the threshold"
    )
    touched = edge_verdict(full([0.3, 0.4, 1.0, 0.95, 0.4, 0.3, 0.3, 0.3]))
    assert str(touched) == (
        "below since step 4: sharpness .30 of the threshold; it was 1.00 of it at step 2"
    )


@pytest.mark.parametrize("outlier", [30.0, 0.0001, -5.0, NAN, INF, None])
def test_one_outlier_changes_nothing(outlier):
    ratios = [*RISING, *[1.0, 1.05, 0.95] * 5]
    expected = edge_verdict(full(ratios))
    for i in range(10, len(ratios)):
        verdict = edge_verdict(full([*ratios[:i], outlier, *ratios[i + 1 :]]))
        assert (verdict.kind, verdict.since) == (expected.kind, expected.since)
        assert verdict.high < 1.1
        assert verdict.low > 0.85


def test_a_catapult():
    """Above the edge while the loss rises, and then below it."""
    ratios = [2.0, 2.2, 2.5, 2.2, 1.4, 0.7, 0.4, 0.4, 0.4, 0.4, 0.4]
    losses = [1.0, 2.0, 8.0, 30.0, 20.0, 5.0, 1.0, 0.8, 0.7, 0.6, 0.5]

    def after(n):
        return edge_verdict(full(ratios[:n], losses=losses[:n]))

    assert after(4).kind == "above and growing"
    assert after(4).reason.endswith("and the loss grows")
    assert str(after(11)) == (
        "below since step 5: sharpness .40 of the threshold; it was 2.50 of it at step 2"
    )
    settled = [*ratios, 0.7, 0.9, 1.0, 1.05, 1.0]
    assert edge_verdict(full(settled)).since == 12


def test_what_the_loss_says():
    at_edge = [1.0] * 6
    assert kind(at_edge, losses=[3, 2, 1, 2, 1, NAN]) == "diverged"
    assert kind(at_edge, losses=[3, 2, 1, NAN, 2, 1]) == "at the edge"  # finite again
    verdict = edge_verdict(full([*at_edge[:4], NAN, NAN], losses=[3, 2, 1, 2, INF, NAN]))
    assert str(verdict) == "diverged since step 4: the loss is not finite"
    verdict = edge_verdict(full(at_edge, losses=[2, 2, 2, 2e3, 2e6, 2e9]))
    assert str(verdict) == "diverged since step 4: the loss is 2e+09, and was 2 at first"
    assert kind(at_edge, losses=[2, 2, 2e6, 2e3, 2, 1]) == "at the edge"  # it came back
    assert kind(at_edge, losses=[-3, -2, 5e5, 6e5, 7e5, 8e5]) == "diverged"  # likelihoods
    assert kind(at_edge, losses=[-3e2, -2, 5e5, 6e5, 7e5, 8e5]) == "at the edge"
    assert edge_verdict(EdgeSeries([0], losses=[NAN])).kind == "diverged"  # of any optimiser


def test_a_loss_that_blew_up_need_not_grow_to_the_last():
    losses = [1.19, 2e19, 3e20, 6.6e20, 2.9e20]
    assert kind([1.0] * 5, losses=losses) == "diverged"
    assert kind([1.0] * 5, losses=[*losses[:4], 2.9e18]) == "at the edge"  # it comes back


def test_a_run_that_leaves_a_minimum_has_not_diverged():
    leaving = [1e-8, 1e-6, 1e-3, 0.2, 0.3, 0.25]
    assert kind([1.1] * 6, losses=leaving) == "at the edge"
    assert kind([1.1] * 6, losses=[*leaving[:3], 1e2, 1e4, 1e5]) == "diverged"


def test_measurements_that_fail_at_the_end_are_no_divergence():
    verdict = edge_verdict(full([0.9, 1.0, 1.1, 1.0, NAN, NAN], losses=[1.0] * 6))
    assert verdict.kind == "at the edge"
    assert verdict.reason.endswith("(the last 2 could not be measured)")


def test_short_series():
    assert str(edge_verdict(full([1.0]))) == (
        "not stated: 1 value of sharpness over the threshold; it takes 3"
    )
    assert kind([]) == kind([1.0, NAN, 1.0]) == kind([None, None, 1.0, 1.0]) == "not stated"
    assert kind([1.0, 1.0, 1.0]) == "at the edge"


def test_gappy_series_and_steps_in_any_order():
    steps = [0, 1, 2, 500, 510, 4000, 4100, 9000]
    ratios = [0.2, 0.3, None, 0.9, NAN, 1.1, 1.0, 1.0]
    gappy = full(ratios, steps)
    verdict = edge_verdict(gappy)
    assert (verdict.kind, verdict.since) == ("at the edge", 500)
    order = [3, 7, 0, 2, 6, 1, 5, 4]
    assert verdict == edge_verdict(full([ratios[i] for i in order], [steps[i] for i in order]))
    again = full([*ratios, 0.1, 0.2], [*steps, 0, 1])  # of a step measured twice, the later one
    assert again.finite("ratios")[0] == (0, 0.1)


def test_eigenvalues_in_either_order():
    thresholds = [8.0, 8.0, 4.0, 4.0]
    ascending = [[1.0, 4.0], [2.0, 7.8], [-9.0, 3.9], [0.0, 4.1]]
    descending = [pair[::-1] for pair in ascending]
    largest = [pair[1] for pair in ascending]
    found = {
        EdgeSeries.of_eigenvalues(range(4), each, thresholds, full_batch=True)
        for each in (ascending, descending, largest)
    }
    assert len(found) == 1
    assert edge_verdict(found.pop()).kind == "at the edge"
    with pytest.raises(ValueError, match="zip"):
        EdgeSeries.of_eigenvalues([0], [1.0], [8.0, 8.0])


def test_a_scheduled_learning_rate():
    """The sharpness is constant, and its ratio to each step's threshold is what counts."""
    rates = [0.25, 0.25, 0.25, 0.25, 0.025, 0.025, 0.025, 0.025]
    thresholds = [2 / lr for lr in rates]
    series = EdgeSeries.of_eigenvalues(range(8), [8.0] * 8, thresholds, full_batch=True)
    assert str(edge_verdict(series)) == (
        "below since step 4: sharpness .10 of the threshold; at the edge from step 0 to 3"
    )
    ending = EdgeSeries.of_eigenvalues(range(5), [8.0] * 5, [8, 8, 8, 8, INF], full_batch=True)
    assert edge_verdict(ending).kind == "at the edge"  # a learning rate of 0 says nothing
    still = EdgeSeries.of_eigenvalues(range(5), [8.0] * 5, [INF] * 5, full_batch=True)
    assert str(edge_verdict(still)) == "not stated: the learning rate is 0, so that nothing moves"


def test_mini_batches():
    series = full([1.0] * 6)
    assert edge_verdict(replace(series, full_batch=False)).reason.startswith("steps are on mini")
    said = str(edge_verdict(replace(series, full_batch=False)))
    assert all(cause in said for cause in ("Dropout", "mode='eval'", "a part", "full_batch=True"))
    rising = replace(series, maximized=True, losses=[1.0, 2.0, 1e3, 1e5, 1e6, 1e7])
    assert edge_verdict(rising).reason.startswith("the loss is maximised")
    assert edge_verdict(replace(rising, losses=[1.0] * 5 + [INF])).kind == "diverged"
    assert edge_verdict(replace(series, full_batch=None)).reason.startswith("it is not known")
    batch = replace(series, full_batch=False, batch_ratios=[0.3, 0.35, 0.41, 0.4, 0.42, 0.41])
    assert str(edge_verdict(batch)) == "below: batch sharpness .40 to .42 of 2/lr"
    arrived = replace(batch, ratios=[0.1] * 6, batch_ratios=[0.5, 0.8, 0.9, 1.0, 1.1, 1.0])
    assert str(edge_verdict(arrived)) == (
        "at the edge since step 2: batch sharpness .90 to 1.10 of 2/lr"
    )


def test_what_is_left_of_mini_batches_where_no_gauge_tells():
    series = full([1.0] * 6, formula="2 (1 + b1)/(1 - b1)", optimizer="Adam")
    said = edge_verdict(replace(series, full_batch=False, gradient_cosine=0.15))
    assert said.reason.startswith(
        "steps are on mini-batches, or not along the gradient of the loss that is measured "
        "(gradient cosine .15), and have another edge; no gauge is known to tell for Adam on "
        "mini-batches: effective_sharpness at a checkpoint tells of full-batch steps, and "
        "update_curvature and critical_step are alarms. Dropout"
    )
    plain = edge_verdict(replace(series, full_batch=False, formula="2/lr")).reason
    assert "measured, and have another edge; batch sharpness would tell, of SGD with" in plain
    assert "momentum: metrics=[lossgeom.metrics.BatchSharpness(batch_size)]. Dropout" in plain
    assert all(cause in plain for cause in ("Dropout", "mode='eval'", "a part", "full_batch=True"))


def test_an_optimiser_without_a_threshold():
    series = full([], range(8), status="unknown", optimizer="Muon")
    nothing = str(edge_verdict(series))
    assert nothing == (
        "not stated: no threshold is known for Muon; realised_edge, update_curvature and "
        "critical_step answer for any, of full-batch steps"
    )
    rho = [0.1, 0.5, 1.2, 1.9, 2.0, 1.9, 2.04, 1.7]
    said = edge_verdict(replace(series, update_curvatures=rho))
    assert said.kind == "not stated"
    assert said.reason == (
        "no threshold is known for Muon; since step 2 its steps lower the loss by little of "
        "what the slope promises, or raise it: update curvature .85 to 1.00 of 2"
    )
    early = replace(series, update_curvatures=rho[:4] * 2)
    assert edge_verdict(early).reason == (
        "no threshold is known for Muon; update curvature .25 to .95 of 2 in the last steps"
    )
    silent = replace(series, update_curvatures=[0.08, 0.04, 0.05] * 3, steps=range(9))
    assert edge_verdict(silent).reason == (
        "no threshold is known for Muon; update curvature at most .04 of 2 in the last steps: no "
        "sign of an edge"
    )
    assert str(edge_verdict(replace(silent, full_batch=None))) == nothing
    mini = replace(series, update_curvatures=rho, full_batch=False)
    assert edge_verdict(mini).reason.startswith(
        "no threshold is known for Muon, and steps are on mini-batches, or not along the gradient "
        "of the loss that is measured; no gauge is known to tell for Muon on mini-batches: "
        "update_curvature and critical_step are alarms. Dropout"
    )


def test_oscillating_below_the_nominal_edge():
    """The steps are at their edge, and the ratio is not."""
    ratios = [0.5, 0.6, 0.75, 0.8, 0.7, 0.8, 0.7, 0.75]
    zeta = [0.1, 0.2, 0.9, 1.1, 1.0, NAN, 0.95, 1.05]
    verdict = edge_verdict(full(ratios, realised_edges=zeta))
    assert str(verdict) == (
        "oscillating below the nominal edge since step 2: sharpness .70 to .80 of the threshold, "
        "while the realised edge is .95 to 1.05"
    )
    assert kind(ratios, update_curvatures=[2 * each for each in zeta]) == verdict.kind
    assert kind(ratios, critical_steps=[1 / each for each in zeta]) == verdict.kind
    assert (
        kind(ratios, realised_edges=[NAN if each > 1 else each for each in zeta]) == "approaching"
    )
    assert kind([1.0] * 8, realised_edges=zeta) == "at the edge"


def test_gauges_of_single_steps_make_no_verdict_below():
    """They are silent far above the edge, too, until a step has lined up."""
    silent = {"realised_edges": [0.01] * 8, "critical_steps": [300.0] * 8}
    assert kind([], steps=range(8), **silent) == "not stated"
    assert kind([1.1] * 8, **silent) == "at the edge"


def test_gauges_of_single_steps_where_there_is_no_ratio():
    """Of plain descent they are at most the ratio; momentum may swing at half of its threshold."""
    arrived = full([], range(8), critical_steps=[1.0, 1.02] * 4)
    assert str(edge_verdict(replace(arrived, formula="2/lr"))) == (
        "at the edge since step 0: critical sharpness .98 to 1.00 of 2/lr"
    )
    assert str(edge_verdict(replace(arrived, formula="2 (1 + momentum)/lr"))) == (
        "not stated: no value of sharpness over 2 (1 + momentum)/lr; it takes 3; since step 0 its "
        "steps lower the loss by little of what the slope promises, or raise it: critical "
        "sharpness .98 to 1.00 of 2/lr"
    )


def heavy_ball(beta, part, steps=300):
    """Realised edges, every fifth, of heavy ball on a quadratic at a part of its threshold."""
    curvature = [10.0**-k for k in (0, 0.3, 0.6, 1, 1.5, 2, 3)]
    lr, w, v, found = part * 2 * (1 + beta), [1.0] * 7, [0.0] * 7, []
    for _ in range(steps):
        g = [h * x for h, x in zip(curvature, w, strict=True)]
        v = [beta * a + b for a, b in zip(v, g, strict=True)]
        new = [x - lr * a for x, a in zip(w, v, strict=True)]
        slope = lr * sum(a * b for a, b in zip(g, v, strict=True))
        change = sum(h * (y * y - x * x) / 2 for h, x, y in zip(curvature, w, new, strict=True))
        found.append(1 + change / slope if slope > 0 else NAN)
        w = new
    return found[::5]


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9])
def test_no_run_far_below_its_threshold_is_said_to_be_at_the_edge(beta):
    """Though momentum makes the loss go up and down far below it."""
    zeta = heavy_ball(beta, 0.2)
    for n in range(3, len(zeta) + 1):
        assert kind([0.2] * n, realised_edges=zeta[:n]) == "below"
        assert kind([], steps=range(n), realised_edges=zeta[:n], formula="2/lr") == "not stated"


numbers = st.one_of(
    st.none(), st.floats(0, 3), st.sampled_from([NAN, INF, -INF, 0.0, -1.0, 1e300, 1e-300])
)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(numbers, numbers, numbers, numbers), max_size=20), st.randoms())
def test_any_series_has_a_verdict_whatever_the_order_of_its_steps(rows, random):
    steps = list(range(len(rows)))
    said = []
    for _ in range(2):
        columns = list(zip(*(rows[step] for step in steps), strict=True))
        ratios, losses, zeta, critical = columns or [()] * 4
        series = EdgeSeries(
            steps, ratios, losses, zeta, (), critical, full_batch=True, formula="2/lr"
        )
        said.append(edge_verdict(series))
        random.shuffle(steps)
    first, second = said
    assert str(first) == str(second)
    assert first.kind in get_args(Kind)
    assert not first.low > first.high
    assert "nan" not in str(first)


def test_above_the_edge_without_growing():
    ratios = [1.4, 1.42, 1.38, 1.41, 1.4, 1.39]
    assert "which does not grow; the realised edge would tell" in edge_verdict(full(ratios)).reason
    realised = edge_verdict(full(ratios, realised_edges=[1.0] * 6))
    assert str(realised) == (
        "at the edge since step 0: realised edge 1.00, while sharpness is 1.39 to 1.41 of the "
        "threshold"
    )
    assert edge_verdict(full([2.0, 1.8, 1.6, 1.5, 1.4])).reason.endswith("and falling")
    growing = [0.9, 1.0, 1.3, 1.6, 2.0]
    assert kind(growing, status="nominal") == "not stated"  # training is seen to pass it
    assert kind(growing, status="nominal", losses=[1, 1, 1, 2, 5]) == "above and growing"
    assert "(nominal)" in edge_verdict(full([0.5] * 4, status="nominal")).reason


def test_a_loss_that_grows_a_little_above_the_edge():
    """As on a quadratic, where nothing holds it."""
    steps, losses = 3 * [0.9] + 6 * [1.1], [1.0, 0.9, 0.8, *(0.8 * 1.5**t for t in range(6))]
    assert str(edge_verdict(full(steps, losses=losses))) == (
        "above and growing since step 3: sharpness 1.10 of the threshold, and the loss grows"
    )
    assert kind(steps, losses=[*losses[:-3], *3 * [None]]) == "at the edge"  # not twice the first
    assert kind(steps, losses=[*losses[:-2], 0.8, losses[-1]]) == "at the edge"  # up and down
    assert kind([0.9] * 9, losses=losses) == "at the edge"
    assert edge_verdict(full([1.1] * 5, losses=[1, 2, 3, 4, 5])).since is None


@pytest.mark.parametrize("name", runs.EXPECTED)
def test_recorded_runs(name):
    expected = runs.EXPECTED[name]
    assert str(edge_verdict(runs.series(name))) == expected


@pytest.mark.parametrize("name", ["gradient descent", "heavy ball", "Adam"])
def test_a_recorded_run_is_at_the_edge_from_its_arrival_on(name):
    """The verdict does not flicker when more is measured."""
    said = [edge_verdict(runs.series(name, first)).kind for first in range(4, 32)]
    changes = [after for before, after in pairwise(said) if before != after]
    assert changes in ([], ["approaching", "at the edge"], ["at the edge"])


# Plain descent on random labels with the learning rate 1, every 20 steps, seeds 12, 24 and 26.
OVERSHOOTS = [
    (
        [0.512, 0.520, 0.577, 0.692, 0.855, 1.022, 1.140, 1.208, 1.286, 1.116],
        [1.139, 1.029, 0.999, 0.944, 0.859, 0.757, 0.653, 0.561, 0.519, 0.513],
        [0.297, -0.007, -0.008, -0.005, -0.002, 0.0, 0.002, 0.002, 1.118, 1.039],
    ),
    (
        [0.558, 0.589, 0.679, 0.829, 1.000, 1.151, 1.250, 1.216, 1.254, 1.242],
        [1.104, 1.045, 1.001, 0.926, 0.838, 0.750, 0.663, 0.754, 0.577, 0.509],
        [0.340, -0.008, -0.007, -0.002, 0.0, 0.0, 0.001, 1.067, 0.979, 0.964],
    ),
    (
        [0.572, 0.559, 0.650, 0.802, 0.955, 1.094, 1.229, 1.243, 1.244, 1.132],
        [1.131, 1.047, 1.004, 0.936, 0.857, 0.775, 0.691, 0.627, 0.687, 0.503],
        [0.390, -0.010, -0.006, -0.002, 0.0, 0.0, 0.001, 1.198, 0.943, 0.947],
    ),
]


@pytest.mark.parametrize(("ratios", "losses", "zeta"), OVERSHOOTS)
def test_an_overshoot_does_not_grow(ratios, losses, zeta):
    """The loss falls, and the last value is lower than the one before."""
    assert kind(ratios, losses=losses) in ("at the edge", "not stated")
    assert kind(ratios, losses=losses, realised_edges=zeta) == "at the edge"
    more = {"losses": [*losses, 0.4], "realised_edges": [*zeta, 1.0]}
    assert kind([*ratios, 1.4], **more) == "at the edge"
    more["losses"][-1] = 3.0
    assert kind([*ratios, 1.4], **more) == "above and growing"


def test_a_saturated_network_whose_loss_is_large():
    """500 times; a sharpness of exactly 0 is a value."""
    ratios = [108.765, 4034.5, 5944.2, 0.0, 0.001, 0.104, 2040.6, *[0.0] * 7]
    losses = [2.35, 20.6, 251, 588, 1112, 1758, 2262, 2714, 3345, 3796, 4160, 4409, 2999, 1389]
    assert str(edge_verdict(full(ratios, losses=losses, formula="2/lr"))) == (
        "below since step 3: sharpness 0 of 2/lr; it was 5.94e+03 of it at step 2; the loss is "
        "1.4e+03, and was 2.4 at first"
    )
    assert "the loss" not in str(edge_verdict(full(ratios, losses=[*losses[:-1], 20.0])))
    mini = EdgeSeries(range(14), losses=losses, full_batch=False)
    assert str(edge_verdict(mini)).endswith("; the loss is 1.4e+03, and was 2.4 at first")


def test_the_range_is_of_what_the_verdict_says():
    assert str(edge_verdict(full([0.3, 0.28, 0.27, 1.16, 0.3]))) == (
        "below: sharpness .27 to .30 of the threshold, but for 1.16 at step 3"
    )
    swings = [0.5, 0.7, 0.95, 1.0, 1.3, 1.1, 0.69, 1.0, 1.05, 1.3, 0.69, 1.0, 1.02]
    assert str(edge_verdict(full(swings))) == (
        "at the edge since step 2: sharpness .69 to 1.30 of the threshold (median 1.00)"
    )


def test_values_that_are_left_out_are_counted():
    few = full([NAN, None, 1.0, 1.0], early=3, still=2, formula="2/lr")
    assert edge_verdict(few).reason == (
        "2 values of sharpness over 2/lr, beside 3 where its threshold is nominal yet, 2 with a "
        "learning rate of 0, 1 not known; it takes 3"
    )


def test_errors():
    with pytest.raises(ValueError, match=r"losses for each of the 2 steps, got 1; write None"):
        EdgeSeries([0, 1], losses=[1.0])
    with pytest.raises(ValueError, match="expected status to be nominal, ok or unknown, got 'no'"):
        EdgeSeries([0, 1], status="no")
    assert lg.edge_verdict is edge_verdict
