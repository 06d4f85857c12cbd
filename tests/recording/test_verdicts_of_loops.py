"""Loops as people write them, watched with one line, and the verdicts on them."""

from contextlib import suppress

import pytest
import torch

import lossgeom as lg


class Own(torch.optim.SGD):
    """A subclass with nothing of its own."""


class StoppedError(Exception):
    pass


def own_loop(path, lr, *, batch=None, steps=12, gamma=1.0, stop=None, optimizer=Own):
    """A loop with clipping, a scheduler and an early end, on a loss with the sharpness 3."""
    model = torch.nn.Linear(2, 1, bias=False)
    inputs, targets = torch.tensor([[6**0.5, 0.0], [0.0, 1.0]] * 4), torch.zeros(8, 1)
    used = optimizer(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.StepLR(used, step_size=6, gamma=gamma)
    data = [(inputs, targets)]
    with lg.watch(model, used, "squared_error", data, path, every=1, budget=None) as run:
        for step in range(steps):
            if step == stop:
                raise StoppedError
            part = slice(0, None if batch is None else batch + step % 2)
            used.zero_grad()
            (0.5 * (model(inputs[part]) - targets[part]).square().mean()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            used.step()
            schedule.step()
    return run


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"lr": 0.6}, "at the edge: sharpness .90 of 2/lr"),
        ({"lr": 0.1}, "below: sharpness .15 of 2/lr"),
        ({"lr": 0.6, "gamma": 0.1}, "below since step 6: sharpness .09 of 2/lr; at the edge from"),
        ({"lr": 0.6, "stop": 5}, "at the edge: sharpness .90 of 2/lr"),
        ({"lr": 0.6, "batch": 3}, "not stated: steps are on mini-batches"),
        (
            {"lr": 0.6, "optimizer": torch.optim.Rprop},
            "not stated: no threshold is known for Rprop",
        ),
        ({"lr": 3.0}, "above and growing: sharpness 4.50 of 2/lr, and the loss grows"),
    ],
    ids=str,
)
def test_loops_that_are_watched(tmp_path, settings, expected):
    with suppress(StoppedError):
        assert str(own_loop(tmp_path, **settings).verdict()).startswith(expected)
    assert str(lg.verdict_of(lg.Record.open(tmp_path))).startswith(expected)
