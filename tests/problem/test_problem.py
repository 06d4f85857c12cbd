import copy
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import lossgeom as lg
from lossgeom.batches import Batch
from lossgeom.losses import ELEMENTWISE, as_loss
from tests import reference
from tests.problems import CASES, CubeOnce, TwoPaths


def data(n=6, classes=3):
    return torch.randn(n, 4), torch.randint(classes, (n,))


@pytest.mark.quick
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_loss_and_gradient_agree_with_plain_code(case):
    theta = reference.theta_of(case)
    problem = case.problem()
    assert torch.equal(problem.theta, theta)
    assert problem.loss() == pytest.approx(reference.loss(case, theta), rel=1e-12)
    torch.testing.assert_close(problem.gradient(), reference.gradient(case, theta))


@pytest.mark.quick
@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(0, 99))
def test_any_split_gives_the_same_loss(sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(sum(sizes), 4, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (sum(sizes),), generator=generator)
    model = nn.Linear(4, 3).double()
    batches = list(zip(x.split(sizes), y.split(sizes), strict=True))
    problem = lg.Problem(model, "cross_entropy", batches)
    assert problem.loss() == pytest.approx(F.cross_entropy(model(x), y).item(), rel=1e-10)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("kind", [*ELEMENTWISE, nn.NLLLoss, nn.CrossEntropyLoss])
def test_torch_criteria_keep_torchs_meaning(kind, reduction):
    torch.manual_seed(0)
    outputs = torch.rand(7, 4, dtype=torch.float64)
    if kind in ELEMENTWISE:
        targets = torch.rand(7, 4, dtype=torch.float64).round()
        criterion = kind(reduction=reduction)
    else:
        targets = torch.tensor([0, 1, 2, 3, 1, 2, 0])
        weight = torch.rand(4, dtype=torch.float64)
        criterion = kind(weight=weight, ignore_index=2, reduction=reduction)
    loss = as_loss(criterion)
    total, count = loss.terms(outputs, Batch.of((outputs, targets)))
    value = total / count if loss.average else total
    torch.testing.assert_close(value, criterion(outputs, targets))
    assert criterion.reduction == reduction


@pytest.mark.quick
def test_label_entropy_is_the_least_loss():
    """With logits at the log of the smoothed labels, cross-entropy is the label entropy."""
    for smoothing in (0.0, 0.1, 0.75):
        q = torch.full((1, 5), smoothing / 5, dtype=torch.float64)
        q[0, 2] += 1 - smoothing
        model = nn.Linear(1, 5, bias=False).double()
        model.weight.data = q.clamp(min=1e-300).log().T
        batch = (torch.ones(1, 1), torch.tensor([2]))
        problem = lg.Problem(model, "cross_entropy", [batch], label_smoothing=smoothing)
        assert problem.label_entropy() == pytest.approx(problem.loss(), abs=1e-12)


def test_label_entropy_of_probabilities_and_ignored_targets():
    q = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    problem = lg.Problem(nn.Linear(3, 2), "cross_entropy", [(torch.ones(2, 3), q)])
    assert problem.label_entropy() == pytest.approx(np.log(2) / 2)
    ignored = [(torch.ones(2, 3), torch.tensor([0, -100]))]
    smoothed = lg.Problem(nn.Linear(3, 2), "cross_entropy", ignored, label_smoothing=1.0)
    assert smoothed.label_entropy() == pytest.approx(np.log(2))
    with pytest.raises(ValueError, match="label entropy is known for unweighted cross-entropy"):
        lg.Problem(nn.Linear(3, 2), nn.MSELoss(), [(torch.ones(2, 3), q)]).label_entropy()


# A frozen copy that leaves no trace


def test_frozen_until_refreshed():
    model = nn.Linear(4, 3)
    problem = lg.Problem(model, "cross_entropy", [data()])
    before = problem.loss()
    with torch.no_grad():
        model.weight[0] += 1
    assert problem.loss() == before
    assert problem.refreshed().loss() != before
    assert torch.equal(problem.refreshed().theta[:12], model.weight.detach().reshape(-1))


@pytest.mark.quick
def test_at_other_parameters():
    problem = lg.Problem(nn.Linear(4, 3), "cross_entropy", [data()])
    zero = problem.at(torch.zeros(15))
    assert zero.loss() == pytest.approx(np.log(3))
    assert problem.theta.any()
    with pytest.raises(ValueError, match=r"expected theta of shape \(15,\)"):
        problem.at(torch.zeros(3))


def test_unflatten():
    problem = lg.Problem(nn.Linear(4, 3), "cross_entropy", [data()])
    parts = problem.unflatten(problem.theta)
    assert {name: tuple(t.shape) for name, t in parts.items()} == {"weight": (3, 4), "bias": (3,)}
    assert torch.equal(parts["bias"], problem.model.bias)


def test_train_mode_uses_batch_statistics_and_leaves_buffers():
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    model.eval()
    x, y = data()
    before = copy.deepcopy(model.state_dict())
    problem = lg.Problem(model, "cross_entropy", [(x, y)], mode="train")
    value = problem.loss()
    problem.gradient()
    assert problem.loss() == value
    assert all(torch.equal(before[key], now) for key, now in model.state_dict().items())
    assert not model.training
    model.train()
    assert value == pytest.approx(F.cross_entropy(model(x), y).item(), rel=1e-5)


def test_weights_reached_by_two_paths_come_out_as_they_were():
    model = TwoPaths()
    before = reference.fingerprint(model)
    problem = lg.Problem(model, "cross_entropy", [data()])
    lg.sharpness(problem)
    after = reference.fingerprint(model)
    assert before[:3] == after[:3]
    assert len(problem.network.names) == 4


def test_random_state_of_all_generators_is_kept(unchecked):
    x, y = data(20)
    generator = torch.Generator().manual_seed(3)
    loaders = [
        DataLoader(TensorDataset(x, y), batch_size=6, shuffle=True),
        DataLoader(TensorDataset(x, y), batch_size=6, shuffle=True, generator=generator),
    ]
    for loader in loaders:
        problem = lg.Problem(nn.Linear(4, 3), "cross_entropy", loader)
        before = torch.get_rng_state(), generator.get_state(), random.getstate()
        first, again = problem.gradient(), problem.gradient()
        assert torch.equal(first, again)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert torch.equal(generator.get_state(), before[1])
        assert random.getstate() == before[2]


def test_augmentation_is_the_same_in_every_pass(unchecked):
    class Noisy(Dataset):
        def __len__(self):
            return 8

        def __getitem__(self, i):
            noise = torch.rand(4) + np.random.rand() + random.random()
            return noise.float(), i % 3

    problem = lg.Problem(nn.Linear(4, 3), "cross_entropy", DataLoader(Noisy(), batch_size=3))
    assert lg.sharpness(problem) == lg.sharpness(problem)
    A = lg.Hessian(problem, memory_budget=0)
    V = torch.ones(15, 1)
    assert torch.equal(A @ V, A @ V)


def test_works_under_inference_mode_and_autocast():
    model, batch = nn.Linear(4, 3), data()
    expected = lg.sharpness(lg.Problem(model, "cross_entropy", [batch]))
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        inside = [(batch[0].clone(), batch[1].clone())]
        assert lg.sharpness(lg.Problem(model, "cross_entropy", inside)).value == expected.value


def test_inputs_take_the_type_of_the_parameters():
    x, y = data()
    model = nn.Linear(4, 3).double()
    assert lg.Problem(model, "cross_entropy", [(x, y)]).gradient().dtype == torch.float64


# take


def test_take_cuts_the_last_batch():
    x, y = data(10)
    batches = [(x[:4], y[:4]), (x[4:8], y[4:8]), (x[8:], y[8:])]
    model = nn.Linear(4, 3)
    problem = lg.Problem(model, "cross_entropy", batches)
    for n in (1, 4, 6, 10):
        expected = lg.Problem(model, "cross_entropy", [(x[:n], y[:n])])
        assert problem.take(n).loss() == pytest.approx(expected.loss(), rel=1e-6)
    with pytest.raises(ValueError, match=r"take\(11\): the data has only 10 examples"):
        problem.take(11).loss()
    with pytest.raises(ValueError, match="at least one example, got n=0"):
        problem.take(0)


# Errors


def problem_with(model=None, loss="cross_entropy", batches=None, **options):
    model = nn.Linear(4, 3) if model is None else model
    return lg.Problem(model, loss, batches or [data()], **options)


def shape_of(outputs, batch):
    return outputs.sum(1), len(outputs)


def not_a_pair(outputs, batch):
    return outputs.sum()


def no_terms(outputs, batch):
    return outputs.sum(), 0


def infinite(outputs, batch):
    return outputs.sum() / 0.0, len(outputs)


def test_empty_data():
    with pytest.raises(ValueError, match="expected at least one batch, got none"):
        lg.Problem(nn.Linear(4, 3), "cross_entropy", []).loss()
    with pytest.raises(ValueError, match=r"expected batch 0 to hold examples.*\(0, 4\)"):
        problem_with(batches=[data(0)]).loss()


def test_batches_that_are_used_up():
    with pytest.raises(TypeError, match=r"used up after one pass; pass a list or a DataLoader"):
        problem_with(batches=(data() for _ in range(2)))


def test_batches_that_change_from_pass_to_pass():
    generator = np.random.default_rng(0)

    class Shuffled:
        def __iter__(self):
            yield torch.tensor(generator.random((3, 4))).float(), torch.zeros(3).long()

    with pytest.raises(ValueError, match="the first batch of Shuffled is another one in every"):
        problem_with(batches=Shuffled())

    x, y = data(12)
    batches = [(x[:4], y[:4]), (x[4:8], y[4:8])]
    problem = problem_with(batches=batches)
    problem.loss()
    batches.append((x[8:], y[8:]))
    with pytest.raises(ValueError, match="batch 2 is not the one"):
        problem.gradient()
    del batches[1:]
    with pytest.raises(ValueError, match="expected 2 batches, as in an earlier pass, got 1"):
        problem.gradient()
    batches[:] = [(x[:4].flip(0), y[:4]), (x[4:8], y[4:8])]
    with pytest.raises(ValueError, match="batch 0 is not the one"):
        problem.gradient()


def test_a_loader_whose_iterator_is_in_use():
    loader = DataLoader(TensorDataset(*data()), num_workers=1, persistent_workers=True)
    with pytest.raises(ValueError, match="persistent_workers=True has one iterator"):
        problem_with(batches=loader)


def test_batches_of_another_form(unchecked):
    x, y = data()
    with pytest.raises(TypeError, match=r"got a tensor of shape .*goes in a list"):
        problem_with(batches=(x, y)).loss()
    with pytest.raises(TypeError, match=r"Linear takes \(input.* has 2 arguments for it.*forward="):
        problem_with(batches=[((x, y), y)]).loss()
    with pytest.raises(TypeError, match=r"Linear takes \(input.* has keywords \['x'\] for it"):
        problem_with(batches=[{"x": x, "labels": y}]).loss()
    with pytest.raises(
        TypeError, match=r"as \(inputs, targets\) or as a mapping, got a tuple of Te"
    ):
        problem_with(batches=[(x,)]).loss()
    with pytest.raises(TypeError, match="targets at 'labels' and at 'targets'; keep one, or say"):
        problem_with(batches=[{"input": x, "labels": y, "targets": y}]).loss()
    with pytest.raises(
        TypeError, match="got a dict with 'input', 'labels'; a single batch goes in"
    ):
        problem_with(batches={"input": x, "labels": y})
    with pytest.raises(TypeError, match="tuples, lists and mappings, got a ndarray in one"):
        problem_with(batches=[(x, y.numpy())]).loss()
    with pytest.raises(
        ValueError, match=r"'cross_entropy' compares .* batch 0 has NoneType; expected"
    ):
        problem_with(batches=[{"input": x}]).loss()


def test_losses_of_another_form(unchecked):
    with pytest.raises(TypeError, match=r"its sum as a scalar tensor, got \(6,\)"):
        problem_with(loss=shape_of).loss()
    with pytest.raises(TypeError, match=r"'not_a_pair' to return \(sum, count\), got Tensor"):
        problem_with(loss=not_a_pair).loss()
    with pytest.raises(ValueError, match="to have terms, got a count of 0"):
        problem_with(loss=no_terms).loss()
    with pytest.raises(ValueError, match=r"expected loss to be one of 'cross_entropy'"):
        problem_with(loss="entropy")
    with pytest.raises(TypeError, match="got CrossEntropyLoss with reduction 'none'"):
        problem_with(loss=nn.CrossEntropyLoss(reduction="none"))
    with pytest.raises(TypeError, match=r"got TripletMarginLoss .* Pass a function"):
        problem_with(loss=nn.TripletMarginLoss())
    with pytest.raises(ValueError, match="label_smoothing= goes with"):
        problem_with(loss=nn.MSELoss(), label_smoothing=0.1)
    with pytest.raises(ValueError, match=r"expected label_smoothing in \[0, 1\]"):
        problem_with(label_smoothing=1.5)
    with pytest.raises(ValueError, match=r"outputs \(6, 3\) and targets \(6,\)"):
        problem_with(loss="squared_error").loss()
    with pytest.raises(ValueError, match="MSELoss compares outputs and targets of one shape"):
        problem_with(loss=nn.MSELoss()).loss()


def test_losses_that_are_not_for_here(unchecked):
    with pytest.raises(TypeError, match=r"got cross_entropy, which is neither"):
        problem_with(loss=F.cross_entropy)
    with pytest.raises(TypeError, match=r"got MSELoss, which is neither"):
        problem_with(loss=nn.MSELoss)


def test_targets_that_do_not_fit():
    tokens = torch.randn(2, 5, 4), torch.randint(3, (2, 5))
    with pytest.raises(
        ValueError, match=r"outputs \(2, 5, 3\) and targets \(2, 5\).*'token_cross_entropy'"
    ):
        problem_with(batches=[tokens]).loss()
    x, y = data()
    with pytest.raises(ValueError, match=r"targets \(6,\) in torch\.int32"):
        problem_with(batches=[(x, y.int())]).loss()


def test_all_targets_ignored():
    with pytest.raises(ValueError, match="are all targets ignored"):
        problem_with(batches=[(torch.ones(2, 4), torch.tensor([-100, -100]))]).loss()


@pytest.mark.parametrize("measure", [lg.Problem.loss, lg.Problem.gradient, lg.sharpness])
def test_non_finite_outputs_and_losses(measure):
    model = nn.Linear(4, 3)
    model.bias.data.fill_(float("nan"))
    with pytest.raises(lg.NonFiniteError, match="output of the model is NaN or infinite"):
        measure(problem_with(model))
    with pytest.raises(lg.NonFiniteError, match="the loss is NaN or infinite"):
        measure(problem_with(loss=infinite))


def test_models_that_cannot_be_measured(unchecked):
    with pytest.raises(TypeError, match=r"expected model to be a torch\.nn\.Module, got str"):
        lg.Problem("model", "cross_entropy", [data()])
    with pytest.raises(ValueError, match="no trainable parameters"):
        problem_with(nn.Linear(4, 3).requires_grad_(False))
    with pytest.raises(TypeError, match=r"expected real parameters, got some in torch\.complex64"):
        problem_with(nn.Linear(4, 3, dtype=torch.complex64))
    with pytest.raises(TypeError, match=r"float32 or torch\.float64, got torch\.bfloat16"):
        problem_with(dtype=torch.bfloat16)
    holding = nn.Linear(4, 3)
    holding.cache = (number for number in ())
    with pytest.raises(ValueError, match=r"could not be copied with copy\.deepcopy"):
        problem_with(holding)
    with pytest.raises(TypeError, match="a TorchScript module cannot be evaluated at other"):
        problem_with(Scripted())
    with pytest.raises(ValueError, match=r"the model has lazy parameters \(weight\)"):
        problem_with(nn.LazyLinear(3))
    with pytest.raises(TypeError, match=r"expected a Problem\(model, loss, batches\), got Linear"):
        lg.sharpness(nn.Linear(4, 3))
    with pytest.raises(ValueError, match="expected mode to be 'eval' or 'train'"):
        problem_with(mode="test")
    with pytest.raises(ValueError, match="expected mode to be 'eval' or 'train'"):
        problem_with().in_mode("training")


class Scripted(torch.jit.ScriptModule):
    """Without what torch.jit.script warns of."""


class Listed(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 3)
        self.weights = [self.inner.weight]

    def forward(self, x):
        return x @ self.weights[0].T + self.inner.bias


class Held(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 3)
        self.function = lambda x: self.inner(x)

    def forward(self, x):
        return self.function(x)


class Counting(nn.Linear):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x) * self.calls


class Lucky(nn.Linear):
    def __init__(self, draw):
        super().__init__(4, 3)
        self.draw = draw

    def forward(self, x):
        return super().forward(x) * (1 + self.draw())


class Small(Counting):
    """Of outputs that are small, all of them."""

    def forward(self, x):
        return 1e-7 * super().forward(x)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Listed(), "are not reached as parameters"),
        (Held(), "are not reached as parameters"),
        (Counting(4, 3), r"two evaluations of the model .* differ"),
        (Small(4, 3), r"two evaluations of the model .* differ"),
        (Lucky(np.random.default_rng(0).random), r"two evaluations of the model .* differ"),
        (Lucky(lambda: random.random()), "the model drew random numbers"),
        (Lucky(lambda: np.random.rand()), "the model drew random numbers"),
    ],
)
def test_models_that_are_not_functions_of_their_parameters(model, message, unchecked):
    for measure in (lg.Problem.loss, lg.Problem.gradient, lg.jacobian_norms):
        with pytest.raises(ValueError, match=message):
            measure(problem_with(model))


def test_operations_without_second_derivatives():
    class Model(nn.Linear):
        def forward(self, x):
            return CubeOnce.apply(super().forward(x))

    problem = problem_with(Model(4, 3), "squared_error", [(torch.ones(2, 4), torch.zeros(2, 3))])
    assert problem.gradient().any()
    for matrix in (lg.Hessian, lg.Residual):
        with pytest.raises(ValueError, match="an operation without second derivatives"):
            matrix(problem) @ torch.ones(15)
    assert (lg.GaussNewton(problem) @ torch.ones(15)).any()


def test_models_that_return_something_else(unchecked):
    class Pair(nn.Linear):
        def forward(self, x):
            return super().forward(x), x

    with pytest.raises(TypeError, match=r"to return a tensor, .* got tuple; say which"):
        problem_with(Pair(4, 3)).loss()


def test_dropout_is_refused_in_train_mode_only():
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5))
    assert problem_with(model).loss() > 0
    problem = problem_with(model, mode="train")
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match="drew random numbers in mode='train'"):
        problem.loss()
    assert torch.equal(torch.get_rng_state(), state)


def test_repr():
    assert repr(problem_with()) == "Problem(Linear, 'cross_entropy', P=15, mode='eval')"
