"""Factors of the learning rate, or of a target: functions of the step alone."""

from __future__ import annotations

import math
from collections.abc import Callable

from lossgeom.messages.checks import check_at_least

Schedule = Callable[[int], float]


def constant() -> Schedule:
    """A factor of 1 at every step.

    >>> constant()(7)
    1.0
    """
    return lambda step: 1.0  # noqa: ARG005


def step_decay(every: int, factor: float = 0.1) -> Schedule:
    r"""A factor that falls all at once: :math:`\gamma^{\lfloor t / n \rfloor}`.

    >>> [step_decay(10, 0.5)(step) for step in (0, 9, 10, 20)]
    [1.0, 1.0, 0.5, 0.25]
    """
    check_at_least(1, every=every)
    return lambda step: float(factor ** (step // every))


def cosine(steps: int, lowest: float = 0.0) -> Schedule:
    r"""A factor that falls along half a wave: :math:`l + (1 - l) (1 + \cos(\pi t / T)) / 2`.

    After T = ``steps`` it stays at the lowest.

    >>> [round(cosine(10, 0.2)(step), 6) for step in (0, 5, 10, 11)]
    [1.0, 0.6, 0.2, 0.2]
    """
    check_at_least(1, steps=steps)
    return lambda step: lowest + (1 - lowest) * (1 + math.cos(math.pi * min(step / steps, 1))) / 2


def warm_up(steps: int, then: Schedule | None = None) -> Schedule:
    """A factor that rises in equal steps, to 1 at the last of them; then another schedule's.

    That one counts its steps from the end of the rise.

    >>> [warm_up(4, step_decay(2, 0.1))(step) for step in range(7)]
    [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 0.1]
    """
    after = then or constant()
    return lambda step: (step + 1) / steps if step < steps else after(step - steps)


def ramp(to: float, steps: int) -> Schedule:
    """A factor that goes from 1 to another one in a straight line, and stays there.

    >>> [ramp(0.5, 10)(step) for step in (0, 5, 10, 20)]
    [1.0, 0.75, 0.5, 0.5]
    """
    check_at_least(1, steps=steps)
    return lambda step: 1 + (to - 1) * min(step / steps, 1)


SCHEDULES = {
    "constant": constant,
    "step_decay": step_decay,
    "cosine": cosine,
    "warm_up": warm_up,
    "ramp": ramp,
}
