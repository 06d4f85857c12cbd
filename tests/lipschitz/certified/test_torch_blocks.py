"""Normalisation and attention as torch has them, and their constants in closed form."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lossgeom as lg
from tests.conftest import without_checks
from tests.smoothness.networks import jacobians, norms, problem

MASK = torch.ones(3, 3).triu(1).bool()
WEIGHTS = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64)
ADDED = torch.linspace(-1, 1, 9).view(3, 3).masked_fill(MASK, -torch.inf)


class Function(nn.Module):
    """A function of values that a linear layer puts out, which may need modules."""

    def __init__(self, function, *modules):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.modules_ = nn.ModuleList(modules)
        self.function = function

    def forward(self, x):
        return self.function(self.linear(x), *self.modules_)


def attention(**settings):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.MultiheadAttention(4, 2, batch_first=True, **settings)


CASES = {
    "one mask": (lambda x, a: a(x, x, x, attn_mask=MASK)[0], attention()),
    "added mask": (lambda x, a: a(x, x, x, attn_mask=ADDED, need_weights=False)[0], attention()),
    "weights": (lambda x, a: a(x, x, 2 * x)[1], attention(bias=False)),
    "of each head": (lambda x, a: a(x, x, x, average_attn_weights=False)[1], attention()),
    "other sizes": (lambda x, a: a(x, x[:, :2, :3], x[:, 1:])[0], attention(kdim=3)),
    "seen": (lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=~MASK, scale=2.0),),
    "softmax of columns": (lambda x, s: F.softmax(x, 1) + s(x), nn.Softmax(-1)),
    "constants": (lambda x: torch.arange(6.0).view(2, 3).double() @ x @ torch.ones(4, 2).double(),),
    "broadcast": (lambda x: x[:, :1] * x - x[:, :, :1] + x,),
    "group": (lambda x: F.group_norm(x.transpose(1, 2), 2, WEIGHTS),),
    "group of vectors": (lambda x, g: g(x.flatten(1)), nn.GroupNorm(3, 12)),
    "instance": (lambda x, i: i(x), nn.InstanceNorm1d(3)),
    "attributes": (lambda x: x.mT + torch.arange(x.ndim, device=x.device).to(x.dtype),),
    "functions": (lambda x: F.rms_norm(F.layer_norm(x, (3, 4), eps=0.1), [4], eps=0.2),),
}


@pytest.mark.parametrize("name", CASES)
def test_the_layers_that_are_seen_have_the_jacobian_of_the_model(name):
    """At the examples; that values agree is checked whenever a graph is made."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        model, x = Function(*CASES[name]).double().eval(), torch.randn(2, 3, 4).double()
    with without_checks():
        local = lg.lipschitz_local(problem(model, x), 0.0)
    torch.testing.assert_close(local, norms(jacobians(model, x)), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("module", "constant"),
    [
        (nn.LayerNorm(4, eps=1e-4), 100.0),
        (nn.RMSNorm(4, eps=0.25), 2.0),
        (nn.LayerNorm((3, 4), eps=0.04, elementwise_affine=False), 5.0),
        (nn.GroupNorm(1, 3, eps=0.04), 5.0),
        (nn.Softmax(2), 0.5),
    ],
    ids=str,
)
def test_constants_everywhere_are_reached_next_to_constant_inputs(module, constant):
    """By normalisation at 0, and by a softmax of two equal numbers and others far below."""
    x = torch.zeros(1, 3, 4, dtype=torch.float64)
    if isinstance(module, nn.Softmax):
        x[:, :, 2:] = -50.0
    model = nn.Sequential(module, nn.Conv1d(3, 3, 1, groups=3, bias=False)).double()
    nn.init.constant_(model[1].weight, 2.0)
    p = problem(model, x)
    reached = norms(jacobians(model, x)).item()
    assert reached == pytest.approx(2 * constant)
    with without_checks():
        assert reached <= lg.lipschitz_global(p) <= reached * (1 + 1e-8)
        assert reached <= lg.lipschitz_local(p, 1.0).item() <= reached * (1 + 1e-8)


def test_weights_of_a_normalisation_scale_its_constant():
    module = nn.LayerNorm(3, eps=0.01).double()
    module.weight.data = torch.tensor([1.0, -4.0, 2.0], dtype=torch.float64)
    x = torch.ones(1, 3, dtype=torch.float64)
    bound = lg.lipschitz_global(problem(module, x))
    assert norms(jacobians(module, x)).item() <= bound <= 40 * (1 + 1e-8)


def test_attention_to_normalised_values_has_a_bound_everywhere():
    class Attending(nn.Module):
        def __init__(self, eps):
            super().__init__()
            self.norm, self.attention = nn.LayerNorm(4, eps=eps), attention()

        def forward(self, x):
            x = self.norm(x)
            return self.attention(x, x, x)[0]

    x = torch.randn(2, 3, 4, dtype=torch.float64)
    with without_checks():
        tame, steep = (
            lg.lipschitz_global(problem(Attending(eps).double(), x)) for eps in (1.0, 0.01)
        )
    assert steep == pytest.approx(10 * tame, rel=1e-6)
    assert norms(jacobians(Attending(1.0).double(), x)).max() < tame < 100


class Shifted(nn.Module):
    def __init__(self, mask, head):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1).double())
        self.mask, self.head = mask, head

    def forward(self, x):
        return self.head(self.factor * x, self.mask)


def test_a_large_finite_shift_is_not_taken_for_a_mask():
    """ReLU is steep beyond 10, though it is zero near the data."""
    model = Shifted(-1e31, lambda x, shift: torch.relu(1e30 * x + shift))
    model, x = model.double().eval(), torch.zeros(1, 1).double()
    with without_checks():
        assert lg.lipschitz_local(problem(model, x), 20.0).item() >= 1e30
        assert lg.lipschitz_global(problem(model, x)) >= 1e30


@pytest.mark.parametrize("shift", [-1e9, -1e30, torch.finfo(torch.float32).min])
def test_a_row_that_is_shifted_by_one_number_attends_as_before(shift):
    """Weights do not depend on what is added to all scores of a row, but for rounding."""
    mask = torch.zeros(3, 3).double()
    mask[1] = shift
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        x = 3 * torch.randn(2, 3, 4).double()
    model = Shifted(mask, lambda x, mask: (x @ x.mT + mask).softmax(-1) @ x).eval()
    free = Shifted(0 * mask, model.head).eval()
    with without_checks():
        local = lg.lipschitz_local(problem(model, x), 0.0)
    assert (norms(jacobians(model, x)) <= local).all()
    assert (norms(jacobians(free, x)) <= local).all()


def test_what_sees_nothing_is_refused():
    """Torch's functions do not agree on what it is."""
    nothing = torch.zeros(3, 3, dtype=torch.bool)
    nothing[0] = True
    model = Function(lambda x, a: a(x, x, x, None, False, nothing)[0], attention())
    x = torch.ones(1, 3, 4)
    with without_checks(), pytest.raises(TypeError, match="MultiheadAttention"):
        lg.lipschitz_local(lg.Problem(model, "squared_error", [(x, x)], check=False), 0.1)
