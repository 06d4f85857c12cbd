"""What is known of a model from an earlier problem, and what has to be found out again."""

import copy
from collections import UserDict
from functools import partial
from typing import ClassVar

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.problem.first_look import FEW
from lossgeom.problem.model_facts import Key
from lossgeom.problem.remembered import FORMS, _remembered, facts_of
from lossgeom.trust.trial import DerivativeError
from tests import reference
from tests.problem.test_first_look import Centred, Clamped, Keeping, Steps, data, mlp
from tests.trust.test_doctor import Hidden

X, Y = torch.ones(4, 3), torch.zeros(4, 2)


class Halved(nn.Module):
    """Has switches of many kinds."""

    def __init__(self):
        super().__init__()
        self.layer, self.factor = nn.Linear(3, 2), 0.5
        self.register_buffer("switch", torch.tensor(1.0))

    def forward(self, x):
        return self.factor * self.layer(x)


def hook(module, args, output):
    return output


def other_forward(self, x):
    return self.layer(x)


def sums(outputs, batch):
    return (outputs - batch.targets).square().sum(), len(outputs)


def run(problem, found):
    model, at, batch = problem.model, problem.evaluation, problem.first_batch()
    facts_of(model, at, batch).known(Key(run), lambda: found.append(problem.mode))


def problem_of(model, loss="squared_error", inputs=X, **options):
    return lg.Problem(model, loss, [(inputs, Y.to(options.get("dtype")))], **options)


def test_another_problem_of_the_same_model_knows_it():
    model, found = Halved(), []
    run(problem_of(model), found)
    run(problem_of(model), found)
    with torch.no_grad():
        model.layer.weight.mul_(2)
    run(problem_of(model, inputs=torch.zeros(9, 3)[:4]), found)
    assert len(found) == 1
    run(problem_of(copy.deepcopy(model)), found)
    assert len(found) == 2


CHANGES = {
    "setting": lambda model: setattr(model, "factor", 0.25),
    "part": lambda model: setattr(model, "layer", nn.Sequential(model.layer)),
    "switch": lambda model: model.switch.zero_(),
    "hook": lambda model: model.layer.register_forward_hook(hook),
    "frozen": lambda model: model.layer.bias.requires_grad_(False),
    "code": lambda model: setattr(model, "forward", partial(other_forward, model)),
    "class": lambda model: setattr(model, "__class__", type("Own", (Halved,), {})),
    "size": lambda model: setattr(model, "num_features", 3),
    "differentiable": lambda model: model.switch.requires_grad_(),
}


@pytest.mark.quick
@pytest.mark.parametrize("change", CHANGES)
def test_a_model_that_was_changed_is_looked_at_again(change):
    model, found = Halved(), []
    run(problem_of(model), found)
    CHANGES[change](model)
    run(problem_of(model), found)
    assert len(found) == 2


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "train"},
        {"loss": sums},
        {"loss": nn.MSELoss()},
        {"forward": lambda model, batch: model(batch[0])},
        {"dtype": torch.float64},
        {"autocast": torch.bfloat16},
        {"parameters": "layer.weight"},
        {"seed": 0},
        {"inputs": torch.ones(4, 1, 3)},
        {"target": 1},
    ],
)
def test_other_forms_of_a_problem_are_looked_at_again(options):
    model, found = Halved(), []
    run(problem_of(model), found)
    run(problem_of(model, **options), found)
    assert len(found) == 2


@pytest.mark.parametrize("form", [dict, UserDict])
def test_batches_of_other_keys_or_words_are_looked_at_again(form):
    class Named(Halved):
        def forward(self, x=None, z=None, name=""):
            return super().forward(z if x is None else x)

    model, found = Named(), []
    for key, name in (("x", "a"), ("x", "a"), ("z", "a"), ("x", "b"), ("z", "a")):
        batch = form({key: X, "name": name, "labels": Y})
        run(lg.Problem(model, "squared_error", [batch]), found)
    assert len(found) == 3


@pytest.mark.parametrize("own", [{"loss": sums}, {"forward": lambda model, batch: model(batch[0])}])
def test_nothing_is_remembered_of_code_around_the_model(own):
    model, found = Halved(), []
    for _ in range(2):
        run(problem_of(model, **own), found)
    assert len(found) == 2


def test_nothing_is_remembered_under_hooks_on_all_modules():
    model, found = Halved(), []
    run(problem_of(model), found)
    handle = nn.modules.module.register_module_forward_hook(hook)
    for _ in range(2):
        run(problem_of(model), found)
    handle.remove()
    run(problem_of(model), found)
    assert len(found) == 3


def test_nothing_is_remembered_of_parametrized_modules():
    model, found = Halved(), []
    nn.utils.parametrizations.spectral_norm(model.layer)
    for _ in range(2):
        run(problem_of(model), found)
    assert len(found) == 2


def test_only_the_last_forms_are_remembered():
    model, found = Halved(), []
    for factor in [*range(FORMS), 0, FORMS, 0, 1]:
        model.factor = factor
        run(problem_of(model), found)
    assert len(found) == FORMS + 2
    assert len(_remembered[model]) == FORMS


def test_an_error_is_no_fact():
    model, calls = Halved(), []

    def find():
        calls.append(1)
        raise ValueError("no such thing")

    for _ in range(2):
        at = problem_of(model)
        with pytest.raises(ValueError, match="no such thing"):
            facts_of(model, at.evaluation, at.first_batch()).known(Key(run), find)
    assert len(calls) == 2


def test_a_wrong_derivative_is_found_in_a_model_that_was_right():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    lg.sharpness(problem_of(model))
    model[1] = Hidden()
    for _ in range(2):
        with pytest.raises(DerivativeError, match="second derivative"):
            lg.sharpness(problem_of(model))


# The look at a model that is known


class Sized(nn.Module):
    """Notes how many examples it is called with, in a list of its class, which is not copied."""

    sizes: ClassVar[list[int]] = []

    def forward(self, x):
        Sized.sizes.append(len(x))
        return x


def looked_at(model, **options):
    """A problem that was looked at, and the numbers of examples of each evaluation."""
    Sized.sizes.clear()
    problem = lg.Problem(model, "cross_entropy", [data()], **options)
    problem.first_batch()
    return problem, list(Sized.sizes)


def known(*middle, **options):
    model = mlp(Sized(), *middle)
    looked_at(model, **options)
    return model


@pytest.mark.quick
@pytest.mark.parametrize("mode", [None, "eval"])
def test_a_known_model_is_looked_at_on_few_examples(mode):
    model = mlp(Sized(), nn.LayerNorm(5))
    first, sizes = looked_at(model, mode=mode)
    assert max(sizes) == 12
    second, sizes = looked_at(model, mode=mode)
    assert max(sizes) == FEW
    assert first.evaluation.facts.first_look == second.evaluation.facts.first_look
    assert first.loss() == second.loss()
    for other in ({"mode": "train"}, {"autocast": torch.bfloat16}, {"dtype": torch.float64}):
        assert max(looked_at(model, **other)[1]) == 12
    assert max(looked_at(copy.deepcopy(model), mode=mode)[1]) == 12


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(5), nn.Dropout(0.5), Centred()])
def test_what_has_to_be_said_is_said_of_all_examples_again(layer):
    model = known(layer)
    first = looked_at(model)[0].evaluation.facts.first_look
    assert first.training or first.mixed
    again, sizes = looked_at(model)
    assert max(sizes) == 12
    assert again.evaluation.facts.first_look == first


class Gated(nn.Module):
    """Takes the mean of the batch off, as far as a number says, or in train mode alone."""

    def __init__(self, always):
        super().__init__()
        self.gate, self.always = nn.Parameter(torch.zeros(2)), always

    def forward(self, x):
        return x - self.gate[0] * x.mean(0) * (self.always or self.training)


@pytest.mark.parametrize("always", [True, False])
def test_what_depends_on_numbers_is_seen_again(always):
    model = known(gated := Gated(always))
    problem, sizes = looked_at(model)
    assert max(sizes) == FEW
    assert problem.notes == ()
    nn.init.ones_(gated.gate)
    problem, sizes = looked_at(model)
    assert max(sizes) == 12
    if always:
        assert problem.evaluation.facts.first_look.mixed
    else:
        assert "on the first batch the loss is" in problem.notes[0]
    assert looked_at(model, mode="eval")[0].unset_mode is None


def test_a_known_model_whose_outputs_are_nan_by_now():
    model = known(nn.LayerNorm(5))
    nn.init.constant_(model[0].weight, float("nan"))
    problem, _ = looked_at(model)
    assert problem.notes == ()
    with pytest.raises(lg.NonFiniteError):
        problem.loss()


def centred(module, args):
    return args[0] - args[0].mean(0)


CHANGED = {
    "part": (lambda model: model.insert(2, Steps()), "two evaluations of the model"),
    "forward": (lambda model: setattr(model[2], "forward", Steps().forward), "two evaluations"),
    "of its size": (lambda model: model.insert(2, Keeping()), "two evaluations of the model"),
    "writes": (lambda model: model.append(Written()), "writes to its parameters"),
    "differentiable": (lambda model: model[2].shift.requires_grad_(), "tensors that require grad"),
    "hook": (lambda model: model[2].register_forward_pre_hook(centred), None),
    "class": (lambda model: setattr(model[2], "__class__", Centred), None),
    "tensors in a list": (lambda model: setattr(model[2], "others", [X]), None),
    "attribute": (lambda model: setattr(model[2], "factor", 2.0), None),
    "buffer": (lambda model: setattr(model[2], "shift", torch.ones(1)), None),
    "frozen": (lambda model: model[0].bias.requires_grad_(False), None),
}


class Written(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = Clamped(always=True)
        self.layer.layer = nn.Linear(3, 3)

    def forward(self, x):
        return self.layer(x)


class Shifted(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("shift", torch.ones(5))

    def forward(self, x):
        return x + self.shift


@pytest.mark.quick
@pytest.mark.parametrize("change", CHANGED)
def test_a_known_model_that_was_changed_is_new(change):
    model = known(Shifted())
    act, said = CHANGED[change]
    act(model)
    if said is None:
        problem, sizes = looked_at(model)
        assert max(sizes) == 12
        assert problem.evaluation.facts.first_look.mixed == (change in ("hook", "class"))
        return
    for _ in range(2):
        with pytest.raises(ValueError, match=said):
            looked_at(model)


class OfClass(nn.Module):
    """Is switched by its class, which is no setting of the module."""

    keeps = mixes = False
    calls = 0.0

    def forward(self, x):
        self.calls += OfClass.keeps
        return x + self.calls - OfClass.mixes * x.mean(0)


def test_what_no_setting_shows_is_seen_on_few_examples(monkeypatch):
    model = known(OfClass())
    assert max(looked_at(model)[1]) == FEW
    monkeypatch.setattr(OfClass, "mixes", True)
    assert looked_at(model)[0].evaluation.facts.first_look.mixed
    monkeypatch.setattr(OfClass, "mixes", False)
    monkeypatch.setattr(OfClass, "keeps", True)
    with pytest.raises(ValueError, match="two evaluations of the model"):
        looked_at(model)


class Whole(nn.Module):
    """Runs on batches of twelve alone."""

    def forward(self, x):
        return x.view(12, 5)


def test_a_known_model_that_runs_on_no_fewer_examples():
    model = known(Whole())
    assert looked_at(model)[0].loss() > 0


def test_a_look_at_a_known_model_leaves_no_trace(unchecked):
    model = known(Shifted(), nn.BatchNorm1d(5), mode="eval")
    before = reference.fingerprint(model)
    problem, sizes = looked_at(model, mode="eval")
    assert max(sizes) == FEW
    assert reference.fingerprint(model) == before
    copied = lg.Problem(model, "cross_entropy", [data()]).network
    for (name, own), there in zip(
        problem.network.module.state_dict().items(),
        copied.module.state_dict().values(),
        strict=True,
    ):
        assert torch.equal(own, there), name
    assert torch.equal(problem.theta, copied.theta)
