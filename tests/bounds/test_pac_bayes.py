"""The PAC-Bayes bound of networks."""

import copy
import math
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.bounds._classification import wrong
from lossgeom.bounds._telling import MEANINGS
from tests.bounds import plain
from tests.reference import fingerprint

BASES = ["standard", "decoupled", "recomputed", "exact"]
QUICK = {"epochs": 20, "lr": 0.04, "samples": 40}


def vector(model):
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def share_wrong(model, theta, batches):
    """Of one network, by torch's own argmax."""
    model = copy.deepcopy(model)
    nn.utils.vector_to_parameters(theta, model.parameters())
    found = []
    for x, y in batches:
        outputs = model(x)
        predicted = outputs[:, 0] > 0 if y.ndim == 2 else outputs.argmax(1)
        found.append(predicted != y.reshape(-1))
    return torch.cat(found).double().mean().item()


@pytest.mark.parametrize(
    ("kind", "basis"), [("binary", "standard"), *(("several", basis) for basis in BASES)]
)
def test_the_bound_is_that_of_plain_code(kind, basis, request):
    case = request.getfixturevalue(kind)
    result = lg.pac_bayes(case.problem, prior=case.initial, basis=basis, every=8, **QUICK)
    posterior, P = result.posterior, len(result.posterior.mean)
    U = posterior.basis.unrotate(torch.eye(P).to(posterior.mean)).double().T
    covariance = U @ torch.diag((2 * posterior.log_std.double()).exp()) @ U.T
    prior, settings = vector(case.initial), {"delta": 0.025, "b": 0.1, "p": 100.0}
    kl = plain.divergence(posterior.mean, covariance, prior, result.prior_variance)
    assert result.kl == pytest.approx(kl, rel=1e-4)
    thetas = posterior.sample(40, seed=1)
    error = sum(share_wrong(case.model, theta, case.batches) for theta in thetas) / 40
    assert result.empirical_error.value == pytest.approx(error, abs=2e-4)
    c = plain.complexity(kl, result.prior_variance, 300, **settings)
    upper = plain.inverse(result.empirical_error.value, math.log(2 / 0.01) / 40)
    assert result.value == pytest.approx(plain.inverse(upper, c), rel=1e-4)
    unrounded = 100 * math.log(0.1 / result.history[-1].prior_variance)
    grid = [0.1 * math.exp(-j / 100) for j in (math.floor(unrounded), math.ceil(unrounded)) if j]
    assert result.prior_variance == pytest.approx(
        min(
            grid,
            key=lambda v: plain.complexity(
                plain.divergence(posterior.mean, covariance, prior, v), v, 300, **settings
            ),
        )
    )


@pytest.mark.parametrize("kind", ["binary", "several"])
def test_the_bound_says_something_and_holds(kind, request):
    case = request.getfixturevalue(kind)
    result = lg.pac_bayes(case.problem, prior=case.initial, basis="decoupled", **QUICK)
    error = result.stochastic_error(case.fresh, samples=60)
    assert error.value + 4 * error.stderr < result.value < 1
    assert not result.vacuous
    assert result.empirical_error.value < error.value + 0.1
    assert len(result.history) == 20
    assert result.history[-1].kl < result.history[0].kl


def test_it_holds_where_the_truth_is_known():
    """Of 10 data sets; what the examples alone say does not."""
    direction, too_small = torch.tensor([1.0, -1.0, 0.5]), 0
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(2040, 3, generator=generator)
        noise = torch.randn(2040, generator=generator)
        y = (x @ direction + noise > 0).float()[:, None]
        model = nn.Linear(3, 1, bias=False)
        nn.init.constant_(model.weight, 0.1)
        train = lg.Problem(model, nn.BCEWithLogitsLoss(), [(x[:40], y[:40])], check=False)
        fresh = lg.Problem(model, nn.BCEWithLogitsLoss(), [(x[40:], y[40:])], check=False)
        result = lg.pac_bayes(train, prior=torch.zeros(3), epochs=40, lr=0.1, samples=60)
        error = result.stochastic_error(fresh, samples=60).value
        assert error < result.value
        too_small += result.empirical_error.value < error
    assert too_small > 2


def test_random_labels_break_nothing(binary):
    labels = torch.Generator().manual_seed(0)
    batches = [(x, torch.randint(2, y.shape, generator=labels).double()) for x, y in binary.batches]
    problem = lg.Problem(binary.model, binary.loss, batches)
    longer = {**QUICK, "epochs": 40, "samples": 200}
    random, real = (
        lg.pac_bayes(p, prior=binary.initial, basis="decoupled", **longer)
        for p in (problem, binary.problem)
    )
    assert random.value > real.value + 0.1
    assert random.value > random.empirical_error.value > 0.3
    assert random.kl < real.kl / 2


def test_same_seed_same_bits_and_no_trace(several):
    model, problem = several.model, several.problem
    before = fingerprint(model)
    results = []
    for seed, mode in ((3, nullcontext()), (3, torch.inference_mode()), (4, torch.no_grad())):
        with mode:
            results.append(
                lg.pac_bayes(problem, prior=several.initial, basis="recomputed", epochs=3,
                             every=1, samples=5, seed=seed)
            )  # fmt: skip
    first, second, other = results
    assert fingerprint(model) == before
    assert first.value == second.value
    assert first.kl == second.kl != other.kl
    assert torch.equal(first.posterior.mean, second.posterior.mean)
    assert first.history == second.history


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: m.state_dict(), vector])
def test_forms_of_a_prior(wrap, several):
    result = lg.pac_bayes(several.problem, prior=wrap(several.initial), epochs=2, samples=5)
    same = lg.pac_bayes(several.problem, prior=several.initial, epochs=2, samples=5)
    assert result.value == same.value


def test_labels_of_either_form():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)), torch.randn(50, 3)
    y = (x[:, 0] > 0).float()
    prior = torch.zeros(4)
    zero_one = lg.Problem(model, nn.BCEWithLogitsLoss(), [(x, y)])
    signs = lg.Problem(model, nn.SoftMarginLoss(), [(x, 2 * y - 1)])
    results = [lg.pac_bayes(p, prior=prior, basis="decoupled", **QUICK) for p in (zero_one, signs)]
    assert results[0].value == pytest.approx(results[1].value, rel=1e-3)


def test_what_the_loss_leaves_out_is_not_counted():
    torch.manual_seed(0)
    model, x = nn.Linear(3, 2), torch.randn(50, 3)
    y = (x[:, 0] > 0).long()
    some = torch.where(torch.arange(50) < 30, y, -100)
    results = [
        lg.pac_bayes(lg.Problem(model, "cross_entropy", [batch]), prior=torch.zeros(8), **QUICK)
        for batch in [(x, some), (x[:30], y[:30])]
    ]
    assert [result.bound.inputs["N"] for result in results] == [30, 30]
    assert results[0].value == pytest.approx(results[1].value, rel=1e-3)
    said = "error on new examples that the loss counts, as it does 30 of these 50, of networks"
    assert [said in str(result) for result in results] == [True, False]
    with pytest.raises(ValueError, match="expected examples that the loss counts, got none"):
        results[0].stochastic_error(
            lg.Problem(nn.Linear(3, 2), nn.CrossEntropyLoss(torch.zeros(2)), [(x, y)])
        )


def test_examples_that_are_repeated_are_said():
    torch.manual_seed(0)
    x, model = torch.randn(20, 3), nn.Linear(3, 2)
    y, few = (x[:, 0] > 0).long(), {"prior": torch.zeros(8), "epochs": 1, "samples": 3}
    cases = [([(x, y)] * 2, 0.0, 1), ([(x, y)] * 2, 0.5, 1), ([(x, y), (x, 1 - y)], 0.0, 0)]
    for batches, share, said in cases:
        problem = lg.Problem(model, "cross_entropy", batches)
        told = str(lg.pac_bayes(problem, prior_share=share, **few))
        assert told.count("you declare: 20 of 40 examples are copies of others") == said
        assert told.count("copies") == said


class Noise(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x)


class Mean(nn.Module):
    """Classifies by the mean of a batch; on another number of examples than some, it may raise."""

    def __init__(self, only=None):
        super().__init__()
        self.only, self.linear = only, nn.Linear(3, 2)

    def forward(self, x):
        if self.only not in (None, len(x)):
            raise RuntimeError(f"expected {self.only} examples")
        return self.linear(x.mean(0).expand_as(x))


def zero_head():
    model = Mean()
    nn.init.zeros_(model.linear.weight)
    return model


@pytest.mark.parametrize(
    ("make", "sizes", "options", "status"),
    [
        (Mean, [10], {"seed": 0}, "refused"),
        (Mean, [1, 9], {}, "refused"),
        (zero_head, [10], {}, "refused"),
        (lambda: nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False), nn.Linear(3, 2)),
         [10], {}, "refused"),
        (lambda: Mean(only=10), [10], {}, "you declare"),
        (lambda: nn.Linear(3, 2), [1, 1], {}, "you declare"),
        (lambda: nn.Sequential(nn.Linear(3, 2), Noise()), [10], {"seed": 0}, "you declare"),
        (lambda: nn.Linear(3, 2), [10], {"seed": 0}, "checked"),
    ],
)  # fmt: skip
def test_whether_examples_are_classified_by_themselves(make, sizes, options, status):
    torch.manual_seed(0)
    batches = [(x, (x[:, 0] > 0).long()) for x in torch.randn(10, 3)[: sum(sizes)].split(sizes)]
    problem = lg.Problem(make(), "cross_entropy", batches, **options)
    settings = {"prior": 1 - problem.theta, "basis": "standard", "epochs": 1, "samples": 3}
    if status == "refused":
        with pytest.raises(ValueError, match="depend on the others in its batch, or on its place"):
            lg.pac_bayes(problem, **settings)
        return
    told = str(lg.pac_bayes(problem, **settings))
    assert f"{status}: the class of an example depends on no other example" in told


@pytest.mark.quick
def test_ties_and_nan_are_wrong():
    outputs = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0], [math.nan, 0.0], [0.0, 9.0]])
    assert wrong(outputs[None], torch.tensor([0, 0, 0, 0, -1])).tolist() == [3]
    one = torch.tensor([[[1.0], [-1.0], [0.0]], [[1.0], [1.0], [-1.0]]])
    assert wrong(one, torch.tensor([1, 1, 0])).tolist() == [2, 0]


def test_a_prior_of_its_own_part_of_the_data(binary):
    result = lg.pac_bayes(binary.problem, prior=binary.initial, prior_share=0.4, **QUICK)
    assert result.bound.inputs["N"] == 190
    (split,) = [a for a in result.assumptions if "depends on data" in a.statement]
    assert "trained on the first 1 of 3 batches" in split.statement
    assert "from weights that depend on none of the others" in split.statement
    assert any("which is its mean" in a.statement for a in result.assumptions)
    assert result.kl < lg.pac_bayes(binary.problem, prior=binary.initial, **QUICK).kl
    with pytest.raises(ValueError, match=r"0\.9 of 3 batches leaves none for the bound"):
        lg.pac_bayes(binary.problem, prior=binary.initial, prior_share=0.9)
    with pytest.raises(ValueError, match="those from before its training"):
        lg.pac_bayes(binary.problem, prior=binary.model, prior_share=0.4)


@pytest.mark.parametrize(("lr", "epochs"), [(1e3, 5), (1e30, 5), (1e38, 1)])
def test_divergence_is_recorded(lr, epochs, several):
    result = lg.pac_bayes(
        several.problem, prior=several.initial, basis="standard", epochs=epochs, lr=lr, samples=3
    )
    assert result.diverged
    assert result.vacuous
    assert len(result.history) < 5
    assert math.isnan(result.history[-1].surrogate)
    first, ended = str(result).splitlines()[0], len(result.history)
    assert first == f"no bound: the search diverged in epoch {ended}; lower its lr"


def test_what_is_printed(binary):
    result = lg.pac_bayes(binary.problem, prior=binary.initial, **QUICK)
    told = str(result)
    alone = share_wrong(binary.model, vector(binary.model), binary.batches)
    drawn = result.empirical_error.value
    assert told.startswith(
        f"training error of the drawn networks {100 * drawn:.3g}% (of the trained network itself "
        f"{100 * alone:.3g}%); bound on their error on new examples {100 * result.value:.3g}%\n"
        "the error on new examples of networks drawn at random around the trained one"
    )
    assert f"at most {result.value:.4g}, with probability 0.965" in told
    for named in ("N = 300: the examples", "KL = ", "b = 0.1", "p = 100", "delta = 0.025"):
        assert named in told
    assert {a.status for a in result.assumptions} == {"checked", "declared", "unverifiable"}
    assert all(name in MEANINGS for name in result.bound.inputs)
    swapped = lg.Problem(binary.initial, binary.loss, binary.batches)
    few = {"epochs": 1, "samples": 3}
    assert "are they swapped?" in str(lg.pac_bayes(swapped, prior=binary.model, **few))
    assert "swapped" not in told
    assert not result.diverged


@pytest.mark.quick
def test_networks_that_agree_leave_a_doubt(binary):
    result = lg.pac_bayes(binary.problem, prior=binary.initial, epochs=0, samples=2)
    point = replace(result.posterior, log_std=torch.full_like(result.posterior.mean, -50.0))
    error = replace(result, posterior=point).stochastic_error(binary.fresh, samples=5)
    assert error.stderr == 0.2
    alone = share_wrong(binary.model, vector(binary.model), binary.others)
    assert error.value == pytest.approx(alone)
    other = lg.Problem(nn.Linear(4, 1).double(), binary.loss, binary.others)
    with pytest.raises(ValueError, match=r"expected theta of shape \(5,\), got \(37,\)"):
        result.stochastic_error(other)


def normed():
    """A network with BatchNorm that has seen data, and the same before."""
    torch.manual_seed(0)
    initial = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    model = copy.deepcopy(initial)
    x = torch.randn(40, 3)
    with torch.no_grad():
        model(x)
        for p in model.parameters():
            p += 0.1
    return initial, model, [(x, (x[:, 0] > 0).long())]


DECLARED = "you declare: neither the prior, which is its mean, b and p, nor anything that the model"


def test_statistics_of_the_examples_are_refused_or_said():
    initial, model, batches = normed()
    problem = lg.Problem(model, "cross_entropy", batches, mode="eval")
    with pytest.raises(ValueError, match=r"not as in the prior \(1\.running_mean, 1\.running_var"):
        lg.pac_bayes(problem, prior=initial)
    few = {"epochs": 1, "samples": 3}
    vector_alone = lg.pac_bayes(problem, prior=vector(initial), **few)
    model[1].load_state_dict(initial[1].state_dict())
    whole = lg.pac_bayes(problem.refreshed(), prior=initial, **few)
    assert all(DECLARED in str(found) for found in (vector_alone, whole))


def test_layers_that_are_not_trained_are_held_fixed():
    torch.manual_seed(0)
    initial = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    model = copy.deepcopy(initial)
    nn.init.normal_(model[2].weight)
    x = torch.randn(40, 3)
    problem = lg.Problem(model, "cross_entropy", [(x, (x[:, 0] > 0).long())], parameters="2.*")
    result = lg.pac_bayes(problem, prior=initial, basis="decoupled", epochs=1, samples=3)
    assert DECLARED in str(result)
    nn.init.normal_(model[0].weight)
    with pytest.raises(ValueError, match=r"not as in the prior \(0\.weight\)"):
        lg.pac_bayes(problem.refreshed(), prior=initial)
    with pytest.raises(ValueError, match=r"the bound holds fixed, got another 0\.weight"):
        result.stochastic_error(problem.refreshed())


@pytest.mark.parametrize(
    ("kind", "persistent"), [(torch.float, False), (torch.long, True), (torch.bool, True)]
)
def test_buffers_of_any_kind_are_those_of_the_prior(kind, persistent):
    torch.manual_seed(0)
    model, x = nn.Linear(3, 2), torch.randn(40, 3)
    model.register_buffer("kept", torch.zeros(3).to(kind), persistent=persistent)
    initial = copy.deepcopy(model)
    nn.init.normal_(model.weight)
    model.kept += torch.ones(3).to(kind)
    with pytest.raises(ValueError, match=r"not as in the prior \(kept\)"):
        lg.pac_bayes(lg.Problem(model, "cross_entropy", [(x, (x[:, 0] > 0).long())]), prior=initial)


def problem_of(loss, targets, outputs=2, **options):
    torch.manual_seed(0)
    x = torch.randn(len(targets), 3)
    return lg.Problem(nn.Linear(3, outputs), loss, [(x, targets)], **options)


REFUSED = {
    "regression": (lambda: problem_of("squared_error", torch.ones(4, 2)), "one class for each"),
    "soft labels": (lambda: problem_of("cross_entropy", torch.full((4, 2), 0.5)), "class indices"),
    "several labels": (
        lambda: problem_of(nn.BCEWithLogitsLoss(), torch.ones(4, 2)), "BCEWithLogitsLoss' of outp",
    ),
    "probabilities": (
        lambda: problem_of(nn.BCEWithLogitsLoss(), torch.full((4, 1), 0.3), 1), "labels 0 and 1",
    ),
    "signs": (
        lambda: problem_of(nn.BCEWithLogitsLoss(), torch.tensor([[-1.0], [1]] * 2), 1),
        "labels 0 and 1 for BCEWithLogitsLoss",
    ),
    "tokens": (
        lambda: lg.Problem(
            nn.Embedding(5, 3), "token_cross_entropy", [(torch.ones(2, 4).long(),) * 2],
        ),
        "of outputs (2, 4, 3)",
    ),
    "train mode": (
        lambda: lg.Problem(normed()[1], "cross_entropy", normed()[2], mode="train"), "mode='eval'",
    ),
    "mixed": (
        lambda: problem_of(
            "cross_entropy", torch.ones(4).long(),
            forward=lambda m, batch: m(batch[0]) - m(batch[0]).mean(0),
        ),
        "depend on the others in its batch",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_classifier_of_examples(name):
    make, message = REFUSED[name]
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        lg.pac_bayes(make(), prior=torch.zeros_like(make().theta))
    assert message in str(raised.value)


def test_labels_of_soft_margins_are_signs():
    problem = problem_of(nn.SoftMarginLoss(), torch.full((4, 1), 2.0), 1)
    with pytest.raises(ValueError, match="SoftMarginLoss expects targets of -1 and 1"):
        lg.OutputRoot(problem).dense()


def test_a_model_without_layers_keeps_the_standard_basis():
    model = nn.Embedding(5, 2)
    problem = lg.Problem(model, "cross_entropy", [(torch.arange(4), torch.arange(4) % 2)])
    with pytest.raises(ValueError, match="basis='standard' needs no factors"):
        lg.pac_bayes(problem, prior=torch.zeros(10), basis="decoupled")
    few = {"basis": "standard", "epochs": 1, "samples": 2}
    assert lg.pac_bayes(problem, prior=torch.zeros(10), **few).basis == "standard"


def test_priors_that_are_none(binary):
    problem, state = binary.problem, binary.initial.state_dict()
    with pytest.raises(ValueError, match="those from before its training"):
        lg.pac_bayes(problem, prior=binary.model)
    with pytest.raises(ValueError, match=r"got none for \['0\.bias'\]"):
        lg.pac_bayes(problem, prior={k: v for k, v in state.items() if k != "0.bias"})
    with pytest.raises(ValueError, match=r"0\.weight of shape \(6, 4\), got \(4, 6\)"):
        lg.pac_bayes(problem, prior={**state, "0.weight": state["0.weight"].T})
    with pytest.raises(ValueError, match=r"of the same model, got \['3\.bias'\], which it has not"):
        lg.pac_bayes(problem, prior={**state, "3.bias": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"prior of shape \(37,\), got \(3,\)"):
        lg.pac_bayes(problem, prior=torch.zeros(3))
    with pytest.raises(TypeError, match=r"the model before its training, .*; got int"):
        lg.pac_bayes(problem, prior=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"basis": "decoupeld"}, "unknown basis 'decoupeld': did you mean decoupled?"),
        ({"epochs": -1}, "expected epochs of at least 0"),
        ({"lr": 0.0}, "expected lr > 0"),
        ({"samples": 1}, "expected samples of at least 2"),
        ({"every": 0}, "expected every of at least 1"),
        ({"delta": 0.0}, "expected delta > 0"),
        ({"delta": 0.5, "delta_prime": 0.5}, "expected delta + delta_prime > 0 and < 1, got 1.0"),
        ({"lr": 1e39}, "expected lr > 0 and < 3e+38, got 1e+39"),
        ({"b": 1e-300}, "variance b exp(-1 / p) is above 2e-35, got b=1e-300 and p=100"),
        ({"p": 1e-3}, "got b=0.1 and p=0.001"),
        ({"delta_prime": 1.0}, "expected delta_prime > 0 and < 1"),
        ({"prior_share": 1.0}, "expected prior_share >= 0 and < 1"),
    ],
)
def test_settings_out_of_range(settings, message, binary):
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        lg.pac_bayes(binary.problem, prior=binary.initial, **settings)
    assert message in str(raised.value)


@pytest.mark.parametrize("name", ["samples", "epochs", "every"])
def test_counts_are_whole_numbers(name, binary):
    with pytest.raises(TypeError, match=f"expected {name} to be a whole number, got 2.5"):
        lg.pac_bayes(binary.problem, prior=binary.initial, **{name: 2.5})


def test_only_problems_have_a_bound(binary):
    with pytest.raises(TypeError, match="expected a Problem"):
        lg.pac_bayes(binary.model, prior=binary.initial)
    result = lg.pac_bayes(binary.problem, prior=binary.initial, epochs=0, samples=2)
    with pytest.raises(TypeError, match="expected a Problem"):
        result.stochastic_error("test set")


def test_other_networks_are_drawn_afterwards(several):
    result = lg.pac_bayes(several.problem, prior=several.initial, epochs=3, samples=40)
    again = result.stochastic_error(several.problem, samples=40)
    assert again.value != result.empirical_error.value
    double = lg.Problem(several.model, several.loss, several.batches, dtype=torch.double)
    assert result.stochastic_error(double, samples=40).value == pytest.approx(again.value, abs=1e-3)


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return self.scale * x


def test_a_model_without_layers_has_the_standard_basis():
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    problem = lg.Problem(Scale(), "cross_entropy", [(x, (x[:, 0] > 0).long())])
    few = {"prior": torch.zeros(2), "epochs": 1, "samples": 3}
    with pytest.raises(ValueError, match=r"neither linear nor a conv.*basis='standard' needs no"):
        lg.pac_bayes(problem, **few)
    assert lg.pac_bayes(problem, basis="standard", **few).basis == "standard"
