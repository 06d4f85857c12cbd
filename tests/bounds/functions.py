"""Functions of one or two numbers whose smoothness is known, and samples that cover a cube."""

import copy
import math
from dataclasses import dataclass

import torch
from torch import nn

import lossgeom as lg
from lossgeom.bounds import DeltaGood
from lossgeom.lipschitz import Bracket

FINE = 2001  # points of a grid


def grid(d):
    """Points that are no farther than half a diagonal of their cells from any of the cube."""
    side = FINE if d == 1 else 61
    axes = [torch.linspace(0, 1, side, dtype=torch.float64)] * d
    return torch.cartesian_prod(*axes).reshape(-1, d), math.sqrt(d) / (2 * (side - 1))


def distances(points, others=None):
    """All of them, from differences."""
    others = points if others is None else others
    return torch.cdist(points, others, compute_mode="donot_use_mm_for_euclid_dist")


def covering(points):
    """A radius with which balls round the points cover the cube."""
    centres, half = grid(points.shape[1])
    return distances(centres, points).amin(1).max().item() + half


@dataclass(frozen=True)
class KnownCover(DeltaGood):
    """A distribution on a cube, with a radius that was measured of one sample."""

    dimension: int
    measured: float
    left_out: float = 0.0

    def log_ball_mass(self, r):
        raise NotImplementedError

    def draw(self, N, generator):
        raise NotImplementedError

    def radius(self, N, epsilon):
        return self.measured


def network(d, outputs, seed, activation=nn.Tanh, scale=1.0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(d, 6), activation(), nn.Linear(6, outputs)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= scale
    return model


def nearby(model, seed, by=0.05):
    """A network whose weights differ a little."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            noise = torch.Generator().manual_seed(seed)
            parameter += by * torch.randn(parameter.shape, generator=noise, dtype=torch.float64)
    return other


def problem(model, x):
    return lg.Problem(model, "squared_error", [(x, model(x).detach())], check=False)


def certified(model, x, delta):
    """Norms and variation of the Jacobian near some points."""
    p = problem(model, x)
    norms = lg.jacobian_norms(p).values
    upper = lg.local_variation_upper(p, delta)
    return Bracket(norms, lg.lipschitz_local(p, 0.0)), Bracket(0 * upper, upper)
