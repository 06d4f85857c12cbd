"""What is known of a model from an earlier problem, and what has to be found out again."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.problem.model_facts import Key
from lossgeom.trust.trial import DerivativeError, remembered
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
    remembered(problem, problem.first_batch(), Key(run), lambda: found.append(problem.mode))


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
    ],
)
def test_other_forms_of_a_problem_are_looked_at_again(options):
    model, found = Halved(), []
    run(problem_of(model), found)
    run(problem_of(model, **options), found)
    assert len(found) == 2


@pytest.mark.parametrize("own", [{"loss": sums}, {"forward": lambda model, batch: model(batch[0])}])
def test_nothing_is_remembered_of_code_around_the_model(own):
    model, found = Halved(), []
    for _ in range(2):
        run(problem_of(model, **own), found)
    assert len(found) == 2


def test_an_error_is_no_fact():
    model, calls = Halved(), []

    def find():
        calls.append(1)
        raise ValueError("no such thing")

    for _ in range(2):
        at = problem_of(model)
        with pytest.raises(ValueError, match="no such thing"):
            remembered(at, at.first_batch(), Key(run), find)
    assert len(calls) == 2


def test_a_wrong_derivative_is_found_in_a_model_that_was_right():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    lg.sharpness(problem_of(model))
    model[1] = Hidden()
    for _ in range(2):
        with pytest.raises(DerivativeError, match="second derivative"):
            lg.sharpness(problem_of(model))
