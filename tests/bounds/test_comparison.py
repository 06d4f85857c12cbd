"""The table of all bounds: what it says of each, and of what it was not given."""

import copy
import math
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.bounds import (
    Bound,
    Cube,
    Gaussian,
    MeasuredCovering,
    PushForward,
    Row,
    compare,
    generalisation_bounds,
)
from lossgeom.bounds._coverings import _until, examples_for, shrinking
from lossgeom.bounds._families import FAMILIES, _nearer
from lossgeom.bounds._given import Given, fresh
from lossgeom.bounds.comparison import Comparison, unchanged
from lossgeom.bounds.row import falling

NEW = "Distance from the teacher on new inputs (MacDonald et al., theorem 6.1)"


def mlp(inputs, outputs, seed, scale=1.0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(inputs, 6), nn.Tanh(), nn.Linear(6, outputs)).double()
    net[2].weight.data *= scale
    return net


def regression(seed=0, N=30, close=1e-3):
    """A teacher on inputs that a generator makes of a square, and a student that is near it."""
    generator, teacher = mlp(2, 3, seed), mlp(3, 2, seed + 1)
    student = copy.deepcopy(teacher)
    g = torch.Generator().manual_seed(seed)
    for held in student.parameters():
        held.data += close * torch.randn(held.shape, generator=g, dtype=held.dtype)
    u = Cube(2).sample(N, seed)
    with torch.no_grad():
        x = generator(u)
        problem = lg.Problem(student, "squared_error", [(x, teacher(x))])
    known = {"distribution": Cube(2), "generator": generator, "latents": u, "teacher": teacher}
    return problem, known


def classifier():
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)).double()
    return lg.Problem(mlp(3, 2, 0), "cross_entropy", [(x, (x[:, 0] > 0).long())])


def bound(value, **others):
    return Bound(value, "an error", 0.95, {}, (), "A theorem", **others)


@pytest.mark.quick
def test_numbers_of_a_row_in_closed_form():
    lower = bound(0.5, side="lower", trivial=0.0, terms={"pair": 2.0, "variation": -1.5})
    assert Row("a", lower, 2.0).tightness == 4
    assert Row("a", lower, 2.0).dominant == "pair (57%)"
    assert Row("a", bound(0.0), 0.0).tightness == 1
    assert Row("a", bound(0.1), 0.0).tightness == math.inf
    assert Row("a", bound(-1.0, side="lower", trivial=0.0), 2.0).tightness == math.inf
    assert Row("a", bound(0.1)).tightness is None
    assert Row(missing="needs more").cells == ["", "-", "missing", "-", "-", "-", "-"]
    assert Row("a", bound(0.1, certified=False)).kind == "estimate"
    assert Row("a", bound(math.nan)).vacuous


def test_what_would_have_to_change_is_enough():
    """A bound with the term as it is told to be is at the trivial value, on either side."""
    high = bound(7.0, terms={"fit": 1.0, "slope": 6.0}, trivial=3.0)
    assert falling(high) == "slope would have to fall from 6 to 2"
    low = bound(-1.5, side="lower", trivial=0.0, terms={"pair": 2.0, "variation": -3.5})
    assert falling(low) == "variation would have to fall from 3.5 to 2"
    assert falling(bound(9.0)) == ""
    assert "vacuous, it is at least 0 in any case: variation" in Row("a", low).said[0]


@pytest.mark.parametrize("terms", [{"fit": 0.1, "Jacobian": 2.0, "target": 1.0, "variation": 5.0},
                                   {"Jacobian": 1.0}, {"variation": 3.0}])  # fmt: skip
def test_the_shrunk_covering_gives_the_goal(terms):
    factor = shrinking(bound(sum(terms.values()), terms=terms), 0.5)
    powers = {"fit": 0, "variation": 2}
    left = sum(term * factor ** powers.get(name, 1) for name, term in terms.items())
    assert left == pytest.approx(0.5)
    assert shrinking(bound(2.0, terms={"fit": 1.0, "Jacobian": 1.0}), 0.9) == 0


@pytest.mark.parametrize(("support", "N"), [(Cube(1), 300), (Cube(2), 5000), (Cube(3), 12)])
def test_as_many_examples_as_the_radius_takes(support, N):
    told = examples_for(support, 0.05, support.radius(N, 0.05))
    assert float(told.removeprefix("about N = ").replace(",", "")) == pytest.approx(N, rel=0.01)
    assert examples_for(Cube(50), 0.05, 0.01) == "more than N = 1e+18"


@pytest.fixture(scope="module")
def whole():
    """A comparison of all that there is, with what it was made from."""
    problem, known = regression()
    problem.model.float().train()  # which is not what is measured, but what has to be left alone
    modules = [problem.model, known["generator"].float(), known["teacher"].float()]
    before, state = [copy.deepcopy(m.state_dict()) for m in modules], torch.get_rng_state()
    found = compare(problem, **known, lr=0.01, batch_size=6)
    return problem, known, found, modules, before, state


def test_no_bound_is_violated_and_numbers_are_those_of_the_theorems(whole):
    problem, known, found, *_ = whole
    assert list(dict.fromkeys(row.family for row in found.rows)) == [f.title for f in FAMILIES]
    rows = [row for row in found.rows if row.bound is not None]
    assert all(row.unit for row in rows)
    assert {row.unit for row in rows if "Response" in row.family} == {
        "units of the outputs per unit of what a layer is called with", "the same to the power 2"
    }  # fmt: skip
    drawn = [row.unit for row in rows if "theorem 5.1" in row.family]
    assert drawn == ["units of the outputs per unit of what the generator takes"]
    assert f"{NEW}, in units of the outputs\n" in str(found)
    assert all(row.tightness >= 1 - 1e-9 for row in rows if row.measured is not None)
    latents, generator = known["latents"], known["generator"]
    expected = generalisation_bounds(
        problem.model, known["teacher"], latents, Cube(2), generator=generator, searched=0
    )
    values = {row.name.removesuffix(" form"): row.bound.value for row in rows if row.family == NEW}
    assert values == pytest.approx({name: each.value for name, each in expected.items()}, rel=1e-5)
    best = min(values.values())
    assert best < 0.1 * max(values.values())
    assert f"on new inputs is at most {best:.3g} (certified)" in found.headline


def test_leaves_no_trace(whole):
    _, _, _, modules, before, state = whole
    for module, held in zip(modules, before, strict=True):
        assert module.training
        assert all(torch.equal(one, held[name]) for name, one in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_what_is_missing_is_named():
    found = compare(classifier(), spelled={"teacher": "--teacher FUNCTION"})
    missing = {row.family: row.missing for row in found.rows if row.bound is None}
    assert missing["Error on new examples (PAC-Bayes)"] == (
        "needs weights that the data had no part in (prior)"
    )
    assert missing[NEW] == (
        "needs the distribution of the inputs (distribution) and the function that the model "
        "should agree with (--teacher FUNCTION)"
    )
    assert "none is about new data, for want of what is listed as missing" in found.headline
    assert [row.kind for row in found.rows if "Error under" in row.family] == ["certified"]
    table = str(found).splitlines()
    assert table[0] == found.headline
    assert any(line.startswith("      missing: needs") for line in table)


@pytest.mark.quick
def test_a_classifier_with_its_prior_and_new_data():
    problem = classifier()
    labels = problem.first_batch().targets.tolist()
    found = compare(problem, prior=mlp(3, 2, 1), test=problem, epochs=3)
    (row,) = [row for row in found.rows if row.new and row.bound is not None]
    assert row.bound.value == pytest.approx(sum(row.bound.terms.values()))
    assert row.measured is not None
    assert "commonest class" in row.said[-1]
    assert row.bound.trivial == pytest.approx(1 - max(labels.count(k) for k in (0, 1)) / 40)
    few = replace(row.bound, value=0.99, inputs=row.bound.inputs | {"N": 8})
    assert "so with 8 examples, however near the prior" in _nearer(few, 0.3, 0.5)
    assert row.vacuous
    assert "none about new data says more than is known without it" in found.headline
    better = replace(row, bound=replace(row.bound, value=0.4))
    assert ", a new one for each example, is at most 0.4" in Comparison((better,)).headline
    facts = found.facts()
    assert [each["kind"] for each in facts] == [row.kind for row in found.rows]
    assert facts[0]["bound"] == asdict(found.rows[0].bound)


def test_rows_that_are_known_are_not_computed_again(whole):
    problem, known, before, *_ = whole
    begun = []
    known |= {"lr": 0.01, "batch_size": 6}
    after = compare(problem, **known, known=before.rows, on_family=lambda *a: begun.append(a[0]))
    assert not begun
    assert after.rows == before.rows
    kept = {row.family for row in unchanged(before.rows, {"teacher"}, posterior=True)}
    assert NEW not in kept
    assert "Lipschitz constant (certified by lossgeom)" in kept
    assert not unchanged(before.rows, {"problem"}, posterior=True)
    assert not unchanged([Row(family=NEW, missing="needs more")], set(), posterior=True)


def test_other_test_data_need_no_new_search():
    problem, prior, kept = classifier(), mlp(3, 2, 1), []
    known = {"prior": prior, "epochs": 3}
    before = compare(problem, **known, on_posterior=kept.append).rows
    at_once = compare(problem, **known, test=problem).rows[-1]
    rows = unchanged(before, {"test"}, posterior=True)
    epochs = []
    found = compare(
        problem, **known, test=problem, known=rows, posterior=kept[0], on_epoch=epochs.append
    )
    assert found.rows[-1] == at_once
    assert found.rows[-1].measured is not None
    assert not epochs
    without = compare(problem, **known, known=unchanged(found.rows, {"test"}, posterior=True))
    assert without.rows[-1] == before[-1]
    assert before[-1] not in unchanged(before, {"test"}, posterior=False)


@pytest.fixture(scope="module")
def far_off():
    """A model that is nothing like its target, on a support that is known by a measured slope."""
    stretched = PushForward(Cube(2), lambda u: 2 * u - 1, lipschitz=2.0, convex=True)
    x, teacher, model = 2 * Cube(2).sample(40) - 1, mlp(2, 1, 3), mlp(2, 1, 4)
    model[2].bias.data += 9
    return compare(
        lg.Problem(model, "squared_error", [(x, teacher(x).detach())]),
        distribution=stretched,
        teacher=teacher,
    )


def test_what_rests_on_a_measured_radius_is_an_estimate(far_off):
    about_the_support = [
        row for row in far_off.rows if "arXiv:2305.14683" in getattr(row.bound, "source", "")
    ]
    assert len(about_the_support) == 2 + 5  # theorems 4.3 and 5.1, and 6.1 without a latent form
    assert {row.kind for row in about_the_support} == {"estimate"}


def test_a_range_is_no_bound_of_the_error_in_any_case(far_off):
    """The model may be further from the target than the latter's values from each other."""
    rows = [row for row in far_off.rows if row.new and row.bound is not None]
    assert any(row.measured > row.bound.trivial for row in rows)
    for row in rows:
        for said in (row.said[-1], str(row.bound)):
            away = f"at most {row.bound.trivial:.4g} away from them at the examples"
            assert (
                f"vacuous, no better than any constant between the targets, which is {away}" in said
            )
    assert "none about new data says more than is known without it" in far_off.headline


def test_what_nothing_is_known_of_is_not_judged():
    """A bound of 1e26 on a volume says nothing that could be compared with anything."""
    row = Row("volume", bound(7e26, trivial=math.inf), 1e3)
    assert row.vacuous is None
    assert row.cells[5] == "not judged"
    assert Row("volume", bound(math.inf, trivial=math.inf)).cells[5] == "yes"
    said = Comparison((row, Row("error", bound(0.99987)))).headline
    assert "1 say more than is known without them, 0 do not, and 1 cannot be judged" in said
    assert Row("error", bound(0.99987)).cells[1] == "<= 0.9999"


def test_kinds_of_bounds_are_counted_however_many_forms_they_have():
    rows = (Row("one", bound(0.5), family="a"), Row("two", bound(0.6), family="a"), Row(family="b"))
    assert Comparison(rows).headline.startswith("2 bounds could be computed, of 1 of 2 kinds, ")


def test_new_draws_are_in_no_sample():
    new = fresh(Cube(2), 500, seed=0)
    for seed in range(5):
        assert torch.cdist(new, Cube(2).sample(500, seed)).min() > 0


def test_a_measured_covering_says_nothing_of_more_examples():
    model, teacher, u = mlp(2, 1, 0), mlp(2, 1, 1), Cube(2).sample(60)
    measured = MeasuredCovering(Cube(2), u, fresh=5000)
    problem = lg.Problem(model, "squared_error", [(u, teacher(u).detach())])
    for covering, told in ((Cube(2), "from about N = "), (measured, "where the covering radius")):
        given = Given(
            problem, None, None, covering, None, None, teacher, None, None, 0.1, 0.05, 0, 0, print
        )
        terms = {"fit": 0.1, "Jacobian": 2.0}
        said = _until(bound(2.1, terms=terms), 0.5, given)
        assert told in said
        assert ("from" in said) == (covering is not measured)


def test_pairs_outside_of_a_truncated_support_are_not_compared():
    problem, known = regression(N=200)
    known["latents"] = u = Gaussian(2, cut=1.0).sample(200) * 1.01  # some are outside
    x = known["generator"](u).detach()
    problem = lg.Problem(problem.model, "squared_error", [(x, known["teacher"](x).detach())])
    found = compare(problem, **known | {"distribution": Gaussian(2, cut=1.0)})
    (row,) = [row for row in found.rows if "theorem 5.1" in row.family]
    assert "expected a distribution that all examples are in the support of" in row.missing


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distribution": None}, "expected the distribution of what the generator takes"),
        ({"generator": None}, "expected the generator that makes the data from the latents"),
        ({"generator": None, "latents": None}, r"distribution of inputs \(3,\), got one of 2 num"),
        ({"generator": mlp(2, 4, 0)}, r"a generator that makes inputs \(3,\) .* got \(4,\)"),
        ({"generator": mlp(5, 3, 0)}, r"the generator to take inputs \(2, 2\) in float64, got Run"),
        ({"generator": mlp(2, 3, 9)}, "of which the generator makes the data, .* off by"),
        ({"teacher": mlp(3, 1, 0)}, r"a teacher that makes \(2,\) of an input, .* got \(1,\)"),
        ({"teacher": mlp(4, 2, 0)}, r"the teacher to take inputs \(2, 3\)"),
        ({"latents": torch.zeros(7, 2)}, r"expected latents \(60, 2\), .*, got \(7, 2\)"),
        (
            {"distribution": Cube(2, side=0.01)},
            r"but example \d+ is .* 2000 draws, too far to",
        ),
        (
            {"distribution": Cube(2, side=90.0)},
            r"whole distribution, but none is within .* of \[",
        ),
        ({"radius": -1.0}, "expected radius > 0, got -1.0"),
        ({"lr": -0.1}, "expected lr > 0, got -0.1"),
        ({"batch_size": 61}, "expected batch_size <= 60, the number of examples, got 61"),
        ({"batch_size": 0}, "batch_size"),
        ({"epochs": -1}, "epochs"),
        ({"covering": "best"}, "unknown covering 'best'"),
        ({"epsilon": 1.0}, "expected epsilon > 0 and < 1, got 1.0"),
    ],
)
def test_what_does_not_go_together(changes, message):
    problem, known = regression(N=60)
    with pytest.raises(ValueError, match=message):
        compare(problem, **{**known, **changes})


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (torch.rand(8, 2).double(), r"\(--test\) .* whole numbers of shape \(B\), got numbers of"),
        (torch.tensor([0, 1, 0, 1, 0, 1, 0, 2]), r"\(--test\) that .* class indices from 0 to 1"),
    ],
)
def test_new_data_that_are_not_like_the_old_ones(targets, message):
    problem, x = classifier(), torch.randn(8, 3).double()
    begun = []
    test = lg.Problem(problem.model, "cross_entropy", [(x, targets)], check=False)
    with pytest.raises(ValueError, match=message):
        compare(problem, test=test, on_family=lambda *told: begun.append(told))
    assert not begun


def test_a_measured_covering_is_tighter_and_as_certified():
    problem, known = regression(N=60)
    stated, measured = (
        {row.title: row.bound for row in compare(problem, **known, covering=each).rows}
        for each in ("stated", "measured")
    )
    title = f"{NEW}: smooth difference form"
    assert measured[title].value < stated[title].value
    assert measured[title].certified


def test_none_at_all():
    assert str(Comparison(())).startswith("0 bounds could be computed, of 0 of 0 kinds")
