"""What holds of every training loop of the lab."""

import inspect
import math
from functools import partial

import pytest
import torch
from torch import nn

from lossgeom.lab.models import mlp
from lossgeom.lab.regularizers import REGULARIZERS, JacobianNorm, WarmSharpness, hold
from lossgeom.lab.studies._training import train as train_with_record
from lossgeom.lab.training import (
    ASCENTS,
    OPTIMIZERS,
    SCHEDULES,
    TRAINING,
    OptimizerSettings,
    batch_of_step,
    gradient_flow,
    optimize,
    ramp,
)
from lossgeom.recording.record import Record

CAN_DIVERGE = [name for name in TRAINING if name != "gradient_flow"]


@pytest.fixture(params=TRAINING)
def train(request):
    """Trains on inputs and targets, which loops take in several forms."""
    loop = TRAINING[request.param]
    parameters = inspect.signature(loop).parameters
    optimizers = {}  # whose state goes on with that of the model

    def run(model, loss, examples, *, lr, **options):
        forms = {"examples": examples, "batches": [examples], "batch_size": 2, "seed": 2, "lr": lr}
        asked = {name: forms[name] for name in forms if name in parameters}
        if "optimizers" in parameters:
            made = optimizers.setdefault(model, torch.optim.SGD(model.parameters(), 1, 0.5))
            made.param_groups[0]["lr"] = lr
            asked["optimizers"] = [made]
        return loop(model, loss, **asked, **options)

    return run


@pytest.mark.parametrize("stopped", [3, 4, 5])
def test_going_on_is_going_straight_through(train, stopped):
    data = torch.randn(5, 4), torch.randint(3, (5,))
    straight, halved = mlp(4, 3, [5], "tanh", seed=0), mlp(4, 3, [5], "tanh", seed=0)
    state = torch.get_rng_state()
    steps = list(train(straight, "cross_entropy", data, lr=0.3, steps=10))
    first = list(train(halved, "cross_entropy", data, lr=0.3, steps=stopped))
    rest = list(train(halved, "cross_entropy", data, lr=0.3, steps=10, first=stopped))
    assert torch.equal(torch.get_rng_state(), state)
    assert steps == first + rest[1:] == list(range(11))
    for a, b in zip(straight.parameters(), halved.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(straight[0].weight, mlp(4, 3, [5], "tanh", seed=0)[0].weight)


@pytest.mark.parametrize("train", CAN_DIVERGE, indirect=True)
def test_it_ends_where_it_diverges(train):
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1e30)
    data = torch.ones(2, 1), torch.zeros(2, 1)
    steps = list(train(model, "squared_error", data, lr=1e6, steps=100))
    assert 0 < len(steps) < 20
    assert not math.isfinite(model.weight.item())


def test_errors(train):
    model, data = nn.Linear(1, 1), (torch.ones(3, 1), torch.zeros(3, 1))
    with pytest.raises(ValueError, match="expected a learning rate lr > 0, got -1"):
        next(train(model, "squared_error", data, lr=-1, steps=1))
    with pytest.raises(ValueError, match="expected steps >= 3, the steps already taken; got 1"):
        next(train(model, "squared_error", data, lr=1, steps=1, first=3))


# What a killed run goes on with


def kept(optimizer="momentum", ascent=None, regularizers=(), **options):
    """Makes afresh what trains a model: the loop, the optimisers, and what else has a state."""

    def made(model):
        optimizers = OptimizerSettings(optimizer, lr=0.05, weight_decay=0.01).made_for(model)
        others, used = [], []
        for make in regularizers:
            regularizer, *states = make()
            used.append(regularizer)
            others += states
        more = {"ascent": ASCENTS[ascent]() if ascent else None, "optimizers": optimizers}
        loop = partial(optimize, regularizers=used, seed=4, clip=1.0, **more, **options)
        return loop, optimizers, others

    return made


def flowing(model):
    return partial(gradient_flow, lr=0.05), [], []


def held():
    quantity = WarmSharpness()
    return hold(quantity, ([0, 20], [1.0, 2.0]), factor=ramp(0.5, 15)), quantity


def with_state(name):
    if name == "sharpness":
        quantity = WarmSharpness()
        return REGULARIZERS[name](0.1, quantity), quantity
    return (REGULARIZERS[name](2 if name == "crop_and_flip" else 0.1),)


SCHEDULED = {
    "constant": SCHEDULES["constant"](),
    "step_decay": SCHEDULES["step_decay"](5),
    "cosine": SCHEDULES["cosine"](25),
    "warm_up": SCHEDULES["warm_up"](15),
    "ramp": SCHEDULES["ramp"](0.3, 20),
}
METHODS = {
    "gradient_flow": flowing,
    **{name: kept(name) for name in OPTIMIZERS},
    **{name: kept(ascent=name) for name in ASCENTS},
    **{f"schedule {name}": kept(schedule=SCHEDULED[name]) for name in SCHEDULES},
    **{name: kept(regularizers=[partial(with_state, name)]) for name in REGULARIZERS},
    "hold": kept("adam", "sam", [held, lambda: (hold(JacobianNorm(), ([0], [1.0])),)]),
    "all at random": kept("adam", "asam", [partial(with_state, n) for n in ("mixup", "dropout")]),
}


class KilledError(Exception):
    pass


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_run_goes_on_to_the_same_bits(method, tmp_path):
    generator = torch.Generator().manual_seed(0)
    examples = torch.randn(7, 1, 2, 2, generator=generator), torch.arange(7) % 3
    batches = batch_of_step(examples, 3, seed=1)

    def run(folder, kill_at=None):
        """All made afresh, and what a run needs to go on read from its record."""
        model = nn.Sequential(nn.Flatten(), *mlp(4, 3, [5], "tanh", seed=0)).double()
        data = lambda step: [(x.double(), y) for x, y in batches(step)]  # noqa: E731
        loop, optimizers, others = METHODS[method](model)

        def at_step(step):
            if step == kill_at:
                raise KilledError

        with Record.create(folder, {}, resume=True) as record:
            ended = train_with_record(
                model, record, partial(loop, model, "cross_entropy", data, steps=25),
                steps=25, every=1, at_step=at_step, optimizers=optimizers, others=others,
            )  # fmt: skip
        assert ended == "finished"
        return torch.nn.utils.parameters_to_vector(model.parameters())

    state = torch.get_rng_state()
    straight = run(tmp_path / "straight")
    with pytest.raises(KilledError):
        run(tmp_path / "killed", kill_at=17)
    assert Record.open(tmp_path / "killed").load_arrays("checkpoint")[1]["step"] == 10
    assert torch.equal(run(tmp_path / "killed"), straight)
    assert torch.equal(torch.get_rng_state(), state)
