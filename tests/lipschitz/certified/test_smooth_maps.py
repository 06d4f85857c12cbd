"""Normalisation, softmax and products on boxes, against their derivatives at many points."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import jacrev, vmap

from lossgeom.lipschitz.certified.normalisation import STEEPEST_BEND, Normalise
from lossgeom.lipschitz.certified.products import Product
from lossgeom.lipschitz.certified.smooth_maps import Box
from lossgeom.lipschitz.certified.softmax import THIRD, Softmax

MAPS = {
    "layer": (Normalise(True, 1e-5), 4),
    "root mean square": (Normalise(False, 1e-2), 3),
    "softmax": (Softmax(), 4),
    "matrices": (Product(2, 3, 2), 12),
    "numbers": (Product(1, 1, 1), 2),
}


def box_round(layer, x, radius, sizes=None):
    """The box of the points at a distance of at most a radius in every part."""
    value = x[:, None]
    parts = len(layer.parts or (0,))
    distance = torch.full((len(x), 1, parts), radius, dtype=torch.float64)
    sizes = torch.ones_like(distance) if sizes is None else sizes.expand_as(distance)
    return Box(value, value - radius, value + radius, distance, sizes)


def points_in(layer, x, radius, generator):
    steps = []
    for part in layer.split(x):
        step = torch.randn(part.shape, generator=generator, dtype=torch.float64)
        length = torch.rand(len(x), 1, generator=generator, dtype=torch.float64).mul(2).clamp(max=1)
        steps.append(step / step.norm(dim=1, keepdim=True) * radius * length)
    return x + torch.cat(steps, 1)


def one(layer):
    return lambda x: layer(x[None, None])[0, 0]


def derivatives(layer, x):
    return vmap(jacrev(one(layer)))(x)


def matrix_of(linear, B, n):
    """From products with the unit vectors."""
    unit = torch.eye(n, dtype=torch.float64)[None, :, None].expand(B, -1, -1, -1)
    return linear(unit)[:, :, 0].mT


def norms(M):
    return torch.linalg.matrix_norm(M, ord=2)


@pytest.mark.parametrize("name", MAPS)
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    radius=st.sampled_from([0.0, 1e-4, 1e-2, 0.3, 3.0, 100.0]),
    scale=st.sampled_from([1e-3, 0.1, 1.0, 30.0]),
    ratio=st.sampled_from([0.0, 1e-4, 0.3, 1.0, 20.0, 1e9]),
)
def test_no_point_of_a_box_is_outside_of_what_is_known(name, seed, radius, scale, ratio):
    layer, n = MAPS[name]
    generator = torch.Generator().manual_seed(seed)
    x = scale * torch.randn(24, n, generator=generator, dtype=torch.float64)
    sizes = torch.tensor([1.0, ratio], dtype=torch.float64)[: len(layer.parts or (0,))]
    at = layer.on(box_round(layer, x, radius, sizes))
    D_0, largest = matrix_of(at.linear, 24, n), matrix_of(at.absolute, 24, n)
    torch.testing.assert_close(D_0, derivatives(layer, x), rtol=1e-9, atol=1e-12)
    y = points_in(layer, x, radius, generator)
    D, values = derivatives(layer, y), layer(y[:, None])[:, 0]
    slack = 1e-9 * (1 + norms(D))
    A, B = (
        None if part is None else matrix_of(part.linear, 24, n) for part in (at.inner, at.outer)
    )
    left, right = unit(24, D.shape[1], generator), unit(24, n, generator)
    U, _, Vh = torch.linalg.svd(D - D_0)
    for u, w in ((left, right), (U[:, :, 0], Vh[:, 0]), (U[:, :, 0], right)):
        deviation = torch.einsum("bij,bi,bj->b", D - D_0, u, w).abs()
        size = scaled_length(at.out, u, None if B is None else B.mT) * scaled_length(at.into, w, A)
        assert (deviation <= size * (1 + 1e-9) + slack).all()
    assert (norms(D - D_0) <= at.spread + slack).all()
    assert (D.abs() <= largest + slack[:, None, None]).all()
    parts = torch.stack([norms(part) for part in layer.split(D)], -1)
    assert (parts <= at.steepness[:, 0] + slack[:, None]).all()
    assert (norms(D) <= at.norm + slack).all()
    assert (values >= at.lower[:, 0] - 1e-9 * (1 + at.lower[:, 0].abs())).all()
    assert (values <= at.upper[:, 0] + 1e-9 * (1 + at.upper[:, 0].abs())).all()
    second = vmap(jacrev(jacrev(one(layer))))(y)
    u, h, w = (unit(24, m, generator) for m in (second.shape[1], n, n))
    form = torch.einsum("bijk,bi,bj,bk->b", second, u, h, w).abs()
    columns = u if B is None else torch.einsum("bij,bi->bj", B, u)
    roots = at.bend(columns.abs()[:, None]).sqrt()
    bound = scaled_length(roots, h, A) * scaled_length(roots, w, A)
    assert (form <= bound * (1 + 1e-9) + 1e-12).all()


def scaled_length(scale, x, M):
    """Of diag(scale) M x."""
    x = x if M is None else torch.einsum("bij,bj->bi", M, x)
    return (scale[:, 0] * x).norm(dim=1)


def unit(B, n, generator):
    x = torch.randn(B, n, generator=generator, dtype=torch.float64)
    return x / x.norm(dim=1, keepdim=True)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("name", "known"), [("layer", 1e-5**-0.5), ("softmax", 0.5), ("matrices", math.inf)]
)
def test_an_infinite_box_leaves_what_holds_everywhere(name, known):
    layer, n = MAPS[name]
    at = layer.on(box_round(layer, torch.zeros(1, n, dtype=torch.float64), math.inf))
    assert at.norm.item() == pytest.approx(known)
    assert at.spread.item() == pytest.approx(known)


@pytest.mark.quick
def test_the_third_cumulant_of_a_softmax_is_reached_and_no_less_would_do():
    """By two probabilities 1/2 +- 1/sqrt(12), in the direction (1, -1) / sqrt(2)."""
    p = 0.5 + 12**-0.5
    x = torch.tensor([math.log(p), math.log(1 - p)], dtype=torch.float64)
    u = torch.tensor([1.0, -1.0], dtype=torch.float64) / 2**0.5
    second = jacrev(jacrev(one(Softmax())))(x)
    reached = torch.einsum("ijk,i,j,k->", second, u, u, u).abs().item()
    assert reached == pytest.approx(THIRD)
    at = Softmax().on(box_round(Softmax(), x[None], 1e-9))
    A, roots = (
        matrix_of(at.inner.linear, 1, 2),
        at.bend((matrix_of(at.inner.linear, 1, 2) @ u).abs()[:, None]).sqrt(),
    )
    bound = scaled_length(roots, u[None], A).square().item()
    assert bound == pytest.approx(reached * 2 / 3**0.5, rel=1e-6)


@pytest.mark.quick
def test_the_bend_of_a_normalisation_is_reached_and_no_less_would_do():
    """Where |v|^2 = R^2 - 1 = 1/4 along v, and at s = R / sqrt(3) for large R."""
    eps, n = 0.01, 3
    layer = Normalise(False, eps)
    v = torch.tensor([0.5, 0.0, 0.0], dtype=torch.float64)
    x = (n * eps) ** 0.5 * v
    along = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    second = jacrev(jacrev(one(layer)))(x)
    reached = torch.einsum("ijk,i,j,k->", second, along, along, along).abs().item()
    assert reached == pytest.approx(STEEPEST_BEND / eps / n**0.5)
    at = layer.on(box_round(layer, x[None], 1e-9))
    assert reached <= at.bend(one_column(3)).max().item() * (1 + 1e-9)
    assert reached > at.bend(one_column(3)).max().item() / 2
    R = 100.0
    v = torch.tensor([R / 3**0.5, (R**2 * 2 / 3 - 1) ** 0.5, 0.0], dtype=torch.float64)
    x = (n * eps) ** 0.5 * v
    second = jacrev(jacrev(one(layer)))(x)
    reached = torch.einsum("ijk,i,j,k->", second, along, along, along).abs().item()
    at = layer.on(box_round(layer, x[None], 1e-9))
    assert reached == pytest.approx(at.bend(one_column(3)).max().item(), rel=1e-6)


def one_column(n):
    """The lengths of the columns of e_1^T."""
    return torch.eye(n, dtype=torch.float64)[None, None, 0]


@pytest.mark.quick
def test_half_of_a_deviation_is_not_enough_for_products():
    """X = x on a line and W = 1: D - D_0 = x - x_0 for the change of W."""
    layer = Product(1, 1, 1)
    x = torch.tensor([[2.0, 1.0]], dtype=torch.float64)
    box = box_round(layer, x, 0.5)
    at = layer.on(replace(box, distance=torch.tensor([[[0.5, 0.0]]], dtype=torch.float64)))
    D = derivatives(layer, x + torch.tensor([[0.5, 0.0]], dtype=torch.float64))
    deviation = norms((D - matrix_of(at.linear, 1, 2))[:, :, 1:]).item()
    bound = (at.out[0, 0, 0] * at.into[0, 0, 1]).item()
    assert deviation == pytest.approx(bound)
    assert deviation > bound / 2
