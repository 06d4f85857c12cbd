import pytest
import torch

from lossgeom.losses.graphs import second_derivative

THETA = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64)


def in_pieces(theta):
    a, b, _ = theta.split_with_sizes([1, 2, 1])
    return (a**3 * b.square()).sum() + b.prod()


def in_two_ways(theta):
    return in_pieces(theta) * theta.square().sum()


def as_a_whole(theta):
    return (theta**4).sum()


@pytest.mark.parametrize("function", [in_pieces, in_two_ways, as_a_whole])
def test_products_are_those_of_the_whole(function):
    leaf = THETA.clone().requires_grad_()
    H = torch.autograd.functional.hessian(function, THETA)
    product = second_derivative(function(leaf), leaf, torch.tensor(2.0, dtype=torch.float64))
    for v in torch.eye(4, dtype=torch.float64):
        torch.testing.assert_close(product(v), 2 * H @ v)
    v = torch.randn(4, dtype=torch.float64)
    torch.testing.assert_close(product(v, last=True), 2 * H @ v)


def test_what_has_no_second_derivative_is_zero():
    leaf, v = THETA.clone().requires_grad_(), torch.ones_like(THETA)
    first, others = leaf.split_with_sizes([1, 3])
    for result in (others.sum() - first.sum(), torch.tensor(1.0)):
        assert not second_derivative(result, leaf, torch.ones_like(result))(v).any()


def test_products_have_memory_of_their_own():
    leaf, v = THETA.clone().requires_grad_(), torch.ones_like(THETA)
    product = second_derivative(leaf.square().sum() / 2, leaf, torch.ones_like(THETA[0]))
    product(v).zero_()
    assert v.all()
    assert product(v).all()


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.exp()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, u):
        return u * ctx.saved_tensors[0].exp()


def test_a_part_that_is_differentiable_once_is_an_error():
    leaf = THETA.clone().requires_grad_()
    first, others = leaf.split_with_sizes([1, 3])
    result = Once.apply(first).square().sum() + others.square().sum()
    with pytest.raises(ValueError, match="without second derivatives"):
        second_derivative(result, leaf, torch.ones_like(result))
