"""Dropout."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from lossgeom.lab.models.mlp import Sine
from lossgeom.lab.training import Objective, Regularizer
from lossgeom.messages.checks import check_number

BEHIND = (nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.GELU, nn.ELU, nn.Sigmoid, nn.SiLU, Sine)


def dropout(strength: float) -> Regularizer:
    r"""Set a share p of the numbers behind each activation to zero, and divide the rest by 1 - p.

    The model that is trained has the same parameters and no dropout: what is measured of it needs
    no other mode. Which numbers these are is drawn for every step.

    Args:
        strength: p.

    Raises:
        ValueError: unless 0 <= p < 1.
        TypeError: when it is given a model that is no ``nn.Sequential`` with activations, or one of
            blocks, such as a residual network, in which it would miss those inside.

    Source: Srivastava et al., Dropout (2014).

    >>> import torch
    >>> from lossgeom.losses import as_loss
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    >>> dropout(0.1)(Objective(model, as_loss("squared_error"), lambda _: [])).model[1]
    Sequential(
      (0): Tanh()
      (1): Dropout(p=0.1, inplace=False)
    )
    """
    check_number("strength", strength, 0, 1, at_low=True)

    def regularizer(objective: Objective) -> Objective:
        return replace(objective, model=_with_dropout(objective.model, strength))

    return regularizer


def _with_dropout(model: nn.Module, share: float) -> nn.Module:
    """The same modules, with others between them."""
    layers = list(model) if isinstance(model, nn.Sequential) else []
    compound = any(True for m in layers for _ in m.children())  # whose activations are inside
    if compound or not any(isinstance(m, BEHIND) for m in layers):
        raise TypeError(
            f"expected an nn.Sequential with activations, to put dropout behind them; got "
            f"{type(model).__name__}{' of blocks' * compound}; put nn.Dropout into others "
            "yourself: optimize(..., seed=) makes what it draws a function of the step"
        )
    return nn.Sequential(
        *(nn.Sequential(m, nn.Dropout(share)) if isinstance(m, BEHIND) else m for m in layers)
    )
