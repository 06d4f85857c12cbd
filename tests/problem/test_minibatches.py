"""Problems on single batches, and on random ones."""

from itertools import islice

import pytest
import torch

from lossgeom.problem.minibatches import each_batch, sampled_batches
from tests import reference
from tests.problems import CASES

NAMES = ("ragged", "mapping", "flat_tuple", "classes_last", "own_form", "lstm", "weighted")
KNOWN = [case for case in CASES if case.name in NAMES]


@pytest.mark.parametrize("case", KNOWN, ids=repr)
def test_each_batch_has_its_own_loss(case):
    problem = case.problem()
    problem = problem.at(1.1 * problem.theta)
    parts = list(each_batch(problem))
    alone = [case.problem([batch]).at(problem.theta).loss() for batch in case.data]
    assert [part.loss() for part in parts] == pytest.approx(alone)


@pytest.mark.parametrize("case", KNOWN, ids=repr)
def test_all_examples_in_another_order_have_the_whole_loss(case):
    problem, before = case.problem(), reference.fingerprint(case.model)
    n = len(case.targets)
    first, second = islice(sampled_batches(problem, n), 2)
    assert first.loss() == pytest.approx(problem.loss())
    assert second.loss() == pytest.approx(problem.loss())
    assert reference.fingerprint(case.model) == before


def test_batches_are_drawn_without_replacement_and_independently():
    case = CASES[0]
    rows = {tuple(row.tolist()) for row in case.inputs}
    batches = [p.batches[0][0] for p in islice(sampled_batches(case.problem(), 4), 30)]
    drawn = [{tuple(row.tolist()) for row in batch} for batch in batches]
    assert all(len(batch) == 4 and batch <= rows for batch in drawn)
    assert set.union(*drawn) == rows
    assert len({frozenset(batch) for batch in drawn}) > 20


def test_inputs_stay_with_their_targets():
    case = CASES[0]
    pairs = {tuple(x.tolist()): int(y) for x, y in zip(case.inputs, case.targets, strict=True)}
    part = next(sampled_batches(case.problem(), 5, seed=3))
    ((x, y),) = part.batches
    assert [pairs[tuple(row.tolist())] for row in x] == y.tolist()
    assert torch.equal(part.theta, case.problem().theta)
