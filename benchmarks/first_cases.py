"""One figure of ``benchmarks.first``, in this process: a model, and a product with its Hessian."""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import lossgeom as lg
from benchmarks.cases import CLASSES, INITIAL, Case, draw
from benchmarks.memory import peak_megabytes
from benchmarks.peers import PEERS
from benchmarks.plain import gradient, hessian_product, unit_vectors
from benchmarks.timing import said, timed, unit
from lossgeom.lab.models import gpt, mlp, resnet18

TOKENS, VOCABULARY = 128, 50_257
RIGHT = 1e-3  # relative to plain double backward, in float32

# Parameters: vocabulary, layers, width and heads of a transformer.
SIZES = {
    "1M": (1_000, 4, 128, 4),
    "4M": (2_000, 5, 240, 4),
    "16M": (5_000, 8, 384, 6),
    "64M": (24_000, 10, 640, 10),
    "124M": (VOCABULARY, 12, 768, 12),
}


class Logits(nn.Module):
    """The logits of a model of Hugging Face's."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, T) to logits (B, T, vocabulary)."""
        logits: Tensor = self.model(tokens).logits
        return logits


def texts(vocabulary: int) -> list[tuple[Tensor, Tensor]]:
    """Two sequences of random tokens, and the token after each."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(vocabulary, (2, TOKENS + 1), generator=generator)
    return [(tokens[:, :-1], tokens[:, 1:])]


def transformer(size: str) -> Case:
    """The lab's transformer of a size."""
    vocabulary, layers, width, heads = SIZES[size]
    model = gpt(vocabulary, TOKENS, layers, width, heads, seed=INITIAL).eval()
    return Case(size, f"GPT of {size}", model, texts(vocabulary), loss="token_cross_entropy")


def gpt2_case(quick: bool) -> Case:
    """GPT-2 with random weights, or the lab's transformer of its size without transformers."""
    try:
        sys.modules.setdefault("torchvision", None)  # type: ignore[arg-type]  # which is not needed
        transformers: Any = importlib.import_module("transformers")
    except ImportError:
        case = transformer("1M" if quick else "124M")
        return replace(case, title=f"{case.title}, 2 x {TOKENS} tokens")
    torch.manual_seed(INITIAL)
    small = {"n_layer": 2, "n_embd": 64, "n_head": 4} if quick else {}
    config = transformers.GPT2Config(attn_implementation="eager", **small)
    model = Logits(transformers.GPT2LMHeadModel(config).eval()).eval()
    title = f"GPT-2, 2 x {TOKENS} tokens of {VOCABULARY:,}"
    return Case("gpt2", title, model, texts(VOCABULARY), loss="token_cross_entropy")


def resnet18_case(quick: bool) -> Case:
    """A ResNet in eval mode."""
    n, width = (8, 8) if quick else (64, 64)
    model = resnet18(width=width, seed=INITIAL).eval()
    data = [(draw(1, n, 3, 32, 32), torch.arange(n) % CLASSES)]
    return Case("resnet18", f"ResNet18 of width {width}, eval mode, {n} images", model, data)


def mlp_case(quick: bool) -> Case:
    """A perceptron whose parameters are much more than its activations."""
    n, widths = (32, [64, 64]) if quick else (512, [4096, 3500])
    model = mlp(784, CLASSES, widths, "tanh", INITIAL).eval()
    title = f"MLP 784-{'-'.join(map(str, widths))}-{CLASSES}, {n} examples"
    return Case("mlp", title, model, [(draw(1, n, 784), torch.arange(n) % CLASSES)])


LINES: dict[str, Callable[[bool], Case]] = {
    "gpt2": gpt2_case,
    "resnet18": resnet18_case,
    "mlp": mlp_case,
}


@dataclass(frozen=True)
class Ours:
    """This library with some settings.

    Attributes:
        check: whether derivatives are compared with differences.
        memory_budget: of the matrix.
    """

    check: bool = True
    memory_budget: int | None = None

    def matrix(self, case: Case) -> lg.Hessian:
        """Make the Hessian of a case."""
        problem = lg.Problem(case.model, case.loss, case.batches, mode=case.mode, check=self.check)
        return lg.Hessian(problem, memory_budget=self.memory_budget)


RIVALS: Mapping[str, Ours | str] = {
    "plain double backward": "double_backward",
    "lossgeom": Ours(),
    "lossgeom, memory_budget=0": Ours(memory_budget=0),
    "lossgeom, check=False": Ours(check=False),
    "lossgeom, memory_budget=0, check=False": Ours(check=False, memory_budget=0),
    "curvlinops": "curvlinops",
    "hessian-eigenthings": "hessian_eigenthings",
}


def product_of(rival: Ours | str, case: Case) -> tuple[Callable[[Tensor], Tensor], Any]:
    """A function that multiplies by the Hessian, and the matrix where it is ours."""
    if isinstance(rival, Ours):
        matrix = rival.matrix(case)
        return matrix.__matmul__, matrix
    build = PEERS[rival].hessian
    if build is None:
        raise TypeError(f"{rival} has no Hessian products")
    return build(case), None


def of_line(line: str, name: str, quick: bool) -> dict[str, Any]:
    """The first and the next product of a rival, and the peak of the first."""
    rival = RIVALS[name]
    if isinstance(rival, str) and not PEERS[rival].available:
        return {"status": "absent", "message": f"not installed; {PEERS[rival].install}"}
    case = LINES[line](quick)
    (v,) = unit_vectors(case, 1)
    warm(rival)
    seconds, held = unit(partial(gradient, case)), []
    case.model.zero_grad()

    def first() -> None:
        product, matrix = product_of(rival, case)
        held.append((product, matrix, product(v)))

    took: list[float] = []
    peak = peak_megabytes(lambda: took.append(timed(first)[0]))
    ((product, matrix, result),) = held
    after = min(timed(partial(product, v))[0] for _ in range(2))
    expected = hessian_product(case, v)
    error = float((result - expected).norm() / expected.norm())
    found = {
        "status": "right" if error < RIGHT else "wrong",
        "title": f"{case.title}; P = {case.P:,}, a gradient takes {seconds:.2f} s",
        "error": error,
        "gradient_seconds": seconds,
        "first": took[0] / seconds,
        "next": after / seconds,
        "megabytes": peak,
    }
    if matrix is None:
        return {**found, "notes": [note] if (note := PEERS[str(rival)].notes) else []}
    announced = matrix.memory.announced / 2**20
    return {**found, "announced": announced, "notes": list(matrix.problem.notes)}


def warm(rival: Ours | str) -> None:
    """Let libraries load what they load in their first product, on a model of another kind."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    model.append(nn.Linear(144, CLASSES)).eval()
    case = Case("warm", "", model, [(draw(1, 8, 3, 8, 8), torch.arange(8))])
    product_of(rival, case)[0](unit_vectors(case, 1)[0])


def of_size(size: str, quick: bool) -> dict[str, Any]:
    """What lossgeom takes on a transformer of a size, and the top eigenpair."""
    case = transformer("1M" if quick else size)
    (v,) = unit_vectors(case, 1)
    warm(Ours())
    seconds = unit(partial(gradient, case))
    case.model.zero_grad()
    matrices, took = [], []

    def first() -> None:
        matrices.append(Ours().matrix(case))
        matrices[0] @ v

    peak = peak_megabytes(lambda: took.append(timed(first)[0]))
    (matrix,) = matrices
    after = min(timed(lambda: matrix @ v)[0] for _ in range(2))
    pairs: list[lg.EigenPairs] = []
    peak_of_pair = peak_megabytes(
        lambda: took.append(timed(lambda: pairs.append(lg.top_eigenpairs(matrix)))[0])
    )
    return {
        "status": "right" if bool(pairs[0].converged.all()) else "wrong",
        "size": size,
        "parameters": case.P,
        "gradient_seconds": seconds,
        "first": took[0] / seconds,
        "next": after / seconds,
        "megabytes": peak,
        "by_theta": math.nan if peak is None else peak * 2**20 / (4 * case.P),
        "announced": matrix.memory.announced / 2**20,
        "products": pairs[0].matvecs,
        "eigenpair": took[1] / seconds,
        "eigenpair_megabytes": peak_of_pair,
    }


def main(task: str, name: str, quick: str) -> int:
    """Measure, and write a line of JSON."""
    try:
        small = quick == "1"
        found = of_size(name, small) if task == "scale" else of_line(task, name, small)
    except Exception as error:  # of whatever a competitor is; its words are its result
        found = {"status": "error", "message": said(error)}
    sys.stdout.write(f"{json.dumps(found)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
