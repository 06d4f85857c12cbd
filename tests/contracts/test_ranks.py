"""What two processes that share the data find is what one process with all of it finds."""

import math
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

import lossgeom as lg
from lossgeom.distributed import OtherRankError
from lossgeom.losses import as_loss
from lossgeom.quadratic import network, taylor
from tests.contracts.test_matrices import KINDS, NAMES, block, close, defined, make
from tests.problems import CASES, Case
from tests.ranks import Ended, Pair

SPLIT = (33, 8, 9)


def problem(ranks: Any = None, split=SPLIT, model=None, loss="cross_entropy", **options):
    """Of 50 examples, with the first batch on rank 0, and the others on rank 1."""
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    model = made if model is None else model
    x, y = torch.randn(50, 5).double(), torch.randint(3, (50,))
    batches = list(zip(x.split(split), y.split(split), strict=True))
    ranks = lg.ranks() if ranks is None else ranks
    mine = batches if ranks.size == 1 else [batches[:1], batches[1:]][ranks.rank]
    return lg.Problem(model, loss, mine, ranks=ranks, **options)


def sharpness() -> tuple[float, int]:
    found = lg.sharpness(problem())
    return found.value, found.matvecs


def test_sharpness_is_that_of_one_process_by_as_many_products(on_two):
    value, matvecs = sharpness()
    for found, spent in on_two(sharpness):
        assert found == pytest.approx(value, rel=1e-12)
        assert spent == matvecs


# Every matrix


SHARED = [name for name in NAMES if {KINDS[name].rows, KINDS[name].columns} == {"parameters"}]
SOME = ("ragged", "weighted", "language_model", "own_form", "sum", "conv", "batchnorm_eval")


def of_case(name: str) -> lg.Problem:
    case = next(case for case in CASES if case.name == name)
    ranks = lg.ranks()
    mine = case.data if ranks.size == 1 else [case.data[:1], case.data[1:]][ranks.rank]
    return case.problem(mine, ranks=ranks)


def products(case: str, names: list[str]) -> dict[str, torch.Tensor]:
    """With two blocks of vectors, of which the second meets what was kept of the first."""
    problem, found = of_case(case), {}
    for name in names:
        A = make(name, problem)
        found[name] = torch.cat([A @ block(A.shape[1]), A @ block(A.shape[1], k=1)], 1)
    return found


@pytest.mark.parametrize("case", [case for case in CASES if case.name in SOME], ids=str)
def test_products_are_those_of_one_process(on_two, case: Case):
    names = [name for name in SHARED if defined(name, case)]
    expected = products(case.name, names)
    for found in on_two(products, case.name, names):
        for name in names:
            close(found[name], expected[name], 1e-12)


def refusals() -> dict[str, str]:
    said, shared = {}, problem()
    kinds: dict[str, Callable[[], Any]] = {
        name: lambda name=name: make(name, shared) for name in set(NAMES) - set(SHARED)
    }
    kinds |= {"network": lambda: network(shared), "taylor": lambda: taylor(shared)}
    for name, measure in kinds.items():
        with pytest.raises(ValueError, match="share the data of the problem") as raised:
            measure()
        said[name] = str(raised.value)
    return said


def test_matrices_on_outputs_say_what_to_do(on_two):
    for said in on_two(refusals):
        assert {"NTK", "ParameterJacobian", "ConjugateGaussNewton", "OutputRoot"} < set(said)
        assert all("make the problem without ranks=, with all" in text for text in said.values())


# Numbers


def numbers() -> dict[str, Any]:
    shared = problem()
    H, G = lg.Hessian(shared), lg.GaussNewton(shared)
    pairs = lg.top_eigenpairs(H, 3, max_basis=9)
    density = lg.spectral_density(H)
    factors = lg.kronecker_factors(shared, curvature="sampled", corrected=True)
    layers = lg.kronecker_errors(shared).layers
    blocks = lg.block_sharpness(shared, {"head": "2.*"}, matvecs=6).values()
    return {
        "loss": shared.loss(),
        "entropy": shared.label_entropy(),
        "gradient": shared.gradient(),
        "trace": lg.trace(H, matvecs=10).value,
        "eigenvalues": pairs.values,
        "products": pairs.matvecs,
        "residuals": lg.top_eigenpairs(H - G, which="magnitude").values,
        "density": density.density,
        "mass": lg.off_block_mass(G, probes=3).value,
        "blocks": [found.average.value for found in blocks],
        "factors": torch.cat([own.matrix.dense().flatten() for own in factors]),
        "best": [lg.best_kronecker(shared, memory_budget=0)[0].singular_value.value],
        "errors": [error.value for own in layers for error in own.errors.values()],
        "the first 40": shared.take(40).loss(),
        "the first 5": shared.take(5).gradient(),
        "elsewhere": shared.at(shared.theta + 0.1).with_parameters("0.*").gradient(),
        "in another loss": shared.with_loss(as_loss("cross_entropy", 0.3)).loss(),
        "healthy": float(lg.doctor(shared).healthy),
        "checked": float(lg.check_derivatives(shared) is None),
    }


def test_numbers_are_those_of_one_process(on_two):
    expected = numbers()
    for found in on_two(numbers):
        for name, value in expected.items():
            torch.testing.assert_close(
                torch.as_tensor(found[name]),
                torch.as_tensor(value),
                rtol=1e-9,
                atol=1e-9,
                msg=lambda text, name=name: f"{name}: {text}",
            )


def noisy(split: tuple[int, ...]) -> tuple[float, float]:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.5), nn.Linear(8, 3)).double()
    shared = problem(split=split, model=model, mode="train", seed=3)
    return shared.loss(), shared.take(45).loss()


def test_a_batch_has_the_same_draw_on_any_process(on_two):
    expected = noisy(SPLIT)
    assert on_two(noisy, SPLIT) == [pytest.approx(expected, rel=1e-12)] * 2


def without_data() -> tuple[torch.Tensor, float]:
    shared = problem(split=(50,))  # all of it on rank 0
    lg.check_derivatives(shared)
    assert lg.doctor(shared).healthy
    assert len(lg.lipschitz_local(shared, 0.1)) == 50
    return lg.Hessian(shared) @ torch.ones(len(shared.theta)).double(), lg.sharpness(shared).value


def without_any() -> str:
    with pytest.raises(ValueError, match="expected at least one batch, got none") as raised:
        lg.Problem(nn.Linear(1, 1), "squared_error", [], ranks=lg.ranks()).loss()
    return str(raised.value)


def test_a_process_without_data_takes_part(on_two):
    product, value = without_data()
    for found, top in on_two(without_data):
        close(found, product, 1e-12)
        assert top == pytest.approx(value, rel=1e-12)
    assert on_two(without_any) == [without_any()] * 2


def with_a_budget(kept: bool) -> tuple[torch.Tensor, int]:
    shared = problem(check=False)
    budget = 0 if kept == (lg.ranks().rank == 0) else None  # so that one of them keeps nothing
    pairs = lg.top_eigenpairs(lg.Hessian(shared, memory_budget=budget), 2)
    return pairs.values, pairs.matvecs


def test_what_is_kept_may_differ(on_two):
    (one, spent), (other, also) = on_two(with_a_budget, True)
    assert torch.equal(one, other)
    assert spent == also
    close(one, on_two(with_a_budget, False)[0][0], 1e-12)


def linear(outputs, batch):
    """A loss that is linear in the outputs of rank 0, and of rank 1 a square, if that is asked."""
    square = outputs.square().sum() if batch.index > 0 else 0.0
    return outputs.sum() + square, len(outputs)


def notes(split: tuple[int, ...]) -> bool:
    shared = problem(split=split, loss=lg.Loss("linear", linear))
    assert (lg.GaussNewton(shared) @ torch.ones(len(shared.theta)).double()).any() == (
        split[1] < 25
    )
    return any("no curvature in the outputs" in note for note in shared.notes)


def test_a_loss_is_linear_where_it_is_so_on_all(on_two):
    assert on_two(notes, (25, 25)) == [True, True]
    assert on_two(notes, (33, 8, 9)) == [False, False]


def factors(split: tuple[int, ...]) -> list[torch.Tensor]:
    shared = problem(split=split)
    errors = lg.kronecker_errors(shared).layers
    return [
        lg.Decoupled(shared, corrected=True).dense(),
        lg.Decoupled(shared, curvature="sampled", sharing="reduce").dense(),
        torch.tensor([error.value for own in errors for error in own.errors.values()]),
    ]


def factors_of_none() -> str:
    shared = lg.Problem(nn.Linear(1, 1), "squared_error", [], ranks=lg.ranks())
    return outcome(lambda: lg.kronecker_factors(shared))[1]


def test_layers_are_of_processes_that_have_data(on_two):
    expected = factors((50,))
    for found in on_two(factors, (50,)):  # all of it on rank 0
        for one, other in zip(found, expected, strict=True):
            close(one, other, 1e-9)
    for said in on_two(factors_of_none):
        assert said.startswith("expected at least one batch, got none")


# Errors


def outcome(measure: Callable[[], Any]) -> tuple[str, str, float]:
    """The type and text of what is raised here; and a loss that is measured afterwards, in step."""
    try:
        measure()
    except Exception as error:
        return type(error).__name__, str(error), problem().loss()
    return "", "", math.nan


def failing(how: str, on: int = 1):
    """A loss that fails on a rank in the pass for the second product."""
    known, calls = as_loss("cross_entropy"), []

    def terms(outputs, batch):
        calls.append(0)
        if lg.ranks().rank == on and len(calls) > 30:
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            elif how == "raise":
                raise KeyError("mine")
            return outputs.sum() * math.nan, len(outputs)
        total, count = known.terms(outputs, batch)
        return total, count

    shared = problem(loss=lg.Loss("failing", terms))
    return lg.top_eigenpairs(lg.Hessian(shared, memory_budget=0))


def failure(how: str) -> tuple[str, str, float]:
    return outcome(lambda: failing(how))


@pytest.mark.parametrize(
    ("how", "kind", "elsewhere", "text"),
    [
        (
            "raise",
            "KeyError",
            "OtherRankError",
            "1 of 2 processes could not measure; the first error, on rank 1: KeyError: 'mine'",
        ),
        ("nan", "NonFiniteError", "NonFiniteError", "the loss is NaN or infinite"),
    ],
)
def test_an_error_in_the_middle_is_one_on_all(on_two, how, kind, elsewhere, text):
    (there, said, loss), (here, _, also) = on_two(failure, how)
    assert (there, here) == (elsewhere, kind)
    assert said.startswith(text)
    assert loss == also == pytest.approx(problem().loss(), rel=1e-12)


def test_a_killed_process_ends_the_measurement_of_the_other():
    pair = Pair()
    try:
        start = time.monotonic()
        there, here = pair.tried(failing, "kill")
        assert isinstance(here, Ended)
        assert isinstance(there, OtherRankError)
        assert "lost the others, of which one has ended" in str(there)
        assert time.monotonic() - start < 60  # which a collective that waits does not keep
    finally:
        pair.close()


def ended(how: str) -> tuple[str, float]:
    """What is raised where rank 1 alone is interrupted, or has what cannot be sent."""
    shared, rank = problem(), lg.ranks().rank

    def interrupted(here: lg.Problem) -> list[Any]:
        if rank == 1 and how == "sent":
            return [lambda: 0]
        if rank == 1:
            raise KeyboardInterrupt
        return []

    try:
        shared.rows(interrupted)
    except BaseException as error:
        return f"{type(error).__name__}: {error}", shared.loss()
    return "", math.nan


@pytest.mark.parametrize(("how", "text"), [("interrupted", "Keyb"), ("sent", "Attr")])
def test_nobody_waits_for_one_that_is_interrupted_or_cannot_send(on_two, how, text):
    (there, loss), (here, also) = on_two(ended, how)
    assert here.startswith(text)
    assert there.startswith("OtherRankError: 1 of 2 processes could not measure; the first error")
    assert loss == also == pytest.approx(problem().loss(), rel=1e-12)


def construction(how: str) -> tuple[str, str, float]:
    rank, model = lg.ranks().rank, nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3)).double()
    options: dict[str, Any] = {"model": model}
    if how == "frozen":
        model[0].bias.requires_grad_(rank == 0)
    if how == "fixed":
        options["parameters"] = "0.weight"
        model[0].bias.data[1] = rank / 4
    if how == "not finite":
        model[0].weight.data[1, 1] /= 1 - rank
    if how == "moved":
        with torch.no_grad():
            model[0].bias += rank * 1e-12
    if how == "averages":
        model[1].running_mean += rank
    if how == "fails":
        options["parameters"] = ["0.*", "none"][rank]
    if how == "loss":
        options["label_smoothing"] = rank / 10
    if how == "mode":
        options["mode"] = ["eval", "train"][rank]
    if how == "dtype":
        options["dtype"] = [torch.float64, torch.float32][rank]
    torch.manual_seed(0)
    return outcome(lambda: problem(**options))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("moved", "the parameters, but 0.bias differs by up to 1e-12 between ranks 0 and 1"),
        (
            "averages",
            "1.running_mean differs by up to 1 between ranks 0 and 1; the running averages",
        ),
        ("not finite", "the parameters, but 0.weight differs in NaN or infinity between ranks 0"),
        ("frozen", "names and shapes, but 0.bias is (3,) on rank 0 and not there on rank 1"),
        ("fixed", "buffers and fixed parameters, but 0.bias differs by up to 0."),
        ("loss", "agree in the loss, got "),
        ("mode", "agree in mode=, got eval on rank 0 and train on rank 1"),
        ("dtype", "agree in their type, got torch.float64 on rank 0"),
        ("fails", "parameters='none'"),
    ],
)
def test_processes_must_have_the_same(on_two, how, said):
    there, here = on_two(construction, how)
    assert said in there[1]
    assert said in here[1]
    assert there[2] == here[2] == pytest.approx(problem().loss(), rel=1e-12)


def out_of_step(how: str) -> tuple[str, str, float]:
    rank, shared = lg.ranks().rank, problem()
    H = lg.Hessian(shared)
    v = torch.ones(len(shared.theta)).double()
    measures: dict[str, list[Callable[[], Any]]] = {
        "point": [shared.loss, shared.at(v).loss],
        "number": [shared.loss, shared.label_entropy],
        "kind": [shared.loss, shared.gradient],
        "vector": [lambda: H @ v, lambda: H @ v.cumsum(0)],
        "matrix": [lambda: H @ v, lambda: lg.GaussNewton(shared) @ v],
        "turn": [lambda: H @ v, shared.loss],
        "seed": [lambda: lg.trace(H, matvecs=10, seed=rank)] * 2,
        "k": [lambda: lg.top_eigenpairs(H, k=1 + rank)] * 2,
        "tol": [lambda: lg.top_eigenpairs(H, tol=(1e-4, 1e-5)[rank])] * 2,
        "take": [lambda: shared.take(3 + rank)] * 2,
        "meeting": [lambda: shared.ranks.gathered(1), shared.loss],
        "budget": [lambda: lg.Hessian(shared, memory_budget=[0, 1000][rank]) @ v] * 2,
    }
    return outcome(measures[how][rank])


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("point", "the parameters"),
        ("number", "what is measured"),
        ("kind", "what is measured"),
        ("vector", "the vectors of a product"),
        ("matrix", "what is measured"),
        ("turn", "what is measured"),
        ("seed", "the vectors of a product"),
        ("k", "k="),
        ("tol", "tol="),
        ("take", "take"),
        ("meeting", "what is asked for"),
    ],
)
def test_processes_out_of_step_say_so(on_two, how, said):
    found = on_two(out_of_step, how)
    for kind, text, loss in found:
        assert kind == "ValueError"
        assert text.startswith(f"expected the processes that share the data to agree in {said}, ")
        assert loss == pytest.approx(problem().loss(), rel=1e-12)


def test_a_budget_that_is_too_small_on_one_is_an_error_on_all(on_two):
    there, here = on_two(out_of_step, "budget")
    assert (there[0], here[0]) == ("OtherRankError", "MemoryBudgetError")
    assert "MemoryBudgetError: a measurement needs at least" in there[1]


def other_groups() -> tuple[float, int]:
    groups = [dist.new_group([0]), dist.new_group([1])]
    own, other = (groups, groups[::-1])[lg.ranks().rank]
    for wrong in (other, 3):
        with pytest.raises(ValueError, match=r"expected a process group .* is part of, got "):
            lg.ranks(wrong)
    return problem(ranks=lg.ranks(own)).loss(), lg.ranks(own).size


def test_a_group_has_this_process(on_two):
    expected = problem().loss()
    for loss, size in on_two(other_groups):
        assert loss == pytest.approx(expected, rel=1e-12)
        assert size == 1


@pytest.mark.usefixtures("unchecked")
def test_ranks_are_ranks():
    with pytest.raises(TypeError, match=r"lossgeom.ranks\(group\) for some .* got int"):
        lg.Problem(nn.Linear(1, 1), "squared_error", [], ranks=2)


def test_processes_without_a_group_are_an_error(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert lg.ranks().size == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="have no group yet; call torch"):
        lg.ranks()
