"""Two processes that have a group of torch.distributed, and call what tests give them."""

import contextlib
import multiprocessing
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

SECONDS = 60.0  # after which a call has hung


class Ended(Exception):  # noqa: N818
    """What a rank says at its end, or the end of a call."""


class Pair:
    """Rank 0 and rank 1 of a group with gloo, which wait for calls.

    They are forked from a server that has imported the library and its tests once.
    """

    def __init__(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.conftest", "tests.contracts.test_matrices"])
        self._folder = tempfile.TemporaryDirectory()
        store = str(Path(self._folder.name) / "store")
        self.processes, self._pipes = [], []
        with _path_for_children():
            for rank in range(2):
                here, there = context.Pipe()
                process = context.Process(target=_serve, args=(rank, store, there), daemon=True)
                process.start()
                there.close()
                self.processes.append(process)
                self._pipes.append(here)

    def __call__(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """What a function of a test module returns on both ranks; raises what it raised on one."""
        found = self.tried(function, *args)
        for outcome in found:
            if isinstance(outcome, Exception):
                raise outcome from outcome.__cause__
        return found

    def tried(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """What a function returns or raises on both ranks, also where one of them ends."""
        for pipe in self._pipes:
            pipe.send((function, args))
        return [_received(pipe) for pipe in self._pipes]

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()
        self._folder.cleanup()


def _received(pipe: Connection) -> Any:
    if not pipe.poll(SECONDS):
        raise TimeoutError(f"a rank has not answered within {SECONDS:g} seconds")
    try:
        outcome, trace = pipe.recv()
    except EOFError:
        return Ended()
    if isinstance(outcome, Exception):
        outcome.__cause__ = Ended(trace)  # which says where it was raised
    return outcome


@contextlib.contextmanager
def _path_for_children() -> Iterator[None]:
    """Let the server of forks find what this process imports."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _serve(rank: int, store: str, pipe: Connection) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    while True:
        function, args = pipe.recv()
        try:
            outcome, trace = function(*args), ""
        except Exception as error:
            outcome, trace = error, traceback.format_exc()
        try:
            pipe.send((outcome, trace))
        except Exception as error:  # of what cannot be sent
            pipe.send((RuntimeError(repr(error)), trace))
