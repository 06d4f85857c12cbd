"""An account of what is held, which raises before too much is."""

import pytest
import torch

from lossgeom.linalg import memory as module
from lossgeom.linalg.memory import Memory, MemoryBudgetError, free_memory

pytestmark = pytest.mark.quick
MB = 2**20


def account(budget):
    made = Memory(budget)
    made.all_along["a copy"] = 2 * MB
    made.steps.update({"a look": 3 * MB, "a product": 5 * MB})
    return made


def test_what_a_budget_leaves():
    assert account(0).room == 0
    assert account(0).announced == account(0).least == 7 * MB
    assert account(None).announced == 7 * MB + module.MEMORY_BUDGET
    made = account(10 * MB)
    with made.holding("a basis", MB):
        assert made.room == 2 * MB
        assert made.announced == 10 * MB
        assert "a basis: 1 MB, to be faster" in str(made)
    assert made.room == 3 * MB
    assert made.vectors(MB, most=60) == 3
    assert account(0).vectors(MB, most=60) == 0


def test_without_a_budget_half_of_the_machine_may_hold_vectors(monkeypatch):
    monkeypatch.setattr(module, "free_memory", lambda device: 100 * module.MEMORY_BUDGET)
    assert account(None).vectors(module.MEMORY_BUDGET, most=60) == 50
    monkeypatch.setattr(module, "free_memory", lambda device: None)  # where it does not say
    assert account(None).vectors(module.MEMORY_BUDGET, most=60) == 1
    account(None).check()


def test_more_than_there_is():
    said = r"at least 7 MB \(a copy: 2 MB; a product: 5 MB\), and"
    with pytest.raises(MemoryBudgetError, match=said):
        account(6 * MB).check()
    with (
        pytest.raises(MemoryBudgetError, match="and 4 MB for a basis, of which 10 MB are there"),
        account(10 * MB).holding("a basis", 4 * MB),
    ):
        pass


def test_more_than_the_machine_has(monkeypatch):
    monkeypatch.setattr(module, "free_memory", lambda device: 4 * MB)
    for budget in (0, None, 2**40):
        with pytest.raises(MemoryBudgetError, match="and cpu has 4 MB left; give batches of fewer"):
            account(budget).check()
    with (
        pytest.raises(MemoryBudgetError, match="5 MB for a basis, of which 4 MB are there"),
        account(0).holding("a basis", 5 * MB),
    ):
        pass


def test_what_is_free(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(module, "OF_GROUP", tmp_path)
    cpu = torch.device("cpu")
    assert free_memory(cpu) is None
    (tmp_path / "meminfo").write_text("MemTotal: 900 kB\nMemAvailable:   800 kB\n")
    assert free_memory(cpu) == 800 * 1024
    (tmp_path / "memory.max").write_text("500000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    (tmp_path / "memory.stat").write_text("anon 300000\nfile 50000\n")
    assert free_memory(cpu) == 150000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory(cpu) == 800 * 1024


def test_vectors_are_held_on_the_cpu_where_a_gpu_has_no_room(monkeypatch):
    gpu = torch.device("cuda")
    left = {"cuda": 10 * MB, "cpu": 100 * MB}
    monkeypatch.setattr(module, "free_memory", lambda device: left[device.type])
    monkeypatch.setattr(module, "MEMORY_BUDGET", 0)
    memory = Memory(device=gpu)
    assert memory.for_vectors(MB, 5) is memory
    assert memory.for_vectors(MB, 6).device.type == "cpu"
    assert memory.for_vectors(MB, 5, "cpu").device.type == "cpu"
    assert memory.for_vectors(MB, 6, gpu) is memory
    given = Memory(4 * MB, gpu)
    assert given.for_vectors(MB, 6) is given
