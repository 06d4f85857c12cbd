"""What a user may have switched on or run short of on a device, and what becomes of the numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, TensorDataset

import lossgeom as lg
from benchmarks.cases import draw
from benchmarks.device_problems import ROUNDED, Check, images, perceptron, products_with
from benchmarks.plain import flat
from lossgeom.lab.models import gpt, mlp, resnet18

AS_FLOAT32, AS_TF32 = 1e-5, 5e-3
ROUGH, TOLD = 0.1, 1e-3  # of bfloat16, and the tolerance of a sharpness
Make = Callable[[str, torch.dtype], lg.Problem]
TF32: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], Any]] = {
    "cuda.matmul.allow_tf32": (
        lambda: torch.backends.cuda.matmul.allow_tf32,
        partial(setattr, torch.backends.cuda.matmul, "allow_tf32"),
        True,
    ),
    "float32_matmul_precision": (
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
        "high",
    ),
    "cuda.matmul.fp32_precision": (
        lambda: torch.backends.cuda.matmul.fp32_precision,
        partial(setattr, torch.backends.cuda.matmul, "fp32_precision"),
        "tf32",
    ),
    "fp32_precision": (
        lambda: torch.backends.fp32_precision,  # type: ignore[attr-defined]
        partial(setattr, torch.backends, "fp32_precision"),
        "tf32",
    ),
}


class Attending(nn.Module):
    """Causal attention, by a back end that a user may ask for."""

    def __init__(self, backend: SDPBackend | None) -> None:
        super().__init__()
        self.qkv, self.out, self.backend = nn.Linear(32, 96), nn.Linear(32, 5), backend

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, 32) to (B, 5)."""
        q, k, v = (part.unflatten(2, (2, 16)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        with nullcontext() if self.backend is None else sdpa_kernel([self.backend]):
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        found: Tensor = self.out(y.transpose(1, 2).flatten(2).mean(1))
        return found


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """A model whose parameters are the same on every device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return make()


def attending(device: str, backend: SDPBackend | None = None) -> lg.Problem:
    """A problem with attention in float32, by a back end that the model asks for on a GPU."""
    model = seeded(lambda: Attending(None if device == "cpu" else backend)).to(device)
    return lg.Problem(model, "cross_entropy", [(draw(5, 8, 40, 32), torch.arange(8) % 5)])


HESSIAN, GAUSS_NEWTON = products_with(lg.Hessian), products_with(lg.GaussNewton)


def of_settings() -> Iterator[Check]:
    """Checks of everything that is a setting of the process, the model or the data."""
    for name in TF32:
        of = partial(_with_tf32, name)
        yield Check(f"TF32/{name}, perceptron", partial(of, wide), tolerance=AS_FLOAT32)
        yield Check(f"TF32/{name}, recurrent", partial(of, recurrent), tolerance=ROUNDED)
        yield Check(f"TF32/{name}, put back", partial(_put_back, name))
        yield Check(f"TF32/{name}, plain double backward", partial(_plain, name), tolerance=AS_TF32)
    yield Check("TF32/convolutions, by default", partial(_in_float32, images), tolerance=ROUNDED)
    yield Check("attention/math back end", HESSIAN, attending, ROUNDED)
    for backend in (SDPBackend.EFFICIENT_ATTENTION, SDPBackend.FLASH_ATTENTION):
        name, at = f"attention/{backend.name.lower()}", partial(attending, backend=backend)
        yield Check(f"{name} around it", partial(_around, backend), tolerance=ROUNDED)
        for kind, products in {"Hessian": HESSIAN, "Gauss-Newton": GAUSS_NEWTON}.items():
            yield Check(f"{name} in the model, {kind}", products, at, ROUNDED, may_refuse=True)
    for dtype in (torch.bfloat16, torch.float16):
        at = partial(perceptron, dtype=dtype)
        yield Check(f"dtypes/{dtype}", HESSIAN, at, ROUNDED)
        yield Check(f"dtypes/{dtype}, sharpness", lg.sharpness, at, ROUNDED)
    yield Check("dtypes/autocast to bfloat16", lg.sharpness, _autocast, ROUGH)
    yield Check("dtypes/autocast around it", _under_autocast)
    yield Check("models/channels_last", HESSIAN, _channels_last, ROUNDED)
    yield Check("models/torch.compile", HESSIAN, _compiled)
    yield Check("models/dropout with a seed, twice", _twice, _dropout)
    yield Check("data/DataLoader with pinned memory", HESSIAN, _loaded)
    yield Check("data/on the device", HESSIAN, perceptron)
    yield Check("data/torch.set_default_device", _by_default, tolerance=TOLD)
    yield Check("traces/parameters, random numbers, gradients, settings", _traces)
    in_float32 = partial(images, dtype=torch.float32)
    for name, made in (("ResNet18", in_float32), ("language model", _language)):
        yield Check(f"repeats/{name}", _twice, made, ROUNDED)
        yield Check(f"repeats/{name}, deterministic", _twice_deterministic, made, 0.0)
    yield Check("memory/what to lower", _short_of_memory)
    if find_spec("transformers") is not None:
        yield Check("models/GPT-2 of transformers", HESSIAN, _hugging, ROUNDED)
        yield Check("models/GPT-2 of transformers, sharpness", lg.sharpness, _hugging, TOLD)


def _in_float32(make: Make, device: str) -> Tensor:
    """Products in float32 on the device, beside float64 on the CPU."""
    return HESSIAN(make(device, torch.float64 if device == "cpu" else torch.float32))


def wide(device: str, dtype: torch.dtype) -> lg.Problem:
    """Matrices that TF32 rounds, if it is let."""
    model = mlp(256, 10, [256, 256], "tanh", 7).to(device, dtype)
    return lg.Problem(model, "cross_entropy", [(draw(6, 64, 256), torch.arange(64) % 10)])


def recurrent(device: str, dtype: torch.dtype) -> lg.Problem:
    """Two recurrent layers, whose kernels in cuDNN have no second derivatives."""
    model = seeded(lambda: _Last(16, 32)).to(device, dtype)
    return lg.Problem(model, "cross_entropy", [(draw(6, 64, 16, 16), torch.arange(64) % 10)])


class _Last(nn.Module):
    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.body, self.head = nn.LSTM(inputs, width, 2, batch_first=True), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.body(x)[0][:, -1])
        return found


def _set(setting: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    read, write, value = TF32[setting]
    before = read()
    write(value)
    return read, partial(write, before)


def _with_tf32(name: str, make: Make, device: str) -> Tensor:
    _, reset = _set(name)
    try:
        return _in_float32(make, device)
    finally:
        reset()


def _put_back(name: str, device: str) -> bool:
    read, reset = _set(name)
    try:
        wide(device, torch.float32).loss()
        return bool(read() == TF32[name][2])
    finally:
        reset()


def _plain(name: str, device: str) -> Tensor:
    """What TF32 does to a product by two backward passes: several digits fewer."""
    dtype = torch.float64 if device == "cpu" else torch.float32
    model = mlp(256, 10, [256, 256], "tanh", 7).to(device, dtype)
    x, y = draw(6, 64, 256).to(device, dtype), (torch.arange(64) % 10).to(device)
    parameters = list(model.parameters())
    _, reset = _set(name)
    try:
        loss = F.cross_entropy(model(x), y)
        first = flat(torch.autograd.grad(loss, parameters, create_graph=True))
        return flat(torch.autograd.grad(first, parameters, torch.ones_like(first)))
    finally:
        reset()


def _around(backend: SDPBackend, device: str) -> Tensor:
    with sdpa_kernel([backend]):
        return HESSIAN(attending(device))


def _few() -> Any:
    return [(draw(0, 40, 6), torch.arange(40) % 4)]


def _autocast(device: str) -> lg.Problem:
    model = mlp(6, 4, [32, 32], "tanh", 5).to(device)
    return lg.Problem(model, "cross_entropy", _few(), autocast=torch.bfloat16)


def _under_autocast(device: str) -> Tensor:
    with torch.autocast(torch.device(device).type, torch.bfloat16):
        return HESSIAN(perceptron(device))


def _channels_last(device: str) -> lg.Problem:
    model: Any = resnet18(width=4, seed=3)
    data = [(draw(1, 8, 3, 16, 16), torch.arange(8) % 10)]
    return lg.Problem(model.to(device, memory_format=torch.channels_last), "cross_entropy", data)


def _compiled(device: str) -> lg.Problem:
    model: Any = torch.compile(mlp(6, 4, [8], "tanh", 5).to(device).double())
    return lg.Problem(model, "cross_entropy", _few())


def _dropout(device: str) -> lg.Problem:
    model = seeded(lambda: nn.Sequential(nn.Linear(6, 9), nn.Dropout(), nn.Linear(9, 4)))
    return lg.Problem(model.to(device), "cross_entropy", _few(), mode="train", seed=0)


def _twice(problem: lg.Problem) -> float:
    """One, and the relative difference between products of two matrices of a problem."""
    first, second = (HESSIAN(problem).double() for _ in range(2))
    return 1.0 + float((first - second).norm() / first.norm())


def _twice_deterministic(problem: lg.Problem) -> float:
    """The same where torch is told to be deterministic."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        return _twice(problem)
    finally:
        torch.use_deterministic_algorithms(False)


def _by_default(device: str) -> Any:
    problem = perceptron(device)
    torch.set_default_device(device)
    try:
        return lg.sharpness(problem), lg.trace(lg.Hessian(problem)), lg.lipschitz_global(problem)
    finally:
        torch.set_default_device(None)


def _loaded(device: str) -> lg.Problem:
    data = TensorDataset(*_few()[0])
    loader = DataLoader(data, batch_size=16, pin_memory=device == "cuda")
    return lg.Problem(mlp(6, 4, [8], "tanh", 5).to(device).double(), "cross_entropy", loader)


def _traces(device: str) -> list[bool]:
    problem = perceptron(device)
    model, on_gpu = problem.model, device == "cuda"
    before = [p.detach().clone() for p in model.parameters()]
    states = [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if on_gpu else [])]
    cudnn: Any = torch.backends.cudnn
    flags = (cudnn.enabled, cudnn.allow_tf32, torch.get_float32_matmul_precision())
    lg.sharpness(problem)
    after = [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if on_gpu else [])]
    return [
        all(map(torch.equal, before, model.parameters())),
        all(map(torch.equal, states, after)),
        all(p.grad is None for p in model.parameters()),
        flags == (cudnn.enabled, cudnn.allow_tf32, torch.get_float32_matmul_precision()),
    ]


def _language(device: str) -> lg.Problem:
    tokens = (draw(8, 8, 33).abs() * 40).long() % 64
    model = gpt(64, 33, seed=2).to(device)
    return lg.Problem(model, "next_token_cross_entropy", [(tokens, tokens)])


def _short_of_memory(device: str) -> list[bool]:
    """Whether the error of a product that does not fit says what to lower, and all goes on."""
    if device != "cuda":
        return [True, True]
    width = 10_000
    model = mlp(10, 2, [width], "tanh", 0).to(device)
    too_many = torch.randn(100, 10).expand(20_000, 100, 10).flatten(0, 1)[:2_000_000]
    problem = lg.Problem(model, "cross_entropy", [(too_many, torch.zeros(len(too_many)).long())])
    try:
        lg.Hessian(problem) @ problem.theta
        told = False
    except torch.OutOfMemoryError as error:
        told = "memory_budget" in str(error)
    torch.cuda.empty_cache()
    return [told, bool(lg.sharpness(perceptron(device)).converged)]


def _hugging(device: str) -> lg.Problem:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=96, n_positions=32, n_embd=32, n_layer=2, n_head=2)
    model = seeded(lambda: GPT2LMHeadModel(config)).to(device)
    tokens = (draw(9, 4, 32).abs() * 40).long() % 96
    return lg.Problem(model, "next_token_cross_entropy", [{"input_ids": tokens, "labels": tokens}])
