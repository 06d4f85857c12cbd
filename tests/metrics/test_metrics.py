"""What single metrics measure; what all of them must do is in tests/contracts/test_metrics.py."""

import pytest
import torch
from torch import nn

import lossgeom as lg
from tests.problems import CASES


@pytest.mark.quick
def test_names_tell_settings_apart():
    variants = [
        lg.metrics.Loss(),
        lg.metrics.Loss(minus_label_entropy=True),
        *(lg.metrics.JacobianNorm(o, v) for o in ("logits", "softmax") for v in ("max", "mean")),
        *(
            lg.metrics.ParameterJacobianNorm(o, v, n)
            for o in ("logits", "softmax")
            for v in ("max", "mean")
            for n in ("spectral", "frobenius")
        ),
        *(
            lg.metrics.SobolevSeminorm(of, k, euclidean=euclidean)
            for of in ("input", "parameters")
            for k in (1, 2)
            for euclidean in (False, True)
        ),
        *(
            metric(eps, norm)
            for metric in (lg.metrics.AccuracyUnderAttack, lg.metrics.CertifiedAccuracy)
            for eps in (0.1, 0.2)
            for norm in ("l2", "linf")
        ),
        *(
            lg.metrics.LocalVariation(radius, side, over)
            for radius in (0.1, 0.2)
            for side in ("lower", "upper")
            for over in ("max", "mean")
        ),
        *(
            lg.metrics.WorstCaseSharpnessLower(radius, adaptive)
            for radius in (0.1, 0.2)
            for adaptive in (False, True)
        ),
    ]
    assert len({metric.name for metric in variants}) == len(variants)


def test_loss_minus_label_entropy():
    case = next(case for case in CASES if case.name == "smoothing")
    problem = case.problem()
    value = lg.metrics.Loss(minus_label_entropy=True)(problem).value
    assert value == pytest.approx(problem.loss() - problem.label_entropy())
    assert 0 < value < problem.loss()


@pytest.mark.quick
def test_accuracy():
    model = nn.Linear(2, 2, bias=False)
    model.weight.data = torch.eye(2)
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [0.0, 3.0]])
    accuracy = lg.metrics.Accuracy()

    def of(targets, loss="cross_entropy"):
        return accuracy(lg.Problem(model, loss, [(x[:3], targets[:3]), (x[3:], targets[3:])])).value

    assert of(torch.tensor([0, 1, 1, 1])) == 0.75
    assert of(torch.tensor([0, 0, -100, -100])) == 0.5
    assert of(torch.eye(2)[[0, 1, 0, 0]], "squared_error") == 0.75
    with pytest.raises(ValueError, match=r"expected outputs \(B, C, \.\.\.\) with C > 1"):
        accuracy(lg.Problem(nn.Linear(2, 1), "squared_error", [(x, torch.ones(4, 1))]))


def test_jacobian_norm_over_the_examples():
    case = CASES[0]
    norms = lg.jacobian_norms(case.problem(), "softmax")
    for over in ("max", "mean"):
        value = lg.metrics.JacobianNorm("softmax", over)(case.problem()).value
        assert value == getattr(norms, over)


def test_parameter_jacobian_norm_over_the_examples():
    problem = CASES[0].problem()
    norms = lg.parameter_jacobian_norms(problem, norm="frobenius")
    for over in ("max", "mean"):
        metric = lg.metrics.ParameterJacobianNorm(over=over, norm="frobenius")
        assert metric(problem).value == getattr(norms, over)


def test_standard_errors_over_the_examples():
    """Examples are sampled independently of each other."""
    data = [(torch.randn(5, 4), torch.zeros(5).long())]
    problem = lg.Problem(torch.nn.Linear(4, 40), "cross_entropy", data)
    norms = lg.jacobian_norms(problem, norm="frobenius")
    found = {v: lg.metrics.JacobianNorm(over=v, norm="frobenius")(problem) for v in ("max", "mean")}
    assert found["max"].stderr == norms.stderr[norms.argmax].item() > 0
    assert found["mean"].stderr == pytest.approx(norms.stderr.norm().item() / 5)


def test_jacobian_norm_settings(unchecked):
    with pytest.raises(ValueError, match="expected norm to be one of frobenius or spectral, got"):
        lg.metrics.ParameterJacobianNorm(norm="nuclear")
    with pytest.raises(ValueError, match="expected over to be one of max or mean, got"):
        lg.metrics.JacobianNorm(over="median")


@pytest.mark.parametrize("of", ["input", "parameters"])
@pytest.mark.parametrize("k", [1, 3, 4])
def test_sobolev_seminorm_of_every_kind(of, k):
    problem = CASES[0].problem()
    expected = lg.sobolev_seminorms(problem, of, [k])
    metric = lg.metrics.SobolevSeminorm(of, k)
    assert metric(problem).value == pytest.approx(expected.elementwise[k], rel=1e-12)
    metric = lg.metrics.SobolevSeminorm(of, k, euclidean=True)
    assert metric(problem).value == pytest.approx(expected.euclidean[k], rel=1e-12)


def test_sobolev_seminorm_settings(unchecked):
    with pytest.raises(ValueError, match="expected of to be one of"):
        lg.metrics.SobolevSeminorm("outputs")
    with pytest.raises(ValueError, match="expected orders to be integers"):
        lg.metrics.SobolevSeminorm(k=0)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_accuracies_and_their_order(norm):
    problem = CASES[0].problem()
    found = lg.robustness(problem, [0.05, 0.5], norm=norm)
    certified = [lg.metrics.CertifiedAccuracy(eps, norm)(problem).value for eps in (0.05, 0.5)]
    attacked = [lg.metrics.AccuracyUnderAttack(eps, norm)(problem).value for eps in (0.05, 0.5)]
    assert certified == found.certified_accuracy.tolist()
    assert certified <= attacked <= [lg.metrics.Accuracy()(problem).value] * 2


@pytest.mark.parametrize("over", ["max", "mean"])
def test_local_variation_from_both_sides(over):
    problem = CASES[0].problem()
    bracket = lg.local_variation(problem, 0.3)
    for side in ("lower", "upper"):
        value = lg.metrics.LocalVariation(0.3, side, over)(problem).value
        assert value == getattr(getattr(bracket, side), over)().item()
    assert lg.metrics.LipschitzGlobal()(problem).value == lg.lipschitz_global(problem)


def test_settings_of_robustness(unchecked):
    with pytest.raises(ValueError, match="expected side to be one of lower or upper, got"):
        lg.metrics.LocalVariation(side="both")
    with pytest.raises(ValueError, match="expected a finite radius >= 0, got -1"):
        lg.metrics.LocalVariation(-1.0)
    with pytest.raises(ValueError, match="expected eps >= 0, got -1"):
        lg.metrics.CertifiedAccuracy(-1.0)
    for metric in (lg.metrics.AccuracyUnderAttack, lg.metrics.CertifiedAccuracy):
        with pytest.raises(ValueError, match="expected norm to be one of"):
            metric(norm="l1")


def test_kinds_of_sharpness_are_what_their_functions_say():
    problem = CASES[0].problem()
    pairs = {
        lg.metrics.AdaptiveSharpness(): lg.adaptive_sharpness(problem),
        lg.metrics.WorstCaseSharpnessLower(0.1): lg.worst_case_sharpness_lower(problem, 0.1),
        lg.metrics.BatchSharpness(batch_size=3): lg.batch_sharpness(problem, batch_size=3),
    }
    for metric, expected in pairs.items():
        assert metric(CASES[0].problem()) == expected
    norm = float(problem.gradient().norm())
    assert lg.metrics.GradientNorm()(problem).value == pytest.approx(norm)
