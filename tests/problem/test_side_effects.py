"""Hooks act during a measurement, and what they and modules write is as it was afterwards."""

from collections import defaultdict, deque
from contextlib import suppress
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules import module as all_modules

import lossgeom as lg
from lossgeom.problem.model_copy import deep_copy

pytestmark = pytest.mark.usefixtures("unchecked")
X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(12) % 3
STORE = []
LAST = None


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def measured(model):
    """Gradients, and products with a matrix whose graphs are kept, of two batches."""
    batches = [(X[:7], Y[:7]), (X[7:], Y[7:])]
    problem = lg.Problem(model, "cross_entropy", batches, check=False)
    problem.gradient()
    H = lg.Hessian(problem)
    return [H @ problem.theta for _ in range(2)][1]


def measured_otherwise(model):
    """By example, by attacks, and certified."""
    problem = lg.Problem(model, "cross_entropy", [(X[:7], Y[:7]), (X[7:], Y[7:])])
    lg.jacobian_norms(problem)
    lg.sharpness(problem)
    lg.logit_change(problem, 0.1, steps=2, restarts=2)
    with suppress(TypeError):  # where hooks change what torch.fx has seen
        lg.lipschitz_global(problem)


# What hooks write


class Recorder:
    def __init__(self):
        self.values, self.last, self.calls = {}, None, 0

    def hook(self, module, args, output):
        self.values.setdefault("out", []).append(output)
        self.last, self.calls = output, self.calls + 1

    def seen(self, *_):
        return [*self.values, self.last, self.calls]


Recorder.kept = []


class Slotted:
    __slots__ = ("last",)


def lists():
    kept = [X]
    return lambda m, i, o: kept.append(o), lambda: kept


def nested():
    kept = {"layers": defaultdict(list), "last": deque(maxlen=2)}

    def hook(module, args, output):
        kept["layers"][type(module)].append(output.detach())
        kept["last"].append(output)
        kept["new"] = output

    return hook, lambda: [*kept, *kept["layers"], *kept["last"]]


def cells():
    last, calls = None, 0

    def hook(module, args, output):
        nonlocal last, calls
        last, calls = output, calls + 1

    return hook, lambda: [last, calls]


def global_names():
    def hook(module, args, output):
        global LAST
        LAST = output
        STORE.append(output)

    return hook, lambda: [LAST, *STORE]


def through_a_helper():
    def keep(output):
        STORE.append(output)

    return lambda m, i, o: keep(o), lambda: STORE


def attributes():
    kept = SimpleNamespace(out=None)

    def hook(module, args, output):
        kept.out = kept.new = output

    return hook, lambda: [*sorted(vars(kept)), kept.out]


def attributes_by_string():
    kept = SimpleNamespace()
    return lambda m, i, o: setattr(kept, f"at_{id(m)}", o), lambda: list(vars(kept))


def slots():
    kept = Slotted()

    def hook(module, args, output):
        kept.last = output

    return hook, lambda: [hasattr(kept, "last")]


def of_a_class():
    def hook(module, args, output):
        Recorder.kept.append(output)
        Recorder.latest = output

    return hook, lambda: [*Recorder.kept, hasattr(Recorder, "latest")]


def methods():
    recorder = Recorder()
    return recorder.hook, recorder.seen


def methods_of_what_a_function_holds():
    recorder = Recorder()
    return lambda *args: recorder.hook(*args), recorder.seen


def partials():
    kept = []

    def hook(store, module, args, output):
        store.append(output)

    return partial(hook, kept), lambda: kept


def sums_in_place():
    total, array, seen = torch.zeros(()), np.zeros(1), set()

    def hook(module, args, output):
        total.add_(output.detach().sum())
        array[0] += 1
        seen.add(id(output))

    return hook, lambda: [total.item(), array[0], len(seen)]


def of_the_live_model():
    model = mlp()

    def hook(module, args, output):
        model.features = output
        model[0].features = output

    return hook, lambda: [hasattr(model, "features"), hasattr(model[0], "features")]


WRITERS = (
    lists, nested, cells, global_names, through_a_helper, attributes, attributes_by_string, slots,
    of_a_class, methods, methods_of_what_a_function_holds, partials, sums_in_place,
    of_the_live_model,
)  # fmt: skip
HOOKS = {
    "forward": lambda module, write: module.register_forward_hook(write),
    "before": lambda module, write: module.register_forward_pre_hook(
        lambda m, args: write(m, args, args[0])
    ),
    "backward": lambda module, write: module.register_full_backward_hook(
        lambda m, into, out: write(m, into, out[0])
    ),
    "all modules": lambda module, write: all_modules.register_module_forward_hook(write),
    "all modules, backward": lambda module, write: all_modules.register_module_full_backward_hook(
        lambda m, into, out: write(m, into, out[0])
    ),
}


def same(a, b):
    pairs = zip(a, b, strict=False)
    return len(a) == len(b) and all(x is y if torch.is_tensor(x) else x == y for x, y in pairs)


@pytest.mark.filterwarnings("ignore:Full backward hook")
@pytest.mark.parametrize(
    ("writer", "measure"), [*((w, measured) for w in WRITERS), (lists, measured_otherwise)]
)
def test_what_hooks_write_is_put_back(writer, measure):
    write, seen = writer()
    model = mlp()
    handles = [register(model[1], write) for register in HOOKS.values()]
    try:
        model(X.clone().requires_grad_()).sum().backward()  # the user's own call
        before = list(seen())
        measure(model)
        assert same(before, list(seen()))
    finally:
        for handle in handles:
            handle.remove()
        STORE.clear()
        Recorder.kept.clear()


def test_hooks_of_the_state_dict_do_not_act(tmp_path):
    model, kept = mlp(), []
    model.register_state_dict_post_hook(lambda *args: kept.append(args))
    problem = lg.Problem(model, "cross_entropy", [(X, Y)], check=False)
    few = lg.Geometry(k=1, matvecs=2, probes=2, steps=1)
    lg.measure(problem, lg.Record.create(tmp_path / "record", kind="measurement"), few)
    assert kept == []


# What hooks compute


def expected(model):
    """The Hessian, row by row."""
    theta = list(model.parameters())
    loss = F.cross_entropy(model(X), Y)
    gradients = torch.autograd.grad(loss, theta, create_graph=True, materialize_grads=True)
    flat = nn.utils.parameters_to_vector(gradients)
    rows = [torch.autograd.grad(g, theta, retain_graph=True, materialize_grads=True) for g in flat]
    return torch.stack([nn.utils.parameters_to_vector(r) for r in rows])


def steering(model):
    vector = torch.ones(5)
    model[1].register_forward_hook(lambda m, i, o: o + vector)


def scaling_before(model):
    model[2].register_forward_pre_hook(lambda m, args: (2 * args[0],))


def one_for_another(model):
    """A skip connection: one hook stores what another adds."""
    kept = {}
    model[0].register_forward_hook(lambda m, i, o: kept.update(out=o))
    model[1].register_forward_hook(lambda m, i, o: o + kept["out"])


def written_into_the_module(model):
    """As the older hooks of weight norm and spectral norm do."""
    model[2].register_forward_pre_hook(lambda m, i: setattr(m, "scale", m.weight.norm()))
    model[2].register_forward_hook(lambda m, i, o: o / m.scale)


@pytest.mark.quick
@pytest.mark.parametrize(
    "change", [steering, scaling_before, one_for_another, written_into_the_module]
)
def test_hooks_that_compute_act(change):
    model = mlp()
    change(model)
    theta = nn.utils.parameters_to_vector(model.parameters()).detach()
    product = expected(model) @ theta
    torch.testing.assert_close(measured(model), product, rtol=1e-4, atol=1e-6)


def test_a_loss_and_a_forward_may_read_what_a_hook_stores():
    features = {}

    def forward(model, batch):
        model(batch[0])
        return features["out"][:, :3]

    def loss(outputs, batch):
        penalty = features["out"].square().sum()
        return F.cross_entropy(outputs, batch[1], reduction="sum") + penalty, len(outputs)

    model = mlp()
    model[1].register_forward_hook(lambda m, i, o: features.update(out=o))
    features["out"] = kept = model[:2](X)
    problem = lg.Problem(model, loss, [(X, Y)], forward=forward)
    hidden = torch.tanh(model[0](X))
    plain = F.cross_entropy(hidden[:, :3], Y) + hidden.square().sum() / 12
    assert problem.loss() == pytest.approx(plain.item(), rel=1e-5)
    gradient = torch.autograd.grad(plain, model[0].weight)[0].flatten()
    torch.testing.assert_close(problem.gradient()[:20], gradient)
    assert features == {"out": kept}


@pytest.mark.parametrize("emptied", [False, True])
def test_matrices_see_what_a_loss_reads_of_a_hook(emptied):
    features = []

    def loss(outputs, batch):
        penalty = sum(out.square().sum() for out in features)
        if emptied:
            features.clear()
        return F.cross_entropy(outputs, batch[1], reduction="sum") + penalty, len(outputs)

    def whole(model, batch):
        hidden = model[:2](batch[0])
        return torch.cat([model[2](hidden), hidden], 1)

    def of_whole(outputs, batch):
        penalty = outputs[:, 3:].square().sum()
        return F.cross_entropy(outputs[:, :3], batch[1], reduction="sum") + penalty, len(outputs)

    model, plain = mlp(), mlp()
    model[1].register_forward_hook(lambda m, i, o: features.append(o))
    data = [(X[:5], Y[:5]), (X[5:], Y[5:])]
    problem = lg.Problem(model, loss, data)
    expected = lg.Hessian(lg.Problem(plain, of_whole, data, forward=whole))
    v = torch.ones(expected.shape[1])
    torch.testing.assert_close(lg.Hessian(problem) @ v, expected @ v, rtol=1e-4, atol=1e-6)
    assert features == []
    assert ["other than through the outputs" in note for note in problem.notes] == [True]


def test_hooks_that_keep_state_are_refused():
    """Putting back what is written does not hide that a call depends on the one before."""
    model, calls = mlp(), []

    def hook(module, args, output):
        calls.append(1)
        return output * len(calls)

    model[0].register_forward_hook(hook)
    with pytest.raises(ValueError, match=r"two evaluations .* differ"):
        lg.Problem(model, "cross_entropy", [(X, Y)]).loss()
    assert calls == []


def test_what_is_written_is_put_back_after_an_error():
    model, kept = mlp(), []

    def hook(module, args, output):
        kept.append(output)
        raise KeyError("of the hook")

    model[0].register_forward_hook(hook)
    with pytest.raises(KeyError, match="of the hook"):
        lg.Problem(model, "cross_entropy", [(X, Y)]).loss()
    assert kept == []


# What modules keep


class Keeping(nn.Module):
    """Keeps what it computes, wherever a module may."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.q, self.o = nn.Linear(4, 4), nn.Linear(4, 3)
        self.history, self.by_name, self.inner = [], {"maps": {}}, SimpleNamespace(pair=())

    def forward(self, x):
        self.attention = torch.softmax(self.q(x), -1)
        self.history.append(self.attention)
        self.by_name["maps"]["last"] = [self.attention]
        self.inner.pair = (self.attention.square().mean(), 0)
        return self.o(x * self.attention)


@pytest.mark.parametrize("called", [False, True])
@pytest.mark.parametrize("check", [False, True])
def test_models_that_keep_tensors_with_a_history(called, check):
    model = Keeping()
    if called:
        model(X)
    kept = len(model.history)
    problem = lg.Problem(model, "cross_entropy", [(X[:7], Y[:7]), (X[7:], Y[7:])], check=check)
    H = lg.Hessian(problem).dense()
    torch.testing.assert_close(H, expected(Keeping()), rtol=1e-4, atol=1e-6)
    assert len(model.history) == kept
    private = problem.network.module
    assert len(private.history) == kept  # no graph stays there, either
    again = deep_copy(private)
    tensors = [*again.history, *(again.by_name["maps"].get("last", []))]
    assert not any(tensor.requires_grad for tensor in tensors)
