"""A measurement that fails half-way leaves a real model, and the problem, as they were."""

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.lab.models import resnet18
from tests.real_models.hugging_face import batches_of, bert, encoded, gpt2
from tests.real_models.models import CATEGORIES, GPT, Classifier, built, split, text
from tests.real_models.plain import direction, untouched


def images():
    x = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return split([4, 2], x, CATEGORIES)


def tokens(labels=CATEGORIES):
    return split([4, 2], text()[0], labels)


CASES = {
    "resnet18": (lambda: resnet18(width=2), images, {"mode": "train"}),
    "lstm": (lambda: built(Classifier, nn.LSTM), tokens, {}),
    "gru": (lambda: built(Classifier, nn.GRU), tokens, {}),
    "gpt": (lambda: built(GPT, dropout=0.2), tokens, {"mode": "train", "seed": 0}),
    "gpt2": (gpt2, lambda: batches_of(encoded(text()[1]), [4, 2]), {}),
    "bert": (bert, lambda: batches_of(encoded(CATEGORIES), [4, 2]), {"mode": "train", "seed": 0}),
    "compiled": (lambda: torch.compile(built(GPT), backend="eager"), tokens, {}),
    "parallel": (lambda: nn.DataParallel(built(GPT)), tokens, {}),
}


class HalfWayError(RuntimeError):
    pass


def inputs(batch):
    return batch[0] if isinstance(batch, (tuple, list)) else next(iter(batch.values()))


class Loss:
    """Squares of the outputs, but an error at the second batch, as often as it is told."""

    def __init__(self, second):
        self.failures, self.second = 0, inputs(second)

    def __call__(self, outputs, batch):
        if self.failures and torch.equal(inputs(batch), self.second):
            self.failures -= 1
            raise HalfWayError
        return outputs.square().sum(), len(outputs)


def hessian(problem):
    return lg.Hessian(problem) @ direction(problem.theta)


def gauss_newton(problem):
    return lg.GaussNewton(problem) @ direction(problem.theta)


@pytest.mark.parametrize("case", CASES)
def test_no_trace(case, unchecked):
    build, data, options = CASES[case]
    model, loss = build(), Loss(data()[1])
    for parameter in list(model.parameters())[::2]:
        parameter.grad = torch.ones_like(parameter)
    model.train()
    list(model.modules())[-1].eval()
    problem = lg.Problem(model, loss, data(), **options)
    for measure in (lg.Problem.loss, lg.Problem.gradient, hessian, gauss_newton):
        with untouched(model):
            loss.failures = 1
            with pytest.raises(HalfWayError):
                measure(problem)
        with untouched(model):
            after_failure = measure(problem)
        fresh = measure(lg.Problem(model, loss, data(), **options))
        assert torch.equal(torch.as_tensor(after_failure), torch.as_tensor(fresh))
