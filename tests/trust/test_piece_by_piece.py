"""Derivatives of models that are looked at in pieces."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lossgeom as lg
from lossgeom.trust import piece_by_piece, trial
from lossgeom.trust.piece_by_piece import right_in_pieces
from tests.problems import CASES
from tests.trust.test_doctor import Hidden, Sine, StraightThrough, problem

SECOND = ("first", "second")


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    """In pieces at any size, and with none of them known to be right."""
    monkeypatch.setattr(trial, "WHOLE", 0)
    monkeypatch.setattr(piece_by_piece, "_right", set())


def in_pieces(problem, orders=SECOND):
    return right_in_pieces(problem, orders)


def on_images(*layers, **options):
    torch.manual_seed(0)
    data = [(torch.randn(4, 2, 6, 6), torch.randint(3, (4,)))]
    model = nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(3))
    model(data[0][0])
    return lg.Problem(model, "cross_entropy", data, **options)


@pytest.mark.parametrize(
    "layers",
    [
        (nn.Tanh(),),
        (nn.LayerNorm(16), nn.ReLU(), nn.Dropout(0.5)),
        (nn.Sequential(nn.Linear(16, 5), nn.GELU()), nn.Linear(5, 16), nn.BatchNorm1d(16)),
        (nn.utils.parametrizations.weight_norm(nn.Linear(16, 16)), nn.SiLU()),
        (nn.Unflatten(1, (4, 4)), nn.TransformerEncoderLayer(4, 2, 8, 0.0), nn.Flatten()),
    ],
    ids=["tanh", "norms", "nested", "weight_norm", "transformer"],
)
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_layers_whose_pieces_are_right(layers, mode):
    assert in_pieces(problem(*layers, mode=mode, seed=0))


def test_convolutions_and_pooling_are_right():
    layers = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)
    for mode in ("eval", "train"):
        assert in_pieces(on_images(*layers, mode=mode))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_case_is_refused(case):
    p = case.problem()
    lg.Hessian(p) @ torch.ones_like(p.theta)


def test_layers_with_a_wrong_third_derivative():
    p = problem(nn.LayerNorm(16), nn.Tanh())
    assert in_pieces(p)
    assert not in_pieces(p, (*SECOND, "third"))


class Around(nn.Module):
    """Calls a wrong function of its own round a layer of torch."""

    def __init__(self):
        super().__init__()
        self.inner = nn.ModuleList([nn.Linear(16, 16)])

    def forward(self, x):
        return Sine.apply(self.inner[0](x))


class Borrowed(nn.Module):
    """Reads the weight of a layer that is called, too."""

    def __init__(self, function):
        super().__init__()
        self.inner, self.function = nn.Linear(16, 16), function

    def forward(self, x):
        return F.linear(self.inner(x), self.function(self.inner.weight))


@pytest.mark.parametrize(
    ("layer", "blamed"),
    [(Hidden(), "Hidden"), (Around(), "Around"), (Borrowed(Sine.apply), "Borrowed")],
    ids=["a layer", "round a layer", "in a weight"],
)
def test_a_wrong_second_derivative_is_found(layer, blamed):
    p = problem(nn.Tanh(), layer)
    assert not in_pieces(p)
    with pytest.raises(lg.DerivativeError, match=rf"the second derivative in {blamed} \(2\)"):
        lg.Hessian(p) @ torch.ones_like(p.theta)


def test_a_gradient_that_is_not_one_is_found():
    with pytest.raises(lg.DerivativeError, match=r"the first derivative in StraightThrough \(1\)"):
        lg.sharpness(problem(StraightThrough(), nn.Tanh()))


def test_what_cannot_be_taken_out_is_looked_at_as_a_whole():
    p = problem(nn.Tanh(), Borrowed(torch.sin))
    assert not in_pieces(p)
    assert (lg.Hessian(p) @ torch.ones_like(p.theta)).isfinite().all()


def test_a_model_too_large_for_float64_says_where_pieces_do_not_do(monkeypatch):
    monkeypatch.setattr(trial, "LARGEST", 4)
    taken_out, not_taken_out = problem(nn.Tanh()), problem(nn.Tanh(), Borrowed(torch.sin))
    for p in (taken_out, not_taken_out):
        assert (lg.Hessian(p) @ torch.ones_like(p.theta)).isfinite().all()
    said = "derivatives not compared with differences"
    assert not any(note.startswith(said) for note in taken_out.notes)
    assert [note.startswith(said) for note in not_taken_out.refreshed().notes].count(True) == 1
    wrong = problem(nn.Tanh(), Borrowed(Sine.apply))
    lg.Hessian(wrong) @ torch.ones_like(wrong.theta)
    with pytest.raises(lg.DerivativeError, match="the second derivative"):
        lg.check_derivatives(wrong)


def test_the_loss_and_how_the_model_is_called_are_looked_at():
    def wrong(outputs, batch):
        return Sine.apply(outputs).sum(), len(outputs)

    x = torch.randn(8, 3)
    model = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 2))
    losses = lg.Problem(model, wrong, [(x, x)])
    calls = lg.Problem(
        model, "squared_error", [(x, torch.randn(8, 2))],
        forward=lambda model, batch: Sine.apply(model(batch[0])),
    )  # fmt: skip
    for p in (losses, calls):
        assert not in_pieces(p)
        with pytest.raises(lg.DerivativeError, match="the second derivative"):
            lg.Hessian(p) @ torch.ones_like(p.theta)


class Switch(nn.Module):
    """One class, right or wrong by a setting."""

    def __init__(self, wrong):
        super().__init__()
        self.wrong = wrong

    def forward(self, x):
        return Sine.apply(x) if self.wrong else x.sin()


def test_modules_of_one_class_with_other_settings_are_looked_at_each():
    assert in_pieces(problem(Switch(False)))
    assert not in_pieces(problem(Switch(False), nn.Tanh(), Switch(True)))


def test_what_was_found_right_is_known_in_other_models(monkeypatch):
    examined = []
    examine = piece_by_piece.examine
    monkeypatch.setattr(piece_by_piece, "examine", lambda *a: examined.append(a) or examine(*a))
    assert in_pieces(problem(nn.Tanh()))
    once = len(examined)
    assert once == 2  # the layers, the activation; the sequence computes nothing
    assert in_pieces(problem(nn.Tanh(), nn.Linear(16, 16), nn.Tanh()))
    assert len(examined) == once
    assert in_pieces(problem(nn.Tanh(), mode="train"))
    assert len(examined) == 2 * once


class Passing(nn.Module):
    """Hands on what others put out, changed by a function."""

    def __init__(self, function, **settings):
        super().__init__()
        self.first, self.second, self.function = nn.Linear(16, 16), nn.Tanh(), function
        vars(self).update(settings)

    def forward(self, x):
        return self.second(self.function(self.first(x)))


def passed_on(x):
    return x[:, None].view(x.shape)


def without_gradient(x):
    with torch.no_grad():
        return x.view(x.shape)


def test_a_module_that_computes_nothing_is_not_examined(monkeypatch):
    examined = []
    examine = piece_by_piece.examine
    monkeypatch.setattr(piece_by_piece, "examine", lambda *a: examined.append(a) or examine(*a))
    assert in_pieces(problem(Passing(passed_on)))
    assert len(examined) == 2  # the layers, the activation
    for function in (torch.detach, without_gradient):
        assert not in_pieces(problem(Passing(function)))
    hooked = Passing(passed_on)
    hooked.register_full_backward_hook(lambda module, gradients, _: (2 * gradients[0],))
    assert not in_pieces(problem(hooked))


def test_settings_in_an_object_are_remembered(monkeypatch):
    def made(names):
        config = SimpleNamespace(sizes={"in": 16}, names=names)
        return problem(Passing(torch.sin, config=config, ignored={"a", "b"}))

    examined = []
    examine = piece_by_piece.examine
    monkeypatch.setattr(piece_by_piece, "examine", lambda *a: examined.append(a) or examine(*a))
    for names, times in ((["a"], 3), (["a"], 3), (["b"], 4), ([object()], 5), ([object()], 6)):
        assert in_pieces(made(names))
        assert len(examined) == times


def test_it_leaves_no_trace_and_needs_few_numbers(monkeypatch):
    sizes = []
    point = piece_by_piece.Point
    monkeypatch.setattr(
        piece_by_piece,
        "Point",
        lambda p, **options: sizes.append(p.theta.numel()) or point(p, **options),
    )
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(50_000, 8), nn.Flatten(), nn.Linear(80, 3000), nn.Tanh())
    model.append(nn.Linear(3000, 500))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    p = lg.Problem(
        model, "cross_entropy", [(torch.randint(50_000, (6, 10)), torch.randint(500, (6,)))]
    )
    hooks = [len(module._forward_hooks) for module in p.network.module.modules()]
    assert in_pieces(p)
    assert max(sizes) < p.theta.numel() / 10
    assert [len(module._forward_hooks) for module in p.network.module.modules()] == hooks
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_deep_chain_of_stand_ins_is_smooth():
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(32, 32), nn.Tanh()) for _ in range(24)]
    data = [(torch.randn(64, 32), torch.randint(32, (64,)))]
    assert in_pieces(lg.Problem(nn.Sequential(*layers), "cross_entropy", data))
