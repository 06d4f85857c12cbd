"""Slow, dense, plain code for what the library computes fast."""

import copy
import functools
from collections.abc import Callable
from fnmatch import fnmatchcase

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.problems import Case, Inputs, call, rows


def trainable(case: Case, model: nn.Module) -> list[nn.Parameter]:
    patterns = case.options.get("parameters", ["*"])
    return [
        p
        for name, p in model.named_parameters()
        if p.requires_grad and any(fnmatchcase(name, pattern) for pattern in patterns)
    ]


@functools.cache
def _copy_for_writing(case: Case) -> nn.Module:
    return _copied(case.model).train(case.options.get("mode") == "train")


def with_parameters(case: Case, theta: Tensor) -> nn.Module:
    """The copy of a case's model with theta written into its parameters, the same one each time."""
    model = _copy_for_writing(case)
    offset = 0
    for parameter in trainable(case, model):
        piece = theta[offset : offset + parameter.numel()]
        parameter.data.copy_(piece.view_as(parameter))
        offset += parameter.numel()
    return model


def _copied(model: nn.Module) -> nn.Module:
    """As copy.deepcopy, but without what the old hook of weight norm has written."""
    hooked = {m: m.__dict__.pop("weight") for m in model.modules() if "weight_g" in m._parameters}
    try:
        return copy.deepcopy(model)
    finally:
        for module, weight in hooked.items():
            module.__dict__["weight"] = weight


def run(case: Case, model: nn.Module, inputs: Inputs | None = None) -> Tensor:
    """The outputs on all data, or on some inputs."""
    inputs = case.inputs if inputs is None else inputs
    index = torch.arange(len(case.targets))
    with torch.random.fork_rng(devices=[]), sdpa_kernel(SDPBackend.MATH):
        if "seed" in case.options:
            sequence = np.random.SeedSequence((case.options["seed"], 0))
            torch.manual_seed(int(sequence.generate_state(1)[0]))
        if case.name == "own_form":  # whose model sees a part of the batch only
            return model(inputs[0])
        outputs = call(model, rows(inputs, index) if inputs is case.inputs else inputs)
    return outputs["logits"] if isinstance(outputs, dict) else outputs


def theta_of(case: Case) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in trainable(case, case.model)])


def loss(case: Case, theta: Tensor) -> float:
    """The criterion of all outputs at once."""
    return case.criterion(outputs(case, theta), case.targets).item()


def outputs(case: Case, theta: Tensor) -> Tensor:
    with torch.no_grad():
        return run(case, with_parameters(case, theta))


def gradient(case: Case, theta: Tensor) -> Tensor:
    """By one backward pass into .grad."""
    model = with_parameters(case, theta)
    model.zero_grad()
    case.criterion(run(case, model), case.targets).backward()
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in trainable(case, model)]
    return torch.cat([grad.reshape(-1) for grad in grads])


def central_differences(function: Callable[[Tensor], Tensor], x: Tensor, h: float = 1e-5) -> Tensor:
    """The Jacobian of a function, a column at a time."""
    columns = []
    for i in range(x.numel()):
        step = torch.zeros_like(x)
        step[i] = h
        columns.append((function(x + step) - function(x - step)) / (2 * h))
    return torch.stack(columns, dim=-1)


@functools.cache
def hessian(case: Case) -> Tensor:
    """Central differences of the gradient, so that no second derivative of autograd is used."""
    H = central_differences(lambda t: gradient(case, t), theta_of(case))
    return (H + H.T) / 2


@functools.cache
def parameter_jacobian(case: Case) -> Tensor:
    return central_differences(lambda t: outputs(case, t).reshape(-1), theta_of(case))


@functools.cache
def output_hessian(case: Case) -> Tensor:
    """The Hessian of the empirical loss in all outputs."""
    at = outputs(case, theta_of(case))

    def gradient_in_outputs(f: Tensor) -> Tensor:
        f = f.clone().requires_grad_()
        case.criterion(f.view(at.shape), case.targets).backward()
        return f.grad

    H = central_differences(gradient_in_outputs, at.reshape(-1))
    return (H + H.T) / 2


@functools.cache
def gauss_newton(case: Case) -> Tensor:
    J = parameter_jacobian(case)
    return J.T @ output_hessian(case) @ J


def decoupled(case: Case) -> Tensor:
    """Blocks of linear layers and convolutions, from differences in what they put out."""
    model = with_parameters(case, theta_of(case))
    H, N = output_hessian(case), len(case.targets)
    counts = H.reshape(N, -1).any(1)  # an example whose targets are ignored does not
    blocks = {}
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            x, M = _inputs_and_output_hessians(case, model, module, H)
            inputs, outputs = x[counts].flatten(0, 1), M.sum(0)
            blocks[module.weight] = torch.kron(outputs, inputs.T @ inputs / len(inputs))
            blocks[module.bias] = outputs
    return torch.block_diag(*(blocks[p] for p in trainable(case, model)))


def _inputs_and_output_hessians(
    case: Case, model: nn.Module, module: nn.Module, H: Tensor
) -> tuple[Tensor, Tensor]:
    """Inputs (N, S, n) of a layer, of all its calls, and the Hessians (NS, m, m) at its outputs."""
    N, inputs, shapes = len(case.targets), [], []

    def note(_, args, output):
        x = args[0].detach().clone()
        if isinstance(module, nn.Conv2d):
            x = F.unfold(x, module.kernel_size, module.dilation, module.padding, module.stride).mT
        inputs.append(x.reshape(N, -1, x.shape[-1]))
        shapes.append(output.shape)

    def shifted(shift: Tensor) -> Tensor:
        parts = list(shift.split([shape.numel() for shape in shapes]))
        add = module.register_forward_hook(lambda _, __, y: y + parts.pop(0).view(y.shape))
        with add, torch.no_grad():
            return run(case, model).reshape(-1)

    with module.register_forward_hook(note), torch.no_grad():
        run(case, model)
    sizes = [shape.numel() for shape in shapes]
    J = central_differences(shifted, torch.zeros(sum(sizes), dtype=torch.float64))
    rows = []
    for part, shape in zip(J.split(sizes, 1), shapes, strict=True):
        part = part.reshape(len(J), *shape)
        part = part.movedim(2, -1) if isinstance(module, nn.Conv2d) else part
        rows.append(part.reshape(len(J), -1, part.shape[-1]))
    at = torch.cat(rows, 1)
    return torch.cat(inputs, 1), torch.einsum("asi,ab,bsj->sij", at, H, at)


def residual(case: Case) -> Tensor:
    return hessian(case) - gauss_newton(case)


@functools.cache
def observation_gradients(case: Case) -> Tensor:
    """The gradient of every observation's term of the summed loss, M x P."""

    def terms(theta: Tensor) -> Tensor:
        return case.terms(outputs(case, theta), case.targets)

    return central_differences(terms, theta_of(case))


def divisor(case: Case) -> float:
    return case.divisor(outputs(case, theta_of(case)), case.targets)


def empirical_fisher(case: Case) -> Tensor:
    G = observation_gradients(case)
    return G.T @ G / divisor(case)


def gradient_covariance(case: Case) -> Tensor:
    """Of the observations that count, each scaled so that the mean is the gradient."""
    G = observation_gradients(case)
    G = G[case.terms(outputs(case, theta_of(case)), case.targets) != 0]
    return torch.cov((G * len(G) / divisor(case)).T, correction=0).reshape(G.shape[1], -1)


def layers(case: Case) -> Tensor:
    """For each parameter in theta, which module it belongs to."""
    names = {id(p): name for name, p in case.model.named_parameters()}
    owners = [names[id(p)].rpartition(".")[0] for p in trainable(case, case.model)]
    numbers = [sorted(set(owners)).index(owner) for owner in owners]
    sizes = [p.numel() for p in trainable(case, case.model)]
    return torch.tensor(numbers).repeat_interleave(torch.tensor(sizes))


def jacobian(case: Case, inputs: Tensor, softmax: bool) -> Tensor:
    """(N, C, D), an example and an input coordinate at a time, in eval mode."""
    model = _copied(case.model).eval()

    def output(x: Tensor) -> Tensor:
        with torch.no_grad():
            f = model(x.view(1, *inputs.shape[1:])).reshape(-1)
        return f.softmax(0) if softmax else f

    return torch.stack([central_differences(output, x.reshape(-1)) for x in inputs])


def joined(A: Tensor, m: int, n: int) -> Tensor:
    """A block on m x (n - 1) weights and then m biases, in the order of the m x n of both."""
    weights, biases = torch.arange(m * (n - 1)).view(m, n - 1), torch.arange(m * (n - 1), m * n)
    order = torch.cat([weights, biases[:, None]], 1).flatten()
    return A[order][:, order]


def fingerprint(model: nn.Module) -> list[object]:
    """Everything about a model and the random state that a measurement must leave alone."""
    import random

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
        [np.asarray(part).tobytes() for part in np.random.get_state()],
        torch.is_grad_enabled(),
        torch.backends.mha.get_fastpath_enabled(),
        torch.get_float32_matmul_precision(),
    ]  # fmt: skip
