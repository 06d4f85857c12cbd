"""Which models have a first layer that is linear in the input, and what is said of others."""

import pytest
import torch
from torch import nn

import lossgeom as lg

x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


class Residual(nn.Linear):
    def forward(self, x):
        return super().forward(x) + 0.1 * x[:, :1]


class OneLeaks(nn.Linear):
    """By another path, at one example with a gradient that is small beside those of others."""

    def forward(self, x):
        z = super().forward(x)
        small = (x[:, :1] > 1.5).to(x)
        return z * (1 - small) + small * 1e-4 * (z + x[:, :2])


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x):
        return torch.tanh(self.a(x)) + self.b(x)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x):
        return self.linear(torch.tanh(self.linear(x)))


class Scaled(nn.Linear):
    def forward(self, x):
        return super().forward(x / 255)


class Squared(nn.Linear):
    """Puts out what its weight does not give."""

    def forward(self, x):
        return super().forward(x).square()


class ByPosition(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x):
        return self.linear(x.flatten(0, 1)).unflatten(0, x.shape[:2]).flatten(1)


def problem_of(model, x, **options):
    with torch.no_grad():
        return lg.Problem(model, "squared_error", [(x, model(x))], **options)


@pytest.mark.parametrize(
    ("model", "x", "message"),
    [
        (nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)), x + 1, r"goes to BatchNorm1d \(0\)"),
        (nn.Sequential(nn.ConvTranspose1d(1, 2, 2)), x[:, None], r"goes to ConvTranspose1d \(0\)"),
        (Branches(), x, r"goes to Linear \(a\), Linear \(b\)"),
        (Twice(), x, "'linear' to be applied once to all .* shared between positions or calls"),
        (nn.Linear(3, 2), x[:, None].expand(4, 2, 3), "shared between positions or calls"),
        (ByPosition(), x[:, None].expand(4, 2, 3), "'linear' to be applied once"),
        (Residual(3, 2), x, "another path, or a layer that does more than multiply"),
        (OneLeaks(3, 2), torch.cat([x, torch.tensor([[2.0, 1.0, 1.0]])]), "another path"),
        (Scaled(3, 2), x, "another path, or a layer that does more than multiply"),
        (Squared(3, 2), x, "another path, or a layer that does more than multiply"),
    ],
    ids=lambda part: type(part).__name__ if isinstance(part, nn.Module) else None,
)
def test_refused(unchecked, model, x, message):
    with pytest.raises(ValueError, match=message):
        lg.multiplicative_inequality(problem_of(model, x))


def test_other_arguments(unchecked):
    problem = problem_of(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1)), x)
    assert lg.multiplicative_inequality(problem, layer="0")[1].layer == "0"
    with pytest.raises(ValueError, match=r"that the model calls; got '2', and there are '0', '1'"):
        lg.multiplicative_inequality(problem, layer="2")
    with pytest.raises(ValueError, match="expected orders"):
        lg.multiplicative_inequality(problem, orders=())
    with pytest.raises(ValueError, match="expected a problem without autocast"):
        lg.multiplicative_inequality(problem_of(nn.Linear(3, 2), x, autocast=torch.bfloat16))
    tokens = lg.Problem(nn.Embedding(5, 2), "squared_error", [(torch.arange(4), torch.ones(4, 2))])
    with pytest.raises(ValueError, match="expected floating-point inputs"):
        lg.multiplicative_inequality(tokens)


def test_positive_inputs_that_pass_unchanged():
    """Layers that leave the input as it is may come before."""
    model = nn.Sequential(nn.Dropout(0.5), nn.Flatten(), nn.Linear(3, 2))
    with torch.random.fork_rng(devices=[]):
        problem = lg.Problem(model, "squared_error", [(x, torch.zeros(4, 2))])
    assert lg.multiplicative_inequality(problem)[1].layer == "2"
    positive = nn.Sequential(nn.ReLU(), nn.Linear(3, 2))
    assert lg.multiplicative_inequality(problem_of(positive, x.abs() + 1))[1].layer == "1"


def test_an_input_without_its_channel():
    class Images(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(1, 2, 2)

        def forward(self, x):
            return self.layer(x[:, None]).flatten(1)

    found = lg.multiplicative_inequality(problem_of(Images(), torch.randn(3, 4, 4)))
    assert found[1].layer == "layer"
    assert found[1].max_ratio <= 1 + 1e-5
