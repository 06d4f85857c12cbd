"""Count what a first sharpness passes through: files, functions, depth, copies, forward passes.

    python tools/count_path.py

A reader who follows ``lg.sharpness(problem)`` has to open these files and read these functions. The
problem is a small one, made and measured as a user makes the first one of a session; everything is
imported beforehand. A comprehension, which Python before 3.12 calls as a function, counts as a part
of the function that it stands in.
"""

import copy
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from unittest import mock

import torch
from torch import Tensor, nn

import lossgeom as lg

SOURCE = Path(lg.__file__).parent
COMPREHENSIONS = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")


@dataclass(frozen=True)
class Count:
    """What one call passes through, of the files in ``src/lossgeom``."""

    functions: dict[str, list[str]]  # the names of those that are called, by file
    depth: int  # of the stack, counting lossgeom's own frames
    deep_copies: int
    forward_passes: int

    @property
    def files(self) -> int:
        """How many files have a function that is called."""
        return len(self.functions)

    @property
    def total(self) -> int:
        """How many functions are called."""
        return sum(len(names) for names in self.functions.values())


def counted(call: Callable[[], object], model: nn.Module) -> Count:
    """Make a call, and count what it passes through and how often it copies and runs a model."""
    entered: set[CodeType] = set()
    depth = deepest = 0

    def profile(frame: FrameType, event: str, _: object) -> None:
        nonlocal depth, deepest
        code = frame.f_code
        if event in ("call", "return") and code.co_filename.startswith(str(SOURCE)):
            depth += 1 if event == "call" else -1
            deepest = max(deepest, depth)
            entered.add(code)

    copied = mock.Mock(side_effect=copy.deepcopy)
    passes = mock.Mock(side_effect=type(model).forward)
    with (
        mock.patch("copy.deepcopy", copied),
        mock.patch.object(type(model), "forward", lambda *args: passes(*args)),
    ):
        sys.setprofile(profile)
        try:
            call()
        finally:
            sys.setprofile(None)
    of_modules = [c for c in copied.call_args_list if isinstance(c.args[0], nn.Module)]
    return Count(by_file(entered), deepest, len(of_modules), passes.call_count)


def by_file(entered: set[CodeType]) -> dict[str, list[str]]:
    """The names of functions that are no comprehensions, by the file that they are in."""
    found: dict[str, list[str]] = defaultdict(list)
    for code in entered:
        if code.co_name not in COMPREHENSIONS:
            file = Path(code.co_filename).relative_to(SOURCE).as_posix()
            found[file].append(getattr(code, "co_qualname", code.co_name))
    return {file: sorted(found[file]) for file in sorted(found)}


class Perceptron(nn.Module):
    """A class of its own, so that its forward passes alone are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Three scores for each example."""
        scores: Tensor = self.layers(x)
        return scores


def first_sharpness() -> Count:
    """Count what the first sharpness of a perceptron passes through, its problem included."""
    torch.manual_seed(0)
    model = Perceptron()
    batches = [(torch.randn(20, 8), torch.randint(3, (20,))) for _ in range(2)]

    def measure() -> object:
        return lg.sharpness(lg.Problem(model, "cross_entropy", batches))

    measure()  # which imports what is imported late
    return counted(measure, model)


def main() -> None:
    """Print the count, file by file."""
    found = first_sharpness()
    lines = [
        f"{file} ({len(names)}): {', '.join(names)}" for file, names in found.functions.items()
    ]
    lines += [
        f"{found.files} files, {found.total} functions, {found.depth} deep; "
        f"{found.deep_copies} deep copies of the model, {found.forward_passes} forward passes"
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
