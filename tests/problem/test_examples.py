"""Batches whose tensors do not all have one row for each example."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

import lossgeom as lg
from tests.smoothness.test_single_examples import GridFirst, Recurrent, Squeezed, mlp

pytestmark = pytest.mark.usefixtures("unchecked")

WITH_ONE_INPUT = {
    "jacobian_norms": lg.jacobian_norms,
    "largest_jacobian_norm": lg.largest_jacobian_norm,
    "sobolev_seminorms": lg.sobolev_seminorms,
    "multiplicative_inequality": lg.multiplicative_inequality,
    "lipschitz_lower": lg.lipschitz_lower,
    "lipschitz_global": lg.lipschitz_global,
    "lipschitz_local": partial(lg.lipschitz_local, radius=0.1),
    "local_variation": partial(lg.local_variation, radius=0.1),
    "logit_change": partial(lg.logit_change, eps=0.1),
    "robustness": partial(lg.robustness, eps=0.1),
    "certified_radius": lg.certified_radius,
}
PER_EXAMPLE = {
    **WITH_ONE_INPUT,
    "parameter_jacobian_norms": lg.parameter_jacobian_norms,
    "sobolev_seminorms of parameters": lambda p: lg.sobolev_seminorms(p, "parameters"),
    "take": lambda p: p.take(2).loss(),
}


class SequenceFirst(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.out = nn.LSTM(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.body(x)[0][-1])


class Labelled(SequenceFirst):
    """With outputs for every step."""

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.body(x)[0])


def sequences(T: int, B: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(T)
    x = torch.randn(T, B, 4, generator=generator)
    return x, torch.randint(3, (B,), generator=generator)


@pytest.mark.parametrize("function", PER_EXAMPLE.values(), ids=PER_EXAMPLE)
@pytest.mark.parametrize(("T", "B"), [(5, 3), (3, 3), (1, 3)])
def test_sequences_first_are_refused_by_their_name(function, T, B):
    problem = lg.Problem(SequenceFirst(), "cross_entropy", [sequences(T, B)], check=False)
    message = rf"along the second dimension of the tensor of shape \({T}, {B}, 4\).*permute"
    with pytest.raises(ValueError, match=message):
        function(problem)


@pytest.mark.parametrize("function", WITH_ONE_INPUT.values(), ids=WITH_ONE_INPUT)
def test_sequences_first_of_one_example(function):
    problem = lg.Problem(SequenceFirst(), "cross_entropy", [sequences(5, 1)], check=False)
    with pytest.raises(ValueError, match=r"each of 1 examples, got a tensor of shape \(5, 1, 4\)"):
        function(problem)


@pytest.mark.parametrize(("T", "B"), [(5, 3), (3, 3)])
@pytest.mark.parametrize("matrix", ["EmpiricalFisher", "GradientCovariance"])
def test_gradients_of_time_steps_are_not_taken_for_those_of_examples(matrix, T, B):
    x, _ = sequences(T, B)
    problem = lg.Problem(Labelled(), "squared_error", [(x, torch.zeros(T, B, 3))], check=False)
    with pytest.raises(ValueError, match="lie along the second dimension"):
        getattr(lg, matrix)(problem) @ torch.ones(problem.theta.numel())
    rows = lg.Problem(
        problem.model,
        "squared_error",
        [(x.transpose(0, 1), torch.zeros(B, T, 3))],
        forward=lambda model, batch: model(batch[0].transpose(0, 1)).transpose(0, 1),
        check=False,
    )
    product = getattr(lg, matrix)(rows) @ torch.ones(rows.theta.numel())
    assert product.isfinite().all()


@pytest.mark.parametrize("T", [5, 3])
def test_sequences_first_that_are_permuted_in_forward(T):
    x, y = sequences(T, 3)
    model = SequenceFirst()
    problem = lg.Problem(
        model,
        "cross_entropy",
        [(x.transpose(0, 1), y)],
        forward=lambda model, batch: model(batch[0].transpose(0, 1)),
    )
    inside = Recurrent()
    inside.body, inside.out = model.body, model.out
    expected = lg.Problem(inside, "cross_entropy", [(x.transpose(0, 1), y)])
    for function in (lg.jacobian_norms, lg.parameter_jacobian_norms):
        torch.testing.assert_close(function(problem).values, function(expected).values)
    one = torch.func.jacrev(lambda z: model(z[:, None])[0])(x[:, 0]).reshape(3, -1)
    found = lg.jacobian_norms(problem).values[0].item()
    assert found == pytest.approx(torch.linalg.matrix_norm(one, 2).item(), rel=1e-5)


class Graph(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor, A: Tensor) -> Tensor:
        return self.second(A @ torch.tanh(self.first(A @ x)))


class Named(nn.Linear):
    def forward(self, x: Tensor, names: list[str]) -> Tensor:
        return super().forward(x) * torch.tensor([float(len(name)) for name in names])[:, None]


@pytest.mark.parametrize(
    ("model", "inputs", "listed"),
    [
        (Graph(), (torch.randn(6, 4), torch.rand(6, 6)), r"input 1, \(6, 6\)"),
        (Named(4, 3), (torch.randn(6, 4), ["a", "bb"] * 3), "input 1, a list, which is not cut"),
    ],
    ids=["graph", "strings"],
)
def test_what_cannot_be_cut_is_named(model, inputs, listed):
    problem = lg.Problem(model, "cross_entropy", [(inputs, torch.zeros(6).long())])
    for function in (
        partial(lg.jacobian_norms, wrt=0),
        lg.parameter_jacobian_norms,
        lambda p: lg.sobolev_seminorms(p, "parameters"),
        lambda p: p.take(2).loss(),
    ):
        with pytest.raises(
            ValueError, match=rf"one row of outputs per example.*{listed}"
        ) as caught:
            function(problem)
        assert "mat1" not in str(caught.value)


def test_a_shared_input_has_no_norm_of_its_own():
    torch.manual_seed(0)
    inputs = torch.linspace(0, 1, 8)[:, None], torch.randn(8, 4)
    problem = lg.Problem(GridFirst(), "squared_error", [(inputs, torch.zeros(8, 8))])
    with pytest.raises(TypeError, match=r"expected wrt=0 .* got \(8, 1\), which examples share"):
        lg.jacobian_norms(problem, wrt=0)
    assert problem.take(3).loss() == pytest.approx(
        lg.Problem(
            problem.model, "squared_error", [((inputs[0], inputs[1][:3]), torch.zeros(3, 8))]
        ).loss()
    )


class Packed(SequenceFirst):
    def forward(self, packed) -> Tensor:
        return self.out(self.body(packed)[1][0][-1])


def test_packed_sequences():
    parts = [torch.randn(n, 4) for n in (5, 3, 2, 4)]
    model, y = Packed(), torch.tensor([0, 1, 1, 0])
    packed = lg.Problem(model, "cross_entropy", [(pack_sequence(parts, False), y)])
    alone = lg.Problem(
        model, "cross_entropy", [(pack_sequence([x]), y[i : i + 1]) for i, x in enumerate(parts)]
    )
    expected = lg.parameter_jacobian_norms(alone).values
    torch.testing.assert_close(lg.parameter_jacobian_norms(packed).values, expected)
    with pytest.raises(TypeError, match="a single tensor as its input, got batch 0 with a"):
        lg.lipschitz_lower(packed)


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_are_refused(layout):
    x = torch.nested.nested_tensor([torch.randn(2, 4), torch.randn(3, 4)], layout=layout)
    problem = lg.Problem(
        nn.Linear(4, 3),
        "cross_entropy",
        [(x, torch.zeros(2).long())],
        forward=lambda model, batch: model(batch[0].to_padded_tensor(0.0)).sum(1),
    )
    with pytest.raises(TypeError, match=r"got a nested tensor.*pad it"):
        lg.sharpness(problem)


def test_a_last_batch_of_one_example_that_is_squeezed():
    torch.manual_seed(0)
    x, y = torch.randn(9, 4), torch.randn(9)
    model = Squeezed(1)
    split = lg.Problem(model, nn.MSELoss(), [(x[:8], y[:8]), (x[8:], y[8:])])
    whole = lg.Problem(model, nn.MSELoss(), [(x, y)])
    assert split.loss() == pytest.approx(whole.loss(), rel=1e-6)
    for measured in (lg.sharpness, lambda p: lg.trace(lg.EmpiricalFisher(p))):
        assert float(measured(split).value) == pytest.approx(float(measured(whole).value), rel=1e-4)


def test_one_example_with_targets_that_are_squeezed_as_well():
    torch.manual_seed(0)
    model, x = Squeezed(3), torch.randn(1, 4)
    problem = lg.Problem(model, nn.MSELoss(), [(x, torch.zeros(3))])
    assert problem.loss() == pytest.approx(model(x).square().mean().item(), rel=1e-6)


def test_a_model_that_puts_out_its_loss_has_no_examples():
    """Its one number is not that of an example, also in a batch of one."""

    class Energy(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = mlp(4, 5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x).square().mean()

    model, x = Energy(), torch.randn(1, 4)
    problem = lg.Problem(model, lambda outputs, batch: (outputs, 1), [(x, torch.zeros(1))])
    assert problem.loss() == pytest.approx(model(x).item(), rel=1e-6)
    with pytest.raises(ValueError, match="expected one row of outputs per example"):
        lg.parameter_jacobian_norms(problem)


class Says(nn.Module):
    """In float32 on its way."""

    def __init__(self, body: nn.Module, way):
        super().__init__()
        self.body, self.way = body, way

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.way(x))


WAYS = {
    "float": lambda x: x.float() / 2,
    "to": lambda x: x.to(torch.float32) / 2,
    "ones": lambda x: x * torch.full((4,), 1.5) / 3,
    "rounded": lambda x: (x.float() / 2).to(x.dtype),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_models_that_say_float32_are_measured_in_float64(way):
    torch.manual_seed(0)
    x, y, body = torch.randn(6, 4), torch.randint(3, (6,)), mlp(4, 5, 3)
    said, plain = (
        lg.Problem(Says(body, w), "cross_entropy", [(x, y)], dtype=torch.float64)
        for w in (way, lambda x: x / 2)
    )
    assert said.loss() == pytest.approx(plain.loss(), rel=1e-13)
    note = "run in float64 also where the model says float32"
    assert note in said.notes
    assert note not in plain.notes
    assert lg.sharpness(said).value == pytest.approx(lg.sharpness(plain).value, rel=1e-6)
    settings = {"steps": 3, "restarts": 1}
    for measured in (
        lambda p: lg.lipschitz_lower(p, **settings).value,
        lambda p: lg.local_variation(p, 0.1, **settings).max[0],
        lambda p: lg.robustness(p, 0.5, **settings, certify=False).attacked_margins.sum().item(),
    ):
        assert measured(said) == pytest.approx(measured(plain), rel=1e-9)
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("way", [WAYS["float"], WAYS["to"]], ids=["float", "to"])
def test_certified_bounds_of_models_that_say_float32(way):
    torch.manual_seed(0)
    x, y, body = torch.randn(6, 4), torch.randint(3, (6,)), mlp(4, 5, 3)
    said, plain = (
        lg.Problem(Says(body, w), "cross_entropy", [(x, y)]) for w in (way, lambda x: x / 2)
    )
    for bound in (
        lg.lipschitz_global,
        lambda p: lg.local_variation_upper(p, 0.1).max().item(),
        lambda p: lg.certified_radius(p).max().item(),
    ):
        assert bound(said) == pytest.approx(bound(plain), rel=1e-9)
