"""Models that are measured in another form than they are trained in."""

import copy
import functools
from types import MethodType

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

import lossgeom as lg
from tests.real_models.models import built
from tests.real_models.plain import Plain, check, direction, untouched

DATA = torch.Generator().manual_seed(0)
X = torch.randn(7, 4, generator=DATA, dtype=torch.float64)
Y = torch.randint(3, (7,), generator=DATA)
BATCHES = [(X[:5], Y[:5]), (X[5:], Y[5:])]


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 6), nn.Tanh())
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.body(x))


class TwoPaths(nn.Module):
    """The same layer under two names, and called twice."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.others = nn.ModuleDict({"again": self.first})
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.others["again"](torch.tanh(self.first(x)))))


class Mixed(nn.Module):
    """Narrow at first, and wide in the end."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.body(x)).double())


def problem_of(model, batches=BATCHES, **options):
    return lg.Problem(model, "cross_entropy", batches, **options)


def plain_of(model):
    return Plain(model, lambda m: m(X), lambda f: F.cross_entropy(f, Y))


def assert_same(ours, theirs):
    """Two problems that differ in their notes alone."""
    v = direction(theirs.theta)
    assert ours.network.names == theirs.network.names
    assert ours.loss() == theirs.loss()
    for matrix in (lg.Hessian, lg.GaussNewton):
        assert torch.equal(matrix(ours) @ v, matrix(theirs) @ v)
    assert lg.sharpness(ours) == lg.sharpness(theirs)


def test_two_paths_to_one_module(unchecked):
    model = built(TwoPaths)
    problem = problem_of(model)
    with untouched(model):  # bytes of the weights and all
        check(problem, plain_of(model))
        lg.sharpness(problem)
    assert problem.network.names == ("first.weight", "first.bias", "head.weight", "head.bias")


# Types


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types_are_measured_in_float32(dtype, unchecked):
    model = built(MLP).to(dtype)
    problem = problem_of(model)
    with untouched(model):
        assert_same(problem, problem_of(copy.deepcopy(model).float()))
    assert problem.theta.dtype == torch.float32
    assert problem.notes == (f"measured in torch.float32, in a copy of a model in {dtype}",)


def test_narrow_types_with_data_to_match():
    model = built(MLP).bfloat16()
    narrow = [(x.bfloat16(), y) for x, y in BATCHES]
    wide = [(x.float(), y) for x, y in narrow]
    assert_same(problem_of(model, narrow), problem_of(copy.deepcopy(model).float(), wide))


def test_a_mixture_is_measured_in_the_widest_type(unchecked):
    model = built(Mixed)
    model.body.float()
    problem = problem_of(model)
    with untouched(model):
        check(problem, plain_of(copy.deepcopy(model).double()))
    note = "measured in torch.float64, in a copy of a model in torch.float32"
    assert problem.notes == (note,)


# Wrappers


def compiled(model):
    return torch.compile(model, backend="eager")


def compiled_in_part(model):
    model.body = torch.compile(model.body, backend="eager")
    return model


def compiled_in_parallel(model):
    return nn.DataParallel(compiled(compiled_in_part(model)))


WHOLE = "measured without torch.compile, which has no second derivatives"
PART = "body measured without torch.compile"
PARALLEL = "unwrapped from DataParallel"


@pytest.mark.parametrize(
    ("wrap", "notes"),
    [
        (compiled, (WHOLE,)),
        (compiled_in_part, (PART,)),
        (nn.DataParallel, (PARALLEL,)),
        (compiled_in_parallel, (PARALLEL, WHOLE, PART)),
    ],
)
@pytest.mark.parametrize("used", [False, True])
def test_wrappers(wrap, notes, used, unchecked):
    """Also where the wrapper has run, and so holds what it compiled."""
    model = wrap(built(MLP))
    if used:
        with torch.no_grad():
            model(X)
    problem = problem_of(model)
    with untouched(model):
        assert_same(problem, problem_of(built(MLP)))
    assert problem.notes == notes


class ConvertOutputsToFp32:
    """As accelerate has it, under the same name."""

    def __init__(self, model_forward):
        self.model_forward = model_forward
        functools.update_wrapper(self, model_forward)

    def __call__(self, *args):
        return self.model_forward(*args).float()


def prepared(model):
    """What Accelerator.prepare makes of a model in bf16, step by step."""
    model._original_forward = model.forward
    bound = isinstance(model.forward, MethodType)
    found = model.forward.__func__ if bound else model.forward
    converted = ConvertOutputsToFp32(torch.autocast("cpu", torch.bfloat16)(found))

    def forward(*args):
        return converted(*args)

    forward.__wrapped__ = converted
    model.forward = MethodType(forward, model) if bound else forward
    return model


def with_forward_of_its_own(model):
    model.forward = MethodType(lambda self, x: 2 * type(self).forward(self, x), model)
    return model


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("change", [lambda m: m, with_forward_of_its_own])
def test_the_autocast_of_accelerate_is_taken_off(change, times, unchecked):
    model = change(built(MLP).float())
    narrow = model
    for _ in range(times):
        narrow = prepared(narrow)
    apart = narrow(X.float()) - change(built(MLP).float())(X.float())
    assert apart.abs().max() > 1e-4  # it rounds
    problem = problem_of(narrow)
    with untouched(narrow):
        assert_same(problem, problem_of(change(built(MLP).float())))
    assert len(problem.notes) == 1
    assert "without the autocast that accelerate puts around" in problem.notes[0]


def test_a_forward_set_on_the_model_stays():
    scaled = problem_of(with_forward_of_its_own(built(MLP)))
    assert scaled.notes == ()
    assert scaled.loss() != problem_of(built(MLP)).loss()


@pytest.fixture
def process_group(tmp_path):
    dist.init_process_group("gloo", f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_distributed_data_parallel(process_group, unchecked):
    model = nn.parallel.DistributedDataParallel(built(MLP))
    F.cross_entropy(model(X), Y).backward()  # a training step, whose gradients stay
    problem = problem_of(model)
    with untouched(model):
        assert_same(problem, problem_of(built(MLP)))
    assert problem.notes == (
        "unwrapped from DistributedDataParallel; the data is this process's own",
    )
