"""Plain code that measurements of real models are compared with.

Nothing of the library is used: a deep copy of the user's model is run on all data at once, and
differentiated by two backward passes or by central differences.
"""

import copy
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lossgeom as lg


class Plain:
    """A model, what it puts out for all data, and the mean loss of that."""

    def __init__(
        self,
        model: nn.Module,
        outputs: Callable[[nn.Module], Tensor],
        loss: Callable[[Tensor], Tensor],
        mode: str = "eval",
    ) -> None:
        self.model = copy.deepcopy(model).train(mode == "train")
        self.outputs = outputs
        self.loss = loss
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.theta = flat(self.parameters).detach()

    def value(self) -> float:
        return self.loss(self.outputs(self.model)).item()

    def gradient(self, create_graph: bool = False) -> Tensor:
        loss = self.loss(self.outputs(self.model))
        return flat(torch.autograd.grad(loss, self.parameters, create_graph=create_graph))

    def hessian(self) -> Callable[[Tensor], Tensor]:
        """Its product with a vector, each by a backward pass through one gradient."""
        gradient = self.gradient(create_graph=True)
        return lambda v: flat(torch.autograd.grad(gradient, self.parameters, v, retain_graph=True))

    def hessian_product(self, v: Tensor) -> Tensor:
        return self.hessian()(v)

    def along(self, function: Callable[[], Tensor], v: Tensor, h: float = 1e-5) -> Tensor:
        """Central differences along v of something computed from the model."""
        values = []
        for step in (h, -h):
            self._write(self.theta + step * v)
            values.append(function())
        self._write(self.theta)
        return (values[0] - values[1]) / (2 * h)

    def gauss_newton_product(self, v: Tensor) -> Tensor:
        """With J v by differences, the loss Hessian by autograd, and J^T by a backward pass."""

        @torch.no_grad()
        def outputs() -> Tensor:
            return self.outputs(self.model)

        Jv = self.along(outputs, v)
        at = outputs().requires_grad_()
        (residual,) = torch.autograd.grad(self.loss(at), at, create_graph=True)
        (curved,) = torch.autograd.grad(residual, at, Jv)
        return flat(torch.autograd.grad(self.outputs(self.model), self.parameters, curved))

    def _write(self, theta: Tensor) -> None:
        sizes = [p.numel() for p in self.parameters]
        for parameter, piece in zip(self.parameters, theta.split(sizes), strict=True):
            parameter.data.copy_(piece.view_as(parameter))


def flat(tensors) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def direction(theta: Tensor, seed: int = 0) -> Tensor:
    """A random unit vector."""
    v = torch.randn(theta.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (v / v.norm()).to(theta.dtype)


def assert_close(ours: Tensor, theirs: Tensor, rtol: float = 1e-10) -> None:
    """As vectors, relative to the norm."""
    assert theirs.norm() > 0
    assert (ours - theirs).norm() <= rtol * theirs.norm()


def check(problem: lg.Problem, plain: Plain) -> None:
    """Value, gradient and products of a problem in float64 beside plain ones."""
    assert torch.equal(problem.theta, plain.theta)
    v = direction(plain.theta)
    assert problem.loss() == pytest.approx(plain.value(), rel=1e-12)
    assert_close(problem.gradient(), plain.gradient())
    Hv = lg.Hessian(problem) @ v
    assert_close(Hv, plain.hessian_product(v))
    assert_close(Hv, plain.along(plain.gradient, v), rtol=1e-6)
    assert_close(lg.GaussNewton(problem) @ v, plain.gauss_newton_product(v), rtol=1e-6)


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """For a test with the fixture ``unchecked``: the type checker draws from Python's generator."""
    before = fingerprint(model)
    yield
    assert fingerprint(model) == before


def fingerprint(model: nn.Module) -> list[object]:
    """All that a measurement must leave alone."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return [
        [(name, id(t), str(t.dtype), content(t)) for name, t in tensors],
        [(name, p.requires_grad, content(p.grad)) for name, p in model.named_parameters()],
        [
            (name, module.training, sorted(module.__dict__), sorted(module._parameters))
            for name, module in model.named_modules()
        ],
        [
            len(hooks)
            for module in model.modules()
            for kind, hooks in sorted(module.__dict__.items())
            if kind.endswith("_hooks")
        ],
        content(torch.get_rng_state()),
        repr(np.random.get_state()),
        random.getstate(),
        torch.is_grad_enabled(),
        torch.backends.mha.get_fastpath_enabled(),
        torch.backends.cuda.flash_sdp_enabled(),
        torch.get_float32_matmul_precision(),
    ]


def content(tensor: Tensor | None) -> bytes | None:
    if tensor is None:
        return None
    return tensor.detach().clone().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
