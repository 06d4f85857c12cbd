"""Cross-entropies of large outputs, which are taken a piece at a time."""

from functools import partial

import pytest
import torch

from lossgeom.batches import Batch
from lossgeom.losses import as_loss, cross_entropy
from lossgeom.losses.graphs import with_bytes

CRITERIA = {
    "indices": ("cross_entropy", 0.0),
    "smoothed": ("cross_entropy", 0.1),
    "weights": (torch.nn.CrossEntropyLoss(weight=torch.arange(1.0, 8)), 0.0),
    "tokens": ("token_cross_entropy", 0.0),
    "next token": ("next_token_cross_entropy", 0.1),
    "probabilities": ("cross_entropy", 0.1),
}


def sides(kind, monkeypatch):
    """The same loss as a function of outputs, of all at once and in pieces of two rows."""
    generator = torch.Generator().manual_seed(0)
    shape = (3, 3, 7) if "token" in kind else (5, 7)
    outputs = torch.randn(shape, generator=generator).double().requires_grad_()
    targets = torch.randint(7, shape[:-1], generator=generator)
    targets.view(-1)[::3] = -100
    if kind == "probabilities":
        targets = torch.rand(shape, generator=generator).double().softmax(-1)
    loss, batch = as_loss(*CRITERIA[kind]), Batch.of((outputs.detach(), targets))

    def terms(large):
        def total(outputs):
            monkeypatch.setattr(cross_entropy, "LARGE", large)
            monkeypatch.setattr(cross_entropy, "PIECE", 14)
            return loss.terms(outputs, batch)[0]

        return total

    return outputs, terms(10**6), terms(0)


@pytest.mark.parametrize("kind", CRITERIA)
def test_derivatives_are_those_of_all_at_once(kind, monkeypatch):
    outputs, whole, pieces = sides(kind, monkeypatch)
    u, found = torch.linspace(-1, 1, outputs.numel()).double().view_as(outputs), []
    for total in (whole, pieces):
        value = total(outputs)
        (gradient,) = torch.autograd.grad(value, outputs, create_graph=True)
        (curved,) = torch.autograd.grad(gradient, outputs, u, create_graph=True)
        (third,) = torch.autograd.grad(curved, outputs, u)
        found.append([value, gradient, curved, third])
    torch.testing.assert_close(*found)
    assert torch.autograd.gradgradcheck(pieces, [outputs])


@pytest.mark.quick
def test_forward_mode_and_transforms_take_all_at_once(monkeypatch):
    outputs, whole, pieces = sides("indices", monkeypatch)
    at, u = outputs.detach(), torch.ones_like(outputs)
    both = [torch.func.jvp(torch.func.grad(total), (at,), (u,)) for total in (whole, pieces)]
    torch.testing.assert_close(*both)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(outputs, u)
        assert torch.autograd.forward_ad.unpack_dual(pieces(dual)).tangent is not None


@pytest.mark.quick
def test_a_graph_of_the_gradient_holds_the_outputs_alone(monkeypatch):
    outputs, whole, pieces = sides("tokens", monkeypatch)
    kept = []
    for total in (whole, pieces):
        slope = partial(torch.autograd.grad, inputs=outputs, create_graph=True)
        (gradient,), storages = with_bytes(lambda at, slope=slope, f=total: slope(f(at)), outputs)
        assert gradient.requires_grad
        kept.append(sum(storages.values()) / outputs.nbytes)
    assert kept[0] > 2
    assert kept[1] < 1.2  # with the targets
