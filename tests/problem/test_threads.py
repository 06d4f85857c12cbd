"""Measurements in several threads, and threads that train beside one."""

import threading
from concurrent.futures import ThreadPoolExecutor, wait

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import lossgeom as lg
from tests.real_models.plain import fingerprint

pytestmark = pytest.mark.usefixtures("unchecked")
SECONDS = 60  # until a thread that waits for another is taken for dead


class Attending(nn.Module):
    """Attention, dropout and a parametrized weight: all that has state of the process."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.q, self.drop = nn.Linear(4, 4), nn.Dropout(0.2)
        self.o = parametrizations.weight_norm(nn.Linear(4, 3))

    def forward(self, x):
        q = self.q(x)[:, None, :]
        return self.o(self.drop(F.scaled_dot_product_attention(q, q, q)[:, 0] + x))


def data(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(12, 4, generator=generator), torch.randint(3, (12,), generator=generator)


def measured(problem):
    return lg.sharpness(problem, seed=0).value, problem.gradient(), lg.jacobian_norms(problem).max


def in_threads(*functions):
    barrier = threading.Barrier(len(functions), timeout=SECONDS)

    def run(function):
        barrier.wait()
        return function()

    with ThreadPoolExecutor(len(functions)) as pool:
        return [future.result(SECONDS) for future in [pool.submit(run, f) for f in functions]]


def test_threads_that_measure_wait_for_one_another():
    """Two problems of their own, and one that is shared at different parameters."""
    options = {"mode": "train", "seed": 0}
    models = [Attending(seed) for seed in range(2)]
    own = [lg.Problem(model, "cross_entropy", [data()], **options) for model in models]
    shared = [own[0].at(scale * own[0].theta) for scale in (0.5, 2)]
    problems = [*own, *shared]
    expected = [measured(problem) for problem in problems]
    torch.manual_seed(3)
    before = [fingerprint(model) for model in models]
    fresh = [p.at(p.theta) for p in problems]
    found = in_threads(*(lambda p=p: [measured(p) for _ in range(2)] for p in fresh))
    assert [fingerprint(model) for model in models] == before
    for twice, (sharpness, gradient, norm) in zip(found, expected, strict=True):
        for once in twice:
            assert once[0] == sharpness
            assert once[2] == norm
            assert torch.equal(once[1], gradient)


class Meanwhile:
    """Batches that let another thread do something while a measurement goes over them.

    When a problem is made of them, which looks at the first one, too, there is no function yet.
    """

    def __init__(self):
        self.function, self.results = None, []

    def __iter__(self):
        if self.function is not None:
            with ThreadPoolExecutor(1) as pool:
                self.results.append(pool.submit(self.function).result(SECONDS))
        yield data()


def trained(model, steps=3):
    """Weights after some steps of a model without randomness."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = data(1)
    for _ in range(steps):
        optimizer.zero_grad()
        with parametrize.cached():
            F.cross_entropy(model.eval()(x), y).backward()
        optimizer.step()
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def test_training_beside_a_measurement_goes_as_it_does_alone():
    """Also of the model that is measured."""
    expected = trained(Attending(0))
    model = Attending(0)
    batches = Meanwhile()
    problem = lg.Problem(model, "cross_entropy", batches)
    batches.function = lambda: trained(model, steps=1)
    before = problem.theta.clone()
    assert len({problem.at(before).loss() for _ in range(3)}) == 1
    assert torch.equal(problem.theta, before)
    torch.testing.assert_close(batches.results[-1], expected)


def test_a_cache_of_parametrizations_in_another_thread():
    """Neither sees the weights of the other, and the cache ends with its context."""
    model = Attending(0)
    weight = model.o.weight.detach().clone()

    def cached():
        with parametrize.cached():
            before = model.o.weight
            return before, model.o.weight

    problem = lg.Problem(model, "cross_entropy", Meanwhile())
    problem.batches.function = cached
    twice = problem.at(2 * problem.theta)
    expected = twice.loss()
    with parametrize.cached():
        held = model.o.weight
        assert lg.Problem(model, "cross_entropy", [data()]).at(twice.theta).loss() == expected
        assert model.o.weight is held
    assert parametrize._cache_enabled == 0
    assert all(a is b and torch.equal(a, weight) for a, b in problem.batches.results)


def test_what_another_thread_sees_of_a_measurement():
    """Random numbers and back ends are the process's: as the how-to says, and no more than that."""

    def seen():
        return (
            torch.rand(()).item(),
            torch.backends.cuda.flash_sdp_enabled(),
            torch.backends.mha.get_fastpath_enabled(),
            torch.is_grad_enabled(),
            torch.is_autocast_enabled("cpu"),
        )

    batches = Meanwhile()
    problem = lg.Problem(nn.Linear(4, 3), "cross_entropy", batches)
    batches.function = seen
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        problem.loss()
    drawn, *settings = batches.results[0]
    assert settings == [False, False, True, False]  # of attention; gradients are each thread's own
    assert torch.equal(torch.get_rng_state(), before)  # what was drawn meanwhile is forgotten
    assert drawn != torch.rand(()).item()  # and was of the measurement's numbers
    assert torch.backends.cuda.flash_sdp_enabled()
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_problem_is_not_made_while_another_thread_measures():
    """Its batches are drawn with the generators of the process."""
    order = []

    class Noted:
        def __iter__(self):
            order.append("made")
            yield data()

    with ThreadPoolExecutor(1) as pool:

        class Beside(Meanwhile):
            def __iter__(self):
                if self.function is not None:
                    self.results.append(pool.submit(self.function))
                    wait(self.results, timeout=0.3)
                    order.append("measured")
                yield data()

        batches = Beside()
        problem = lg.Problem(nn.Linear(4, 3), "cross_entropy", batches)
        batches.function = lambda: lg.Problem(nn.Linear(4, 3), "cross_entropy", Noted())
        problem.loss()
        batches.results[0].result(SECONDS)
    assert order[:2] == ["measured", "made"]


@pytest.mark.parametrize("says_float32", [False, True])
def test_the_default_type_that_another_thread_sees(says_float32):
    """That of the process, which is float64 where a model that says float32 is run in float64."""
    seen = []

    class Looking(nn.Linear):
        def forward(self, x):
            with ThreadPoolExecutor(1) as pool:
                default = pool.submit(torch.get_default_dtype).result(SECONDS)
            seen.append((x.dtype, default))
            return super().forward(x.float() if says_float32 else x)

    lg.Hessian(lg.Problem(Looking(4, 3), "cross_entropy", [data()])).dense()
    assert {default for dtype, default in seen if dtype == torch.float32} == {torch.float32}
    assert (torch.float64 in {default for _, default in seen}) == says_float32
    assert torch.get_default_dtype() == torch.float32


def test_a_measurement_inside_another_does_not_wait_for_itself():
    problem = lg.Problem(nn.Linear(4, 3), "cross_entropy", [data()])

    class Again:
        def __iter__(self):
            assert problem.loss() > 0
            yield data()

    assert lg.Problem(nn.Linear(4, 3), "cross_entropy", Again()).loss() > 0
