"""What the first batch shows of a model and a loss, and what is said about it."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lossgeom as lg
from lossgeom.problem import first_look
from lossgeom.report import render
from tests import reference


def data(n=12):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 4, generator=generator), (torch.arange(n) + 1) % 3


def mlp(*middle):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), *middle, nn.Tanh(), nn.Linear(5, 3))


def spoken(problem):
    problem.loss()
    return problem.notes


# The mode


class Halved(nn.Module):
    def forward(self, x):
        return x / 2 if self.training else x


class Remembers(nn.Module):
    """Stays as a call in train mode has left it."""

    shift = 0.0

    def forward(self, x):
        if self.training:
            self.shift = 1.0
        return x + self.shift


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(5), nn.Dropout(0.5), Halved(), Remembers()])
def test_a_model_that_is_another_one_in_training(layer, unchecked):
    x, y = data()
    model = mlp(layer)
    expected = F.cross_entropy(model.eval()(x), y).item()
    before = reference.fingerprint(model)
    problem = lg.Problem(model, "cross_entropy", [(x, y)])
    assert problem.loss() == pytest.approx(expected)
    (note,) = problem.notes
    assert "mode='eval', because no mode= was given" in note
    assert f"the loss is {expected:.4g} in it" in note
    assert reference.fingerprint(model) == before
    if not isinstance(layer, nn.Dropout):
        trained = F.cross_entropy(model.train()(x), y).item()
        assert f"and {trained:.4g} in mode='train'" in note
        model.eval()
    assert problem.refreshed().notes == (note,)
    assert problem.in_mode("train").unset_mode is None
    assert spoken(lg.Problem(model, "cross_entropy", [(x, y)], mode="eval")) == ()


def test_a_model_that_is_the_same_in_both_modes():
    assert spoken(lg.Problem(mlp(nn.Dropout(0.0)), "cross_entropy", [data()])) == ()


def test_a_model_that_cannot_run_in_train_mode():
    x, y = data(1)
    (note,) = spoken(lg.Problem(mlp(nn.BatchNorm1d(5)), "cross_entropy", [(x, y)]))
    assert "in mode='train' the model raises ValueError: batch 0, of 1 example" in note


def test_thresholds_of_training_beside_numbers_in_eval_mode(tmp_path):
    batches = [data()]
    model = mlp(nn.BatchNorm1d(5))
    metrics, thresholds = [lg.metrics.Sharpness()], {"sharpness": 2.5}
    unset = lg.Problem(model, "cross_entropy", batches)
    record = lg.Record.create(tmp_path / "unset")
    tracker = lg.Tracker(unset, metrics, record, thresholds=thresholds)
    with pytest.warns(UserWarning, match=r"training beside sharpness, .*mode='train'\) or mode="):
        tracker(0)
    tracker(1)  # and no second time, which would be an error here
    assert "the loss is" in record.manifest["thresholds_caution"]
    record.finish()
    page = render([record.path]).read_text()
    assert "Thresholds of training beside other numbers" in page
    lg.Tracker(unset, metrics, lg.Record.create(tmp_path / "no thresholds"))(0)
    for mode in ("eval", "train"):
        said = lg.Problem(model, "cross_entropy", batches, mode=mode)
        lg.Tracker(said, metrics, lg.Record.create(tmp_path / mode), thresholds=thresholds)(0)


# The split of the data, and contexts


class Centred(nn.Module):
    """Batch statistics in every mode."""

    def forward(self, x):
        return x - x.mean(0)


def test_outputs_that_depend_on_other_examples():
    x, y = data()
    batches = [(x[:8], y[:8]), (x[8:], y[8:])]
    (note,) = spoken(lg.Problem(mlp(Centred()), "cross_entropy", batches))
    assert "an example depend on the others in its batch" in note
    assert "into batches of 8, 4 examples" in note
    assert spoken(lg.Problem(mlp(nn.LayerNorm(5)), "cross_entropy", batches)) == ()


class InPairs(nn.Module):
    """Adds a neighbour, of which an even number of examples has all."""

    def forward(self, x):
        return x + x[(torch.arange(len(x)) ^ 1).clamp(max=len(x) - 1)]


class Steps(nn.Module):
    """Counts its calls."""

    def __init__(self):
        super().__init__()
        self.calls = 0.0

    def forward(self, x):
        self.calls += 1
        return x * self.calls


def test_a_second_evaluation_takes_pairs_apart():
    (note,) = spoken(lg.Problem(mlp(InPairs()), "cross_entropy", [data()]))
    assert "an example depend on the others in its batch" in note
    with pytest.raises(ValueError, match=r"two evaluations of the model .* differ"):
        lg.Problem(mlp(Steps()), "cross_entropy", [data()]).loss()


class Within(nn.Module):
    def __init__(self, context, inner):
        super().__init__()
        self.context, self.inner = context, inner

    def forward(self, x):
        with self.context():
            inner = self.inner(x)
        return inner.to(x.dtype)


def bfloat16():
    return torch.autocast("cpu", torch.bfloat16)


def test_contexts_that_a_model_opens_itself():
    def notes(context, inner, **options):
        model = mlp(Within(context, inner))
        problem = lg.Problem(model, "cross_entropy", [data()], check=False, **options)
        return spoken(problem)

    (note,) = notes(bfloat16, nn.Linear(5, 5))
    assert "opens torch.autocast itself: what is in it is rounded to torch.bfloat16" in note
    (note,) = notes(bfloat16, nn.Linear(5, 5), autocast=torch.bfloat16)
    assert note == "model and loss run under autocast to torch.bfloat16"
    (note,) = notes(torch.no_grad, nn.Linear(5, 5))
    assert "opens torch.no_grad itself" in note
    assert notes(torch.enable_grad, nn.Linear(5, 5)) == ()
    looks = nn.Identity()
    looks.forward = lambda x: [x.shape, x.dtype, x.detach(), x][-1]
    assert notes(torch.no_grad, looks) == ()


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return grad * s * (1 + x * (1 - s))


def test_functions_with_a_backward_of_their_own_are_no_constants():
    class Own(nn.Module):
        def forward(self, x):
            return Swish.apply(x)

    model = mlp(Own())
    model[0].register_full_backward_hook(lambda *_: None)
    assert spoken(lg.Problem(model, "cross_entropy", [data()])) == ()


# Sums and counts


def summed(outputs, batch):
    return F.cross_entropy(outputs, batch[1], reduction="sum"), len(outputs)


def mean(outputs, batch):
    return F.cross_entropy(outputs, batch[1]), len(outputs)


def mean_of_valid(outputs, batch):
    return F.cross_entropy(outputs, batch[1], ignore_index=0), len(outputs)


def mean_and_penalty(outputs, batch):
    return F.cross_entropy(outputs, batch[1]) + 0.1 * outputs.square().mean(), len(outputs)


def at_a_perfect_fit(outputs, batch):
    return (outputs - outputs.detach()).square().mean(), len(outputs)


@pytest.mark.parametrize("loss", [mean, mean_of_valid, mean_and_penalty])
@pytest.mark.parametrize("n", [2, 3, 12])
def test_a_mean_with_the_count_of_a_sum(loss, n):
    problem = lg.Problem(mlp(), loss, [data(n)])
    message = rf"returns a mean with a count of {n}: .* for its halves.*reduction='sum'; or \(mean"
    with pytest.raises(ValueError, match=message):
        problem.loss()
    with pytest.raises(ValueError, match=message):
        lg.sharpness(lg.Problem(mlp(), loss, [data(1), data(n)]))


def test_batches_of_one_are_not_looked_at_in_every_pass():
    """They cannot be halved, so that whether a loss is a sum is never seen."""

    class Counted(nn.Linear):
        calls = 0

        def forward(self, x):
            Counted.calls += 1
            return super().forward(x)

    x, y = data(6)
    problem = lg.Problem(Counted(4, 3), summed, list(zip(x.split(1), y.split(1), strict=True)))
    problem.gradient()
    Counted.calls = 0
    problem.at(2 * problem.theta).gradient()
    assert Counted.calls == 6


def test_a_mean_that_is_zero_here():
    x, _ = data()
    model = nn.Linear(4, 3)
    targets = model(x).detach()

    def loss(outputs, batch):
        return (outputs - batch[1]).square().mean(), outputs.numel()

    with pytest.raises(ValueError, match=r"returns a mean with a count of 36"):
        lg.Problem(model, loss, [(x, targets)]).loss()


def weighted(outputs, batch):
    weights = outputs.new_tensor([0.5, 2.0, 1.0])[batch[1]]
    return (weights * F.cross_entropy(outputs, batch[1], reduction="none")).sum(), weights.sum()


def signed(outputs, batch):
    return F.gaussian_nll_loss(outputs[:, 0], batch[0][:, 0], outputs[:, 1].exp() / 9).mul(
        len(outputs)
    ), len(outputs)


def mean_beside_one(outputs, batch):
    return F.cross_entropy(outputs, batch[1]), 1


def contrastive(outputs, batch):
    z = F.normalize(outputs, dim=1)
    similar = z @ z.T / 0.5 - 1e9 * torch.eye(len(z))
    return F.cross_entropy(similar, torch.arange(len(z)) ^ 1, reduction="sum"), len(z)


def with_a_term_for_the_batch(outputs, batch):
    return summed(outputs, batch)[0] + outputs.mean(0).square().sum(), len(outputs)


@pytest.mark.parametrize("loss", [summed, weighted, signed])
def test_sums_and_counts_need_no_note(loss):
    x, y = data()
    for batches in ([(x, y)], [(x[:1], y[:1]), (x[1:8], y[1:8]), (x[8:], y[8:])]):
        assert spoken(lg.Problem(mlp(), loss, batches)) == ()


@pytest.mark.parametrize("loss", [mean_beside_one, contrastive, with_a_term_for_the_batch])
def test_losses_of_a_whole_batch_say_so(loss):
    x, y = data()
    (note,) = spoken(lg.Problem(mlp(), loss, [(x[:8], y[:8]), (x[8:], y[8:])]))
    assert f"the loss '{loss.__name__}' is no sum over examples" in note
    assert "split, here into batches of 8, 4 examples" in note


def test_a_look_at_a_loss_leaves_random_numbers_as_they_are():
    def noisy(outputs, batch):
        noise = 0.1 * torch.rand(len(outputs), 1)
        return F.cross_entropy(outputs + noise, batch[1], reduction="sum"), len(outputs)

    with warnings.catch_warnings():
        problem = lg.Problem(mlp(), noisy, [data()])
        assert problem.loss() == problem.at(problem.theta).loss()


def own_loss(outputs, batch):
    return nn.functional.cross_entropy(outputs, batch[1], reduction="sum"), len(outputs)


@pytest.mark.parametrize("loss", ["cross_entropy", own_loss])
def test_of_outputs_that_are_nan_nothing_is_said_but_that(loss):
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(), nn.Linear(5, 3))
    nn.init.constant_(model[0].weight, float("nan"))
    problem = lg.Problem(model, loss, [(torch.ones(8, 4), torch.zeros(8, dtype=torch.long))])
    assert problem.over_batches(len) == [8]
    assert problem.notes == ()
    with pytest.raises(lg.NonFiniteError):
        problem.loss()


class Clamped(nn.Module):
    """Keeps its weights small where it is called, and not where it is trained."""

    def __init__(self, always):
        super().__init__()
        self.layer, self.always = nn.Linear(4, 3), always

    def forward(self, x):
        if self.always or self.training:
            self.layer.weight.data.clamp_(-0.1, 0.1)
        return self.layer(x)


def test_a_model_that_writes_to_its_parameters_is_refused():
    problem = lg.Problem(Clamped(always=True), "cross_entropy", [data()])
    theta = problem.theta.clone()
    for _ in range(2):
        with pytest.raises(ValueError, match="writes to its parameters when it is called"):
            problem.loss()
    assert torch.equal(problem.theta, theta)


def test_a_look_at_the_other_mode_does_not_write_to_the_parameters():
    model, (x, y) = Clamped(always=False).eval(), data()
    problem = lg.Problem(model, "cross_entropy", [(x, y)])
    assert problem.loss() == pytest.approx(F.cross_entropy(model(x), y).item(), rel=1e-6)


# Large models, which are looked at on a few examples


class Keeping(nn.Module):
    """Goes on from where it was, as long as batches have one size."""

    before = None

    def forward(self, x):
        if self.before is None or len(self.before) != len(x):
            self.before = torch.zeros_like(x)
        self.before = self.before.detach() + x
        return self.before


class Sixes(nn.Module):
    """Runs on batches of six alone."""

    def forward(self, x):
        return x.view(6, -1, *x.shape[1:]).flatten(0, 1) if len(x) % 6 == 0 else x.view(6, 1)


@pytest.mark.parametrize("batches", [[data()], [data(2)]], ids=["12", "2"])
def test_large_models_are_looked_at_on_few_examples(batches, monkeypatch):
    monkeypatch.setattr(first_look, "LARGE", 0)
    sizes = []
    noting = nn.Identity()
    noting.forward = lambda x: sizes.append(len(x)) or x
    for layer in (Centred(), nn.Dropout(0.5)):
        problem = lg.Problem(mlp(layer, noting), "cross_entropy", batches)
        problem.first_batch()
        seen = problem.evaluation.facts.first_look
        assert seen.mixed == isinstance(layer, Centred)
        assert ("in mode='train'" in seen.training) == isinstance(layer, nn.Dropout)
    assert max(sizes) <= first_look.FEW
    with pytest.raises(ValueError, match="two evaluations of the model"):
        lg.Problem(mlp(Keeping()), "cross_entropy", batches).loss()


def test_a_large_model_that_runs_on_whole_batches_only(monkeypatch):
    monkeypatch.setattr(first_look, "LARGE", 0)
    assert lg.Problem(mlp(Sixes()), "cross_entropy", [data()]).loss() > 0
    with pytest.raises(ValueError, match="returns a mean with a count of 12"):
        lg.Problem(mlp(nn.Tanh()), mean, [data()]).loss()


def test_a_large_model_that_is_not_checked_is_evaluated_once(monkeypatch):
    """On half of a small batch; and the size of its graph is known from there."""
    monkeypatch.setattr(first_look, "LARGE", 0)
    sizes = []
    noting = nn.Identity()
    noting.forward = lambda x: sizes.append(len(x)) or x
    settings = {"mode": "eval", "check": False}
    problem = lg.Problem(mlp(noting), "cross_entropy", [data(2)], **settings)
    product = lg.Hessian(problem) @ torch.ones_like(problem.theta)
    assert sizes == [1, 2]
    checked = lg.Hessian(lg.Problem(problem.model, "cross_entropy", [data(2)], mode="eval"))
    torch.testing.assert_close(product, checked @ torch.ones_like(problem.theta))
    assert lg.Problem(mlp(Keeping()), "cross_entropy", [data(2)], **settings).loss() > 0
    with pytest.raises(ValueError, match="returns a mean with a count of 2"):
        lg.Problem(mlp(nn.Tanh()), mean, [data(2)], **settings).loss()
    held, holds = nn.Linear(5, 5), nn.Identity()
    holds.forward = lambda x: held(x)
    with pytest.raises(ValueError, match="not reached as parameters"):
        lg.Problem(mlp(holds), "cross_entropy", [data(2)], **settings).loss()


def test_what_train_mode_makes_of_two_examples_is_seen_on_both(monkeypatch):
    """One alone has no batch statistics."""
    monkeypatch.setattr(first_look, "LARGE", 0)
    problem = lg.Problem(mlp(nn.BatchNorm1d(5)), "cross_entropy", [data(2)], check=False)
    problem.first_batch()
    assert "in mode='train', in which models are trained" in problem.unset_mode
