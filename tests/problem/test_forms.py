"""How models, batches and settings of every form are measured, and what is said about it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lossgeom as lg
from lossgeom.batches import Batch
from tests.problems import CASES, TwoInputs

BY_NAME = {case.name: case for case in CASES}


def data(n=6):
    torch.manual_seed(0)
    return torch.randn(n, 4), torch.randint(3, (n,))


# Batches


@pytest.mark.quick
def test_forms_of_a_batch():
    x, z, y = torch.ones(2, 3), torch.ones(2, 1), torch.zeros(2)
    forms = {
        "pair": ((x, y), None, (x,)),
        "swapped": ((y, x), 0, (x,)),
        "three": ([x, z, y], -1, (x, z)),
        "middle": ([x, y, z], 1, (x, z)),
        "nested": (((x, z), y), None, (x, z)),
        "keywords": (({"a": x, "b": z}, y), None, {"a": x, "b": z}),
        "keywords and more": (({"a": x, "b": z}, (z, y)), lambda b: b[1][1], {"a": x, "b": z}),
        "mapping": ({"a": x, "b": z, "labels": y}, None, {"a": x, "b": z}),
        "key": ({"a": x, "label": z, "class": y}, "class", {"a": x, "label": z}),
    }
    for raw, target, inputs in forms.values():
        batch = Batch.of(raw, target=target)
        assert batch.inputs == inputs
        assert batch.targets is y
        assert len(batch) == 2
        for other in (batch.examples(0, 2), batch.with_tensor(x, x + 1)):
            assert torch.equal(other.targets, y)
            assert len(other.inputs) == len(inputs)
        assert len(batch.examples(0, 1)) == 1


def test_the_target_of_three_parts_is_said_or_an_error(unchecked):
    """Such as the batches of a loader that gives inputs, labels and what is known of them."""
    x, y = data()
    model, domain = nn.Linear(4, 3), torch.randint(3, (6,))
    plain = lg.Problem(model, "cross_entropy", [(x, y)], dtype=torch.float64)
    batches = [(x, y, domain)]

    def first(model, batch):
        return model(batch[0])

    with pytest.raises(
        TypeError, match=r"batch 0 has 3 parts.* is not said.*\(\(x1, x2\), targets\)"
    ):
        lg.Problem(model, "cross_entropy", batches).loss()
    with pytest.raises(TypeError, match=r"Linear takes .* 2 arguments for it .* forward="):
        lg.Problem(model, "cross_entropy", batches, target=1).loss()
    with pytest.raises(ValueError, match=r"'cross_entropy' compares .* 3 parts.*target=-1"):
        lg.Problem(model, "cross_entropy", batches, forward=first).loss()
    for target in (1, -2, lambda batch: batch[1]):
        said = lg.Problem(model, "cross_entropy", batches, forward=first, target=target)
        assert said.loss() == pytest.approx(plain.loss(), rel=1e-6)
        assert lg.sharpness(said).value == pytest.approx(lg.sharpness(plain).value, rel=1e-3)
        assert said.take(4).loss() == pytest.approx(plain.take(4).loss(), rel=1e-6)
        assert lg.metrics.Accuracy()(said).value == lg.metrics.Accuracy()(plain).value

    def own(outputs, batch):  # which finds its targets itself
        return F.cross_entropy(outputs, batch[1], reduction="sum"), len(outputs)

    assert lg.Problem(model, own, batches, forward=first).loss() == pytest.approx(plain.loss())


def test_targets_that_are_not_where_they_are_said_to_be(unchecked):
    x, y = data()
    model = nn.Linear(4, 3)
    with pytest.raises(TypeError, match=r"targets at 2, as target= says, got a tuple of Tensor, T"):
        lg.Problem(model, "cross_entropy", [(x, y)], target=2).loss()
    with pytest.raises(TypeError, match=r"targets at 'class', as target= says, got a tuple"):
        lg.Problem(model, "cross_entropy", [(x, y)], target="class").loss()
    with pytest.raises(TypeError, match=r"targets at 'class', as target= says, got a dict with"):
        lg.Problem(model, "cross_entropy", [{"input": x, "labels": y}], target="class").loss()
    with pytest.raises(TypeError, match=r"expected target to be a place .* got float"):
        lg.Problem(model, "cross_entropy", [(x, y)], target=1.0)


@pytest.mark.quick
def test_take_cuts_every_tensor():
    case = BY_NAME["mapping"]
    few = case.problem().take(3)
    inputs = {key: value[:3] for key, value in case.data[0][0].items()}
    expected = case.problem([(inputs, case.data[0][1][:3])])
    assert few.loss() == expected.loss()


def test_take_leaves_whole_what_examples_share():
    x, gate, y = torch.randn(4, 4), torch.ones(1, 2), torch.zeros(4).long()
    whole, few = (
        lg.Problem(model, "cross_entropy", [{"x": x[:n], "gate": gate, "labels": y[:n]}])
        for model in [TwoInputs()]
        for n in (4, 2)
    )
    assert whole.take(2).loss() == few.loss()


def test_jacobian_norms_want_one_input(unchecked):
    with pytest.raises(TypeError, match=r"single input, got batch 0 with 2; .* wrt=, one of 0, 1"):
        lg.jacobian_norms(BY_NAME["two_inputs"].problem())


def test_jacobian_norms_of_keyword_batches():
    x, y = data()
    model = nn.Linear(4, 3)
    named = lg.Problem(model, "cross_entropy", [{"input": x, "labels": y}])
    plain = lg.Problem(model, "cross_entropy", [(x, y)])
    assert torch.equal(lg.jacobian_norms(named).values, lg.jacobian_norms(plain).values)


# Parameters


def test_names_of_what_is_measured_and_held():
    case = BY_NAME["subset"]
    problem = case.problem()
    assert problem.network.names == ("2.weight", "2.bias", "4.bias")
    assert problem.network.frozen_names == ("0.weight", "0.bias", "4.weight")
    assert "parameters held fixed: 3" in problem.notes


def test_a_tied_weight_is_chosen_by_any_of_its_names():
    model = BY_NAME["tied"].model
    problem = lg.Problem(model, "squared_error", [(torch.ones(2, 4), torch.ones(2, 4))])
    for pattern in ("first.weight", "second.weight"):
        assert problem.with_parameters(pattern).network.names == ("first.weight",)


def test_parameters_that_are_held_stay_where_the_problem_is():
    x, y = data()
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    problem = lg.Problem(model, "cross_entropy", [(x, y)])
    elsewhere = problem.at(problem.theta * 2)
    head = elsewhere.with_parameters("2.*")
    assert head.loss() == elsewhere.loss()
    torch.testing.assert_close(head.gradient(), elsewhere.gradient()[25:])
    again = head.with_parameters("2.bias")
    assert again.loss() == elsewhere.loss()
    assert again.refreshed().loss() == problem.loss()
    assert again.refreshed().theta.tolist() == model[2].bias.tolist()


def test_patterns_that_match_nothing():
    x, y = data()
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3))
    model[0].requires_grad_(False)
    with pytest.raises(ValueError, match=r"it matches none; there are 1\.weight, 1\.bias"):
        lg.Problem(model, "cross_entropy", [(x, y)], parameters="head.*")
    with pytest.raises(ValueError, match="it matches only such as are held fixed"):
        lg.Problem(model, "cross_entropy", [(x, y)], parameters=["1.*", "0.*"])


# Modes, seeds, precision


def test_batch_statistics_are_said():
    case = BY_NAME["batchnorm_train"]
    x, y = case.inputs, case.targets
    problem = case.problem([(x[:5], y[:5]), (x[5:], y[5:])])
    problem.loss()
    assert "BatchNorm uses the statistics of each batch, of 5, 4 examples" in problem.notes
    assert problem.in_mode("eval").notes == ()


def test_dropout_needs_a_seed():
    x, y = data()
    model = nn.Sequential(nn.Linear(4, 30), nn.Dropout(0.5), nn.Linear(30, 3))
    with pytest.raises(ValueError, match=r"fix them with Problem\(\.\.\., seed=0\)"):
        lg.Problem(model, "cross_entropy", [(x, y)], mode="train").loss()
    values = {
        seed: lg.Problem(model, "cross_entropy", [(x, y)], mode="train", seed=seed).loss()
        for seed in (0, 1)
    }
    assert values[0] != values[1]
    twice = lg.Problem(model, "cross_entropy", [(x, y), (x, y)], mode="train", seed=0)
    assert twice.loss() != values[0]  # every batch has a draw of its own
    assert "random numbers of the model fixed by seed 0, one draw a batch" in twice.notes


def test_attention_is_said_to_be_switched():
    problem = BY_NAME["attention"].problem()
    assert problem.notes == ()
    problem.loss()
    assert "scaled_dot_product_attention switched to its math back end" in problem.notes[0]
    layer = BY_NAME["encoder"].problem()
    layer.loss()
    assert any("scaled_dot_product_attention" in note for note in layer.notes)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types_are_measured_in_float32(dtype):
    x, y = data()
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).to(dtype)
    problem = lg.Problem(model, "cross_entropy", [(x, y)])
    wide = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    wide.load_state_dict({key: value.float() for key, value in model.state_dict().items()})
    expected = lg.Problem(wide, "cross_entropy", [(x, y)])
    assert problem.theta.dtype == torch.float32
    assert lg.sharpness(problem) == lg.sharpness(expected)
    assert problem.notes == (f"measured in torch.float32, in a copy of a model in {dtype}",)
    assert next(model.parameters()).dtype == dtype


def test_a_mixture_with_float64_is_measured_in_float64():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 3).double()

        def forward(self, x):
            return self.b(torch.tanh(self.a(x)).double())

    x, y = data()
    problem = lg.Problem(Mixed(), "cross_entropy", [(x, y)])
    assert problem.theta.dtype == torch.float64
    assert "in a copy of a model in torch.float32" in problem.notes[0]
    lg.Hessian(problem).dense()


def test_a_type_that_is_asked_for():
    x, y = data()
    model = nn.Linear(4, 3)
    problem = lg.Problem(model, "cross_entropy", [(x, y)], dtype=torch.float64)
    assert problem.loss() == pytest.approx(
        F.cross_entropy(model.double()(x.double()), y).item(), rel=1e-14
    )


def test_autocast_is_off_unless_asked_for():
    x, y = data()
    model = nn.Sequential(nn.Linear(4, 50), nn.Tanh(), nn.Linear(50, 3))
    plain = lg.Problem(model, "cross_entropy", [(x, y)])
    rounded = lg.Problem(model, "cross_entropy", [(x, y)], autocast=torch.bfloat16, check=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = F.cross_entropy(model(x), y).item()
        assert plain.loss() == lg.Problem(model, "cross_entropy", [(x, y)]).loss()
    assert rounded.loss() == pytest.approx(expected, rel=1e-3)
    assert rounded.loss() != plain.loss()
    assert lg.sharpness(rounded, tol=0.02).value == pytest.approx(
        lg.sharpness(plain).value, rel=0.1
    )
    assert "model and loss run under autocast to torch.bfloat16" in rounded.notes


def test_reduced_precision_of_products_is_off():
    x, y = data()
    problem = lg.Problem(nn.Linear(4, 3), "cross_entropy", [(x, y)])
    expected = lg.sharpness(problem)
    torch.set_float32_matmul_precision("medium")  # the older way to ask for it
    try:
        assert lg.sharpness(lg.Problem(problem.model, "cross_entropy", [(x, y)])) == expected
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    mkldnn = torch.backends.mkldnn
    before = mkldnn.matmul.fp32_precision
    mkldnn.matmul.fp32_precision = "bf16"  # the newer one
    try:
        assert lg.sharpness(lg.Problem(problem.model, "cross_entropy", [(x, y)])) == expected
        assert mkldnn.matmul.fp32_precision == "bf16"
    finally:
        mkldnn.matmul.fp32_precision = before


def test_weight_norm_is_computed_from_its_definition():
    for name in ("weight_norm", "old_weight_norm"):
        problem = BY_NAME[name].problem()
        assert any("torch's second derivative is wrong" in note for note in problem.notes)
    # the negative control: what is replaced is wrong indeed
    v, g = torch.randn(3, 4).double().requires_grad_(), torch.ones(3, 1).double().requires_grad_()

    def loss(v):
        return torch._weight_norm(v, g.detach().requires_grad_(), 0).sin().sum()

    H = torch.autograd.functional.hessian(loss, v.detach()).reshape(12, 12)
    if torch.allclose(H, H.T):
        pytest.fail("torch has mended weight norm; compute it by torch again")


# What a copy must keep


class Rotated(nn.Module):
    """With a complex buffer, as rotary embeddings have."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.register_buffer("turn", torch.polar(torch.ones(2), torch.tensor([1.0, 2.0])))

    def forward(self, x):
        h = self.inner(x)
        turned = torch.view_as_real(torch.complex(h[:, :2], h[:, 2:]) * self.turn)
        return turned.flatten(1).square()


def test_complex_buffers_stay_complex():
    x = torch.randn(6, 4)
    model = Rotated()
    expected = 0.5 * model(x).square().sum().item() / 6
    for dtype in (torch.float32, torch.float64):
        problem = lg.Problem(model, "squared_error", [(x, torch.zeros(6, 4))], dtype=dtype)
        assert problem.loss() == pytest.approx(expected, rel=1e-5)


class Writes(nn.Module):
    def __init__(self, shared):
        super().__init__()
        self.register_buffer("shared", shared)

    def forward(self, x):
        self.shared.add_(1)
        return x


class Reads(Writes):
    def forward(self, x):
        return x * self.shared


def test_a_buffer_that_modules_share_stays_one():
    shared = torch.ones(3)
    model = nn.Sequential(nn.Linear(4, 3), Writes(shared), Reads(shared))
    x, y = data()
    problem = lg.Problem(model, "cross_entropy", [(x, y)], check=False)
    assert problem.loss() == pytest.approx(F.cross_entropy(model[0](x) * 2, y).item(), rel=1e-6)
    assert torch.equal(shared, torch.ones(3))


def test_the_cache_of_parametrizations_is_not_used():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.utils.parametrizations.orthogonal(nn.Linear(4, 4)), nn.Tanh(), nn.Linear(4, 3)
    )
    x, y = data()
    expected = lg.Hessian(lg.Problem(model, "cross_entropy", [(x, y)])).dense()
    with nn.utils.parametrize.cached():
        model(x)
        inside = lg.Hessian(lg.Problem(model, "cross_entropy", [(x, y)])).dense()
    torch.testing.assert_close(inside, expected)


def test_memory_that_a_loader_fills_again():
    class Refilled:
        def __init__(self):
            self.x, self.y = torch.empty(4, 4), torch.empty(4, 3)

        def __iter__(self):
            for i in range(3):
                self.x.copy_(torch.arange(16.0).view(4, 4).sin() * (i + 1))
                self.y.copy_(torch.arange(12.0).view(4, 3).cos() * (i + 1))
                yield self.x, self.y

    problem = lg.Problem(nn.Linear(4, 3), nn.SmoothL1Loss(), Refilled())
    H = lg.Hessian(problem)
    v = torch.ones(15)
    torch.testing.assert_close(H @ v, H @ v)
    torch.testing.assert_close(H @ v, lg.Hessian(problem, memory_budget=0) @ v)


def test_changes_inside_an_example_are_seen():
    x, y = data()

    class Flipping(list):
        def __iter__(self):
            return iter([(x.flip(1) if changed else x, y)])

    changed = []
    problem = lg.Problem(nn.Linear(4, 3), "cross_entropy", Flipping())
    problem.loss()
    changed.append(True)
    with pytest.raises(ValueError, match="batch 0 is not the one that an earlier pass gave"):
        problem.gradient()


def test_scalars_in_batches():
    class Tempered(nn.Linear):
        def forward(self, temperature, x):
            return super().forward(x) / temperature

    x, y = data()
    batch = {"temperature": torch.tensor(2.0), "x": x, "labels": y}
    problem = lg.Problem(Tempered(4, 3), "cross_entropy", [batch])
    assert problem.take(3).loss() > 0
    assert lg.Hessian(problem).dense().isfinite().all()


def test_a_subset_is_checked_in_its_own_parameters():
    """A frozen part that has no gradient does not matter to the head."""

    class Probe(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(4, 5), nn.Linear(5, 3)

        def forward(self, x):
            with torch.no_grad():
                features = torch.tanh(self.body(x))
            return self.head(features)

    x, y = data()
    problem = lg.Problem(Probe(), "cross_entropy", [(x, y)], parameters="head.*")
    assert lg.Hessian(problem).dense().isfinite().all()
    with pytest.raises(lg.DerivativeError, match="the first derivative"):
        lg.sharpness(lg.Problem(Probe(), "cross_entropy", [(x, y)]))


def test_settings_that_contradict(unchecked):
    x, y = data()
    with pytest.raises(ValueError, match="rounds float32 only, and this is measured in"):
        lg.Problem(nn.Linear(4, 3).double(), "cross_entropy", [(x, y)], autocast=torch.bfloat16)
    with pytest.raises(ValueError, match="expected a seed >= 0, got -1"):
        lg.Problem(nn.Linear(4, 3), "cross_entropy", [(x, y)], seed=-1)
    with pytest.raises(
        TypeError, match="got a TensorDataset of single examples; pass a DataLoader"
    ):
        lg.Problem(nn.Linear(4, 3), "cross_entropy", torch.utils.data.TensorDataset(x, y))
