"""The critical step of the model that trains, in one process and in two."""

import math
import os
from contextlib import nullcontext
from unittest import mock

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import lossgeom as lg
from lossgeom.distributed import ALONE
from lossgeom.problem.sharded import reshard
from tests.problem.test_sharded import BFLOAT16, measured, normed, shard, state_of, transformer
from tests.ranks import Pair

LR = 0.5


def stepped(made):
    """A model, its batches, the same model a step of gradient descent later, and that step."""
    model, batches = made()
    batches = batches[:2]
    problem = measured(model, batches)
    update = -LR * problem.gradient()
    after, _ = made()
    pieces = problem.unflatten(update)
    with torch.no_grad():
        for name, p in after.named_parameters():
            p += pieces.get(name, 0)
    return model, batches, after, lg.critical_step(problem, update)


def copies(model):
    return [p.detach().clone() for p in model.parameters()]


def live(model, batches, before, **settings):
    return lg.live_critical_step(model, "cross_entropy", batches, before, **settings)


def same(found, expected, rtol=1e-6):
    return found.passes == expected.passes and abs(found.value / expected.value - 1) < rtol


# In one process


@pytest.mark.parametrize("made", [transformer, normed])
def test_is_the_critical_step_of_a_copy(made):
    model, batches, after, expected = stepped(made)
    before = state_of(after)
    assert same(live(after, batches, copies(model)), expected)
    assert state_of(after) == before


def test_knows_weight_decay_and_dropout():
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(), nn.Linear(8, 3)).double()
    batches = normed()[1]
    problem = measured(model, batches, seed=3)
    before = copies(model)
    with torch.no_grad():
        for p, g in zip(
            model.parameters(), problem.unflatten(problem.gradient()).values(), strict=True
        ):
            p -= LR * g
    expected = lg.critical_step(
        problem, problem.refreshed().theta - problem.theta, weight_decay=0.1
    )
    found = live(model, batches, before, seed=3, weight_decay=0.1)
    assert same(found, expected)
    assert model.training


def test_runs_under_autocast_as_training_does():
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    batches = [(x.float(), y) for x, y in normed()[1]]
    problem, before = measured(model, batches, autocast=torch.bfloat16), copies(model)
    with torch.no_grad():
        for p, g in zip(before, problem.unflatten(problem.gradient()).values(), strict=True):
            p += g
    types = []
    model[0].register_forward_hook(lambda _module, _inputs, output: types.append(output.dtype))
    found = live(model, batches, before, autocast=torch.bfloat16)
    assert set(types) == {torch.bfloat16}
    expected = lg.critical_step(
        problem.at(torch.cat([p.flatten() for p in before])), -problem.gradient()
    )
    assert abs(found.value / expected.value - 1) < 0.15


def test_a_step_that_is_none_or_not_finite():
    model, batches = normed()
    with pytest.raises(lg.UndefinedError, match="the step is zero, so nothing can be said of it"):
        live(model, batches, copies(model))
    with pytest.raises(lg.NonFiniteError, match="the step is NaN or infinite"):
        live(model, batches, [p + float("nan") for p in copies(model)])
    with pytest.raises(ValueError, match=r"expected before= as copies of what this process has"):
        live(model, batches, copies(model)[1:])
    with pytest.raises(ValueError, match="expected a model with parameters, got one without"):
        live(nn.Tanh(), batches, [])


def test_a_loss_that_has_no_number_before_the_step():
    model, batches, after, _ = stepped(normed)
    with pytest.raises(lg.NonFiniteError, match="the loss is NaN or infinite before the step"):
        live(after, [(x * float("nan"), y) for x, y in batches], copies(model))


def test_a_loss_without_terms():
    model, batches, after, _ = stepped(normed)
    with pytest.raises(ValueError, match=r"expected the loss .* to have terms, got a count"):
        live(after, [(x, torch.full_like(y, -100)) for x, y in batches], copies(model))


# In two


def mine(batches):
    return batches[lg.ranks().rank :][:1]


def sharded_step(made, **settings):
    """Of a step, the shards before it, two batches, the model after it, and what is to be found."""
    model, batches, after, expected = stepped(made)
    before = copies(shard(model, **settings))
    shard(after, **settings)
    with torch.no_grad():  # which sets up hooks
        after.eval()(batches[0][0])
    reshard(after.train())
    return before, batches, after, expected


def found_on_shards(made, settings, blind=False):
    before, batches, after, expected = sharded_step(made, **settings)
    state = state_of(after)
    with torch.no_grad():  # after which a root stays gathered
        after.eval()(batches[0][0])
    after.train()
    ours = "lossgeom.stability.live_critical_step.reshard"
    with mock.patch(ours) if blind else nullcontext():
        reshard(after)
        found = live(after, mine(batches), before, ranks=lg.ranks())
    reshard(after)
    return found, expected, state_of(after) == state


@pytest.mark.parametrize(
    ("made", "settings"),
    [(transformer, {}), (transformer, {"reshard_after_forward": False}), (normed, {})],
    ids=["transformer", "never resharded", "batch norm"],
)
def test_is_that_of_one_process_under_fully_shard(on_two, made, settings):
    for found, expected, alone in on_two(found_on_shards, made, settings):
        assert same(found, expected)
        assert alone


def test_gathered_parameters_would_be_those_of_another_point(on_two):
    for found, expected, _ in on_two(found_on_shards, transformer, {}, True):
        assert abs(found.value / expected.value - 1) > 0.1


def test_in_bfloat16_it_is_nearly_that(on_two):
    one, other = on_two(found_on_shards, transformer, {"mp_policy": BFLOAT16})
    assert one[0] == other[0]
    assert abs(one[0].value / one[1].value - 1) < 0.25
    assert one[2]


def found_on_replicas():
    model, batches, after, expected = stepped(normed)
    return live(
        DistributedDataParallel(after), mine(batches), copies(model), ranks=lg.ranks()
    ), expected


def test_is_that_of_one_process_under_data_parallelism(on_two):
    for found, expected in on_two(found_on_replicas):
        assert same(found, expected)


def nowhere(model, batch):
    return model(batch[0]) * (math.nan if lg.ranks().rank else 1)


def after_errors():
    """What is raised of five kinds of errors, and what is found and left in the end."""
    before, batches, after, expected = sharded_step(transformer)
    state, rank, raised = state_of(after), lg.ranks().rank, []
    block = after.blocks[1]

    def halfway(module, inputs):
        raise RuntimeError("half-way")

    def attempt(batches, **settings):
        try:
            live(after, batches, before, **{"ranks": lg.ranks(), **settings})
        except Exception as error:
            raised.append(error)

    attempt([(x, y + 100 * rank) for x, y in mine(batches)])
    attempt(batches[: 1 + rank])
    attempt(mine(batches), forward=nowhere)
    attempt(mine(batches), ranks=ALONE)
    handle = block.register_forward_pre_hook(halfway)
    attempt(mine(batches))
    handle.remove()
    found = live(after, mine(batches), before, ranks=lg.ranks())
    return raised, found, expected, state_of(after) == state


def test_errors_leave_no_trace(on_two):
    own, others = on_two(after_errors)
    for raised, found, expected, alone in (own, others):
        kinds = [ValueError, lg.NonFiniteError, ValueError, RuntimeError]
        assert [type(error) for error in raised[1:]] == kinds
        assert "as many batches on each process" in str(raised[1])
        assert "let all of them measure" in str(raised[3])
        assert same(found, expected)
        assert alone
    assert isinstance(own[0][0], lg.OtherRankError)
    assert "expected class indices" in str(others[0][0])


def left_alone():
    """What a process says whose companion ends in a forward pass, and whether it has its shards."""
    before, batches, after, _ = sharded_step(transformer)
    state = state_of(after)

    def end(module, inputs):
        if lg.ranks().rank == 1:
            os._exit(1)

    after.blocks[1].register_forward_pre_hook(end)
    try:
        live(after, mine(batches), before, ranks=lg.ranks())
    except Exception as error:
        return str(error), state_of(after)[2:] == state[2:]


def test_a_process_that_ends_half_way_ends_the_others_measurement():
    pair = Pair()
    try:
        (said, alone), ended = pair.tried(left_alone)
    finally:
        pair.close()
    assert said
    assert alone
    assert isinstance(ended, Exception)
