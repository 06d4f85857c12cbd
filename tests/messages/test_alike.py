"""What is said of what processes do not have alike, and of whose error is told."""

import pickle

import pytest
import torch

from lossgeom.messages.alike import BUFFERS, InParts, Told, by_name, unlike
from lossgeom.messages.notes import Note, first_failure
from lossgeom.stability import UndefinedError


def parts(**tensors):
    return {name: (f"{t.sum():g}", t) for name, t in tensors.items()}


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ({"a": torch.zeros(2)}, {"a": torch.tensor([0, 0.25])}, "but a differs by up to 0.25 be"),
        ({"a": torch.zeros(2)}, {"a": torch.tensor([0, torch.inf])}, "but a differs in NaN or i"),
        ({"a": torch.zeros(2)}, {"a": torch.ones(3)}, "but a is 0 on rank 0 and 3 on rank 2"),
        ({"a": torch.zeros(2)}, {}, "but a is 0 on rank 0 and not there on rank 2"),
        (
            {"a": torch.tensor(False), "b": torch.zeros(1)},
            {"a": torch.tensor(True), "b": torch.ones(1)},
            "but a differs by up to 1 between ranks 0 and 2 (2 differ in all)",
        ),
    ],
)
def test_the_part_that_differs_is_named(one, other, said):
    ranks = [parts(**one), parts(**one), parts(**other)]
    sent = [pickle.loads(pickle.dumps(InParts(str(each), dict))) for each in ranks]
    assert all(isinstance(each, Told) for each in sent)
    found = unlike([{"seed=": 1, "weights": each} for each in sent])
    assert (found.what, found.ranks) == ("weights", (0, 2))
    told = [by_name(each)[1] for each in ranks]
    name = found.parts(told)[0]
    tensors = [each.get(name, ("", None))[1] for each in ranks]
    assert found.in_words(found.detail(found.parts(told), told, tensors)).startswith(
        f"expected the processes that share the data to agree in weights, {said}"
    )


def test_what_one_says_nothing_of_is_alike_and_rounding_is():
    assert unlike([{"layers": None}, {"layers": ["0"]}, {}]) is None
    assert unlike([{"vectors": 1.0}, {"vectors": 1.0 + 1e-9}]) is None
    found = unlike([{BUFFERS: "1"}, {BUFFERS: "2"}])
    assert "got 1 on rank 0 and 2 on rank 1; the running averages" in found.in_words()


def test_an_error_of_ones_own_is_told_before_results_and_those_of_others():
    of_others = Note.of("f", RuntimeError("rank 2 has it"), of_others=True)
    result = Note.of("f", UndefinedError("no step"), of_others=False)
    own = Note.of("f", KeyError("mine"), of_others=False)
    fine = Note("f", {"seed=": 1}, 2.0)
    assert first_failure([fine, fine]) is None
    assert first_failure([fine, of_others, result]) == (2, result, 1)
    assert first_failure([of_others, own, result, own]) == (1, own, 2)
    found = Note.unpacked(result.packed)
    assert isinstance(found.result, UndefinedError)
    assert found.error == "UndefinedError: no step"
    assert Note.unpacked(own.packed).result is None
