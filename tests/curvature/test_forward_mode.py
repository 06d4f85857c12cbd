"""Products that are recorded, and batches in pieces, give the same as graphs of whole batches."""

import functools
import gc

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lossgeom as lg
from lossgeom.autodiff.recorded_products import Tape
from lossgeom.curvature import _memory, _parameter_matrix
from lossgeom.linalg import memory
from lossgeom.problem.model_facts import Key
from tests.problems import CASES

KINDS = (lg.Hessian, lg.GaussNewton, lg.Residual, lg.EmpiricalFisher, lg.MonteCarloFisher)
BY_GRAPHS = {"language_model", "lstm", "gru", "group_norm", "weight_norm", "old_weight_norm"}
WHOLE = {"batchnorm_train", "dropout"}

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture
def forced(monkeypatch):
    """Recordings and pieces of one example, whatever the work."""
    force(monkeypatch)


def force(monkeypatch):
    large = _memory.GraphSize(bytes_each=float(_memory.PIECE_BYTES), convolutions=True)
    monkeypatch.setattr(_memory, "graph_size", lambda *_: large)
    monkeypatch.setattr(memory, "free_memory", lambda device: None)
    monkeypatch.setattr(_memory, "LARGE_TAPE", 2**40)


def forward_mode(A) -> bool | None:
    key = Key(type(A), A.problem.network.names)
    return A.problem.evaluation.facts.known(key, lambda: None)


def vectors(P: int, k: int = 3) -> torch.Tensor:
    return torch.randn(P, k, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@functools.cache
def problem_of(case):
    """One for all kinds, which use each other's first look at the model."""
    return case.problem()


# The other kinds share what depends on the model with these two.
PAIRS = [(case, KINDS[0]) for case in CASES] + [(case, KINDS[1]) for case in CASES[::2]]
PAIRS += [
    (case, kind)
    for case in CASES[::4]
    for kind in KINDS[2:]
    if kind is not lg.MonteCarloFisher or case.problem().criterion.likelihood is not None
]


@pytest.mark.parametrize(
    ("case", "kind"), PAIRS, ids=[f"{case.name}-{kind.__name__}" for case, kind in PAIRS]
)
def test_agrees_with_graphs_of_whole_batches(case, kind, monkeypatch):
    problem = problem_of(case)
    V = vectors(problem.theta.numel())
    expected = kind(problem) @ V
    force(monkeypatch)
    budget = None
    for _ in range(2):
        A = kind(problem, memory_budget=budget)
        for product in (A @ V, torch.stack([A @ v for v in V.unbind(1)], 1)):
            torch.testing.assert_close(
                product, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max())
            )
        budget = A.memory.least + 1500
    used = forward_mode(A)
    assert used == (case.name not in BY_GRAPHS) or kind is not lg.Hessian


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_batches_are_cut_where_examples_are_independent(case, forced):
    problem = problem_of(case)
    whole = case.name in WHOLE or problem.criterion.likelihood is None
    hessian = lg.Hessian(problem)
    hessian @ vectors(problem.theta.numel())
    examples = sum(problem.data.sizes)
    pieces = len(hessian._kept._linear)
    assert pieces == (len(problem.data.sizes) if whole else examples)


def contrastive(outputs, batch):
    logits = outputs @ outputs.T
    return F.cross_entropy(logits, torch.arange(len(outputs)), reduction="sum"), len(outputs)


def mean_of_a_batch(outputs, batch):
    return F.cross_entropy(outputs, batch[1]), 1


@pytest.mark.parametrize("loss", [contrastive, mean_of_a_batch])
def test_losses_that_bring_examples_together_are_measured_whole(loss, forced):
    data = [(torch.randn(6, 3).double(), torch.arange(6) % 2)]
    model = nn.Linear(3, 2).double()
    hessian = lg.Hessian(lg.Problem(model, loss, data, check=False))
    whole = torch.autograd.functional.hessian(
        lambda w: torch.div(*loss(data[0][0] @ w.T + model.bias, data[0])),
        model.weight.detach(),
    )
    torch.testing.assert_close(hessian.dense()[:6, :6], whole.reshape(6, 6))
    assert len(hessian._kept._linear) == 1


class Crowd(nn.Module):
    """Examples meet in a way that two of them, or this very point, do not show."""

    def __init__(self, how):
        nn.Module.__init__(self)
        self.how, self.body, self.head = how, nn.Linear(3, 4), nn.Linear(4, 2)
        nn.init.zeros_(self.head.weight)

    def forward(self, x):
        h = self.body(x).tanh()
        if self.how == "capacity":  # as of an expert, which takes the first 4
            h = torch.where((torch.arange(len(h)) < 4)[:, None], h, h.detach())
        if self.how == "mean":  # hidden by the head of zeros
            h = h - h.mean(0)
        if self.how == "groups":
            h = h.view(-1, 4, 4).flip(1).reshape(-1, 4)
        return self.head(h)


@pytest.mark.parametrize("how", ["capacity", "mean", "groups"])
@pytest.mark.parametrize("kind", KINDS[:4], ids=lambda kind: kind.__name__)
def test_models_that_bring_examples_together_are_measured_whole(how, kind, monkeypatch):
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)).double()
    problem = lg.Problem(
        Crowd(how).double(), "cross_entropy", [(x, torch.arange(8) % 2)], check=False
    )
    V = vectors(problem.theta.numel())
    expected = kind(problem) @ V
    force(monkeypatch)
    torch.testing.assert_close(kind(problem.at(problem.theta)) @ V, expected)


class Late(nn.Module):
    """Switches gradients off, from some example on."""

    def __init__(self):
        nn.Module.__init__(self)
        self.body, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        h = self.body(x).tanh()
        with torch.no_grad():
            scale = torch.where(x[:, :1].abs() > 0.5, h.norm(dim=1, keepdim=True), 1.0)
        return self.head(h * scale)


@pytest.mark.parametrize("kind", KINDS[:4], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("budget", [0, None])
def test_gradients_that_are_off_stay_off_in_forward_mode(kind, budget, monkeypatch):
    x = torch.randn(9, 3, generator=torch.Generator().manual_seed(0)).double()
    x[:4, 0], x[4:, 0] = 0.1, 1.0
    problem = lg.Problem(Late().double(), "cross_entropy", [(x, torch.arange(9) % 2)], check=False)
    V = vectors(problem.theta.numel(), k=1)
    expected = kind(problem) @ V
    force(monkeypatch)
    A = kind(problem, memory_budget=budget)
    for _ in range(2):
        torch.testing.assert_close(A @ V, expected)
    assert forward_mode(A)
    assert torch._C._is_fwd_grad_enabled()


def test_what_is_known_of_some_parameters_is_not_taken_for_all(forced):
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(x):
            return x.sin()

        @staticmethod
        def setup_context(context, inputs, output):
            context.save_for_backward(*inputs)
            context.save_for_forward(*inputs)

        @staticmethod
        def backward(context, g):
            return g * context.saved_tensors[0].cos()

        @staticmethod
        def jvp(context, t):
            return 2 * t * context.saved_tensors[0].cos()

    class Body(nn.Module):
        def __init__(self):
            nn.Module.__init__(self)
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.b(Wrong.apply(self.a(x)))

    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).double()
    problem = lg.Problem(Body().double(), "cross_entropy", [(x, torch.arange(6) % 2)])
    head = lg.Hessian(problem.with_parameters("b.*"))
    head.dense()
    assert forward_mode(head)
    hessian = lg.Hessian(problem)
    hessian @ vectors(problem.theta.numel())
    assert not forward_mode(hessian)


def test_a_model_of_other_batches_than_the_first_falls_back(forced):
    """The first batch is recorded; another does what no recording can."""

    class Routed(nn.Module):
        def __init__(self):
            nn.Module.__init__(self)
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            h = self.a(x).tanh()
            if x[0, 0] > 0:
                h = F.group_norm(h, 2)
            return self.b(h)

    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).double()
    x[:3, 0], x[3:, 0] = -1.0, 1.0
    y = torch.tensor([0, 1, 1, 0, 1, 0])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Routed().double()
    problem = lg.Problem(model, "cross_entropy", [(x[:3], y[:3]), (x[3:], y[3:])])
    hessian = lg.Hessian(problem)
    dense = hessian.dense()
    assert forward_mode(hessian)
    eps = 1e-5

    def gradient(theta):
        return problem.at(theta).gradient()

    e = torch.eye(problem.theta.numel(), dtype=torch.float64)
    by_differences = torch.stack(
        [
            (gradient(problem.theta + eps * v) - gradient(problem.theta - eps * v)) / 2 / eps
            for v in e
        ]
    )
    torch.testing.assert_close(dense, by_differences, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(hessian.dense(), dense)


@pytest.mark.parametrize("convolutions", [True, False])
@pytest.mark.parametrize("limit", [0, _memory.TAPE_BYTES])
def test_convolutions_on_large_batches_are_recorded(convolutions, limit, monkeypatch):
    monkeypatch.setattr(_memory, "TAPE_BYTES", limit)
    first = nn.Conv1d(1, 2, 2) if convolutions else nn.Linear(3, 2)
    model = nn.Sequential(first, nn.Tanh(), nn.Flatten(), nn.LazyLinear(2))
    data = [(torch.ones(4, 1, 3), torch.tensor([0, 1, 1, 0]))]
    model(data[0][0])
    problem = lg.Problem(model, "cross_entropy", data)
    lg.Hessian(problem) @ torch.ones(problem.theta.numel())
    recorded = Key(lg.Hessian, problem.network.names) in problem.evaluation.facts
    assert recorded == (convolutions and limit == 0)


def test_another_problem_of_the_same_model_does_not_try_forward_mode_again(forced, monkeypatch):
    tried, agrees = [], lg.Hessian._agrees

    def noted(self, small, way):
        tried.append(type(self))
        return agrees(self, small, way)

    monkeypatch.setattr(lg.Hessian, "_agrees", noted)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).double()
    data, P = [(x, torch.arange(6) % 2)], 26
    products = [lg.Hessian(lg.Problem(model, "cross_entropy", data)) @ vectors(P) for _ in "12"]
    torch.testing.assert_close(*products)
    assert tried == [lg.Hessian]
    model[1] = nn.Sigmoid()
    lg.Hessian(lg.Problem(model, "cross_entropy", data)) @ vectors(P)
    assert tried == 2 * [lg.Hessian]


@pytest.mark.parametrize("check", [True, False])
def test_a_recording_of_a_large_model_is_not_tried_where_nothing_is_checked(
    check, forced, monkeypatch
):
    tried, agrees = [], lg.Hessian._agrees
    monkeypatch.setattr(_parameter_matrix, "WHOLE", 0)
    monkeypatch.setattr(lg.Hessian, "_agrees", lambda *given: tried.append(1) or agrees(*given))
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).double()
    problem = lg.Problem(model, "cross_entropy", [(x, torch.arange(6) % 2)], check=check)
    product = lg.Hessian(problem) @ vectors(26)
    assert len(tried) == check
    at, batch = problem.evaluation, problem.first_batch()
    dense = torch.autograd.functional.hessian(
        lambda theta: at.terms(at.outputs(theta, batch), batch)[0] / 6, problem.theta
    )
    torch.testing.assert_close(product, dense @ vectors(26))


def tapes() -> int:
    return sum(type(one) is Tape for one in gc.get_objects())


def test_recordings_go_with_the_matrix(forced):
    gc.collect()
    problem, before = CASES[0].problem(), tapes()
    hessian = lg.Hessian(problem)
    hessian @ vectors(problem.theta.numel())
    gc.collect()
    gc.disable()
    try:
        assert tapes() > before
        del hessian
        assert tapes() == before
    finally:
        gc.enable()
