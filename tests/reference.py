"""Slow, dense, plain code for what the library computes fast."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.problems import Case


def trainable(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def with_parameters(case: Case, theta: Tensor) -> nn.Module:
    """A copy of the model with theta written into its parameters."""
    model = copy.deepcopy(case.model)
    model.train(case.options.get("mode") == "train")
    offset = 0
    for parameter in trainable(model):
        piece = theta[offset : offset + parameter.numel()]
        parameter.data.copy_(piece.view_as(parameter))
        offset += parameter.numel()
    return model


def theta_of(case: Case) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in trainable(case.model)])


def loss(case: Case, theta: Tensor) -> float:
    """The criterion of all outputs at once."""
    return case.criterion(with_parameters(case, theta)(case.inputs), case.targets).item()


def gradient(case: Case, theta: Tensor) -> Tensor:
    """By one backward pass into .grad."""
    model = with_parameters(case, theta)
    with sdpa_kernel(SDPBackend.MATH):
        case.criterion(model(case.inputs), case.targets).backward()
    return torch.cat([p.grad.reshape(-1) for p in trainable(model)])


def central_differences(function: Callable[[Tensor], Tensor], x: Tensor, h: float = 1e-5) -> Tensor:
    """The Jacobian of a function, a column at a time."""
    columns = []
    for i in range(x.numel()):
        step = torch.zeros_like(x)
        step[i] = h
        columns.append((function(x + step) - function(x - step)) / (2 * h))
    return torch.stack(columns, dim=-1)


def hessian(case: Case, theta: Tensor) -> Tensor:
    """Central differences of the gradient, so that no second derivative of autograd is used."""
    H = central_differences(lambda t: gradient(case, t), theta)
    return (H + H.T) / 2


def gauss_newton(case: Case, theta: Tensor) -> Tensor:
    """J^T (d^2 loss / d outputs^2) J, with J and the loss Hessian by differences."""

    def outputs(t: Tensor) -> Tensor:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            return with_parameters(case, t)(case.inputs).reshape(-1)

    shape = with_parameters(case, theta)(case.inputs).shape

    def gradient_in_outputs(f: Tensor) -> Tensor:
        f = f.clone().requires_grad_()
        case.criterion(f.view(shape), case.targets).backward()
        return f.grad

    J = central_differences(outputs, theta)
    H = central_differences(gradient_in_outputs, outputs(theta))
    return J.T @ ((H + H.T) / 2) @ J


def jacobian(case: Case, inputs: Tensor, softmax: bool) -> Tensor:
    """(N, C, D), an example and an input coordinate at a time, in eval mode."""
    model = copy.deepcopy(case.model).eval()

    def outputs(x: Tensor) -> Tensor:
        with torch.no_grad():
            f = model(x.view(1, *inputs.shape[1:])).reshape(-1)
        return f.softmax(0) if softmax else f

    return torch.stack([central_differences(outputs, x.reshape(-1)) for x in inputs])


def fingerprint(model: nn.Module) -> list[object]:
    """Everything about a model and the random state that a measurement must leave alone."""
    import random

    import numpy as np

    tensors = [*model.named_parameters(), *model.named_buffers()]
    return [
        [(name, t.detach().clone().numpy().tobytes(), id(t)) for name, t in tensors],
        [(n, p.requires_grad, None if p.grad is None else p.grad.clone().numpy().tobytes())
         for n, p in model.named_parameters()],
        [(name, module.training, len(module._forward_hooks), len(module._forward_pre_hooks),
          len(module._backward_hooks), sorted(module._parameters), sorted(module.__dict__))
         for name, module in model.named_modules()],
        torch.get_rng_state().numpy().tobytes(),
        random.getstate(),
        repr(np.random.get_state()),
        torch.is_grad_enabled(),
    ]  # fmt: skip
