"""CPU seconds of importing torch, and of the first name of lossgeom after that.

python -m benchmarks.import_time
"""

import os
import subprocess
import sys

ROUNDS = 7
CODE = """
import time
start = time.process_time()
import torch
torch_there = time.process_time()
import lossgeom
lossgeom.Problem
print(torch_there - start, time.process_time() - torch_there)
"""


def main() -> None:
    """Print the least of some rounds, each a process of its own with compiled files."""
    environment = {k: x for k, x in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    rounds = []
    for _ in range(ROUNDS + 1):  # in the first one, all is compiled
        command = [sys.executable, "-c", CODE]
        printed = subprocess.check_output(command, env=environment, text=True)  # noqa: S603
        rounds.append(tuple(map(float, printed.split())))
    torch, first = (min(seconds) for seconds in zip(*rounds[1:], strict=True))
    ratio = 1 + first / torch
    print(f"torch {torch:.2f} s, lossgeom {first:.2f} s more: {ratio:.2f} times torch's own")  # noqa: T201


if __name__ == "__main__":
    main()
