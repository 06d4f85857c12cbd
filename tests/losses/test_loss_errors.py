"""Targets, losses and batches that cannot be measured, and what is said about them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lossgeom as lg


def data(n=12):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 4, generator=generator), torch.arange(n) % 3


def mlp(*middle):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), *middle, nn.Tanh(), nn.Linear(5, 3))


def loss_of(model, loss, *batches, **options):
    return lg.Problem(model, loss, list(batches), **options).loss()


# Targets


@pytest.mark.parametrize("loss", ["cross_entropy", nn.CrossEntropyLoss(), nn.NLLLoss()])
def test_labels_out_of_range(loss):
    x, y = data()
    message = r"indices from 0 to 2 for 3 outputs, or -100 .* batch 1 go from 1 to 3\. .*start at 1"
    with pytest.raises(ValueError, match=message):
        loss_of(mlp(nn.LayerNorm(5)), loss, (x, y), (x, y + 1))
    with pytest.raises(
        ValueError, match=r"batch 0 go from -1 to 1\..*CrossEntropyLoss\(ignore_ind"
    ):
        loss_of(mlp(), loss, (x, y - 1))
    with pytest.raises(ValueError, match=r"from 5 to 7\. Subtract 5 from labels that start at 5$"):
        loss_of(mlp(), loss, (x, y + 5))
    with pytest.raises(ValueError, match=r"from 0 to 8\. 9 classes need as many outputs$"):
        loss_of(mlp(), loss, (x, 4 * y))


def test_labels_of_another_shape():
    x, y = data()
    with pytest.raises(ValueError, match=r"one-hot rows, class indices are targets\.argmax\(1\)"):
        loss_of(mlp(), "cross_entropy", (x, F.one_hot(y)))
    with pytest.raises(ValueError, match=r"indices are targets\.squeeze\(1\)\.long\(\)"):
        loss_of(mlp(), "cross_entropy", (x, y[:, None]))


def test_labels_of_what_has_no_class():
    images, masks = torch.randn(2, 1, 4, 4), torch.full((2, 4, 4), 255)
    masks[0] = 1
    model = nn.Conv2d(1, 3, 1)
    with pytest.raises(ValueError, match=r"from 1 to 255\..*CrossEntropyLoss\(ignore_index=255\)"):
        loss_of(model, "cross_entropy", (images, masks))
    expected = F.cross_entropy(model(images), masks, ignore_index=255).item()
    criterion = nn.CrossEntropyLoss(ignore_index=255)
    assert loss_of(model, criterion, (images, masks)) == pytest.approx(expected)
    with pytest.raises(ValueError, match="putting -100 in its place"):
        loss_of(nn.Linear(4, 3), "token_cross_entropy", (torch.randn(2, 5, 4), masks[:, 0, :1]
                                                         .expand(2, 5)))  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8])
@pytest.mark.parametrize(
    "loss", [nn.BCEWithLogitsLoss(), nn.MSELoss(), "squared_error", nn.PoissonNLLLoss()], ids=str
)
def test_integers_are_numbers_where_numbers_are_compared(loss, dtype):
    x, y = data()
    truth, model = (y > 0)[:, None], nn.Linear(4, 1)
    expected = lg.Problem(model, loss, [(x, truth.float())])
    given = lg.Problem(model, loss, [(x, truth.to(dtype))])
    assert given.loss() == expected.loss()
    assert torch.equal(lg.Hessian(given).dense(), lg.Hessian(expected).dense())
    if expected.criterion.likelihood is not None:
        a, b = (lg.trace(lg.MonteCarloFisher(p)).value for p in (given, expected))
        assert a == b


def test_classes_are_no_truth_values():
    x, y = data()
    with pytest.raises(ValueError, match=r"targets from 0 to 1; those of batch 0 go from 0 to 2"):
        loss_of(nn.Linear(4, 1), nn.BCEWithLogitsLoss(), (x, y[:, None]))


def test_weights_of_examples_in_a_criterion():
    x, y = data()
    truth = (y > 0).float()[:, None]
    criterion = nn.BCEWithLogitsLoss(weight=torch.rand(8, 1))
    with pytest.raises(ValueError, match=r"weight \(8, 1\) .* batch 1 with outputs \(4, 1\)"):
        loss_of(nn.Linear(4, 1), criterion, (x[:8], truth[:8]), (x[8:], truth[8:]))


def test_weights_of_examples_in_a_function():
    x, y = data()
    weights = torch.rand(8)

    def weighted(outputs, batch):
        return (weights * F.cross_entropy(outputs, batch[1], reduction="none")).sum(), 8

    message = r"'weighted' raised RuntimeError: The size .* batch 1.*goes into the batch"
    with pytest.raises(RuntimeError, match=message):
        loss_of(mlp(), weighted, (x[:8], y[:8]), (x[8:], y[8:]))


def test_arrays(unchecked):
    x, y = data()
    with pytest.raises(TypeError, match=r"got a ndarray in one; make it a tensor with to"):
        loss_of(mlp(), "cross_entropy", (x, y.numpy()))
    with pytest.raises(TypeError, match=r"got a float32 in one; make it a tensor"):
        loss_of(mlp(), "cross_entropy", (x, [np.float32(1.0)]))


# Losses


@pytest.mark.quick
@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ("mse", r"mean nn\.MSELoss\(\), or 'squared_error', which is half"),
        ("MSELoss", r"mean nn\.MSELoss\(\), or 'squared_error'"),
        ("l2", r"mean nn\.MSELoss\(\), or 'squared_error'"),
        ("ce", "mean 'cross_entropy'"),
        ("CrossEntropy", "mean 'cross_entropy'"),
        ("cross entropy", "mean 'cross_entropy'"),
        ("bce", r"mean nn\.BCEWithLogitsLoss\(\)"),
        ("squared_eror", "mean 'squared_error'"),
        ("wasserstein", r"got 'wasserstein'$"),
    ],
)
def test_names_that_are_nearly_right(loss, said):
    with pytest.raises(ValueError, match=said):
        lg.Problem(mlp(), loss, [data()])


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (nn.CrossEntropyLoss, r"make one of the class, CrossEntropyLoss\(\)"),
        (F.cross_entropy, r"pass nn\.CrossEntropyLoss\(\)"),
        (F.mse_loss, r"pass nn\.MSELoss\(\)"),
        (F.nll_loss, r"pass nn\.NLLLoss\(\)"),
        (F.binary_cross_entropy_with_logits, r"pass nn\.BCEWithLogitsLoss\(\)"),
        (F.relu, "which is neither; pass a criterion"),
    ],
)
def test_what_torch_calls_a_loss(loss, said, unchecked):
    with pytest.raises(TypeError, match=said):
        lg.Problem(mlp(), loss, [data()])


def of_targets(outputs, targets):
    return F.cross_entropy(outputs, targets)


def with_methods(outputs, targets):
    return outputs.sub(targets.float()).sum()


def bare(outputs, batch):
    return F.cross_entropy(outputs, batch[1])


def test_functions_of_outputs_and_targets(unchecked):
    for loss in (of_targets, with_methods):
        message = (
            rf"'{loss.__name__}' raised .*whole batch 0, a tuple of Tensor, Tensor, and is to "
        )
        with pytest.raises(TypeError, match=message):
            loss_of(mlp(), loss, data())
    with pytest.raises(TypeError, match=r"got Tensor: a number without its count; return \(terms"):
        loss_of(mlp(), bare, data())


# Models


def test_a_batch_that_is_too_small_for_its_statistics():
    x, y = data(11)
    batches = [(x[:5], y[:5]), (x[5:10], y[5:10]), (x[10:], y[10:])]
    model = mlp(nn.BatchNorm1d(5))
    message = r"batch 2, of 1 example, has too few .*drop_last=True.*mode='eval'"
    with pytest.raises(ValueError, match=message):
        loss_of(model, "cross_entropy", *batches, mode="train")
    with pytest.raises(ValueError, match="batch 0, of 1 example, has too few"):
        loss_of(model, "cross_entropy", *batches[2:], mode="train")
    assert loss_of(model, "cross_entropy", *batches, mode="eval") > 0


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 3), nn.Linear(5, 1)

    def forward(self, x):
        h = torch.tanh(self.body(x))
        return self.a(h), self.b(h)


def of_both(a, b, y, t):
    return F.cross_entropy(a, y, reduction="sum") + 0.5 * (b - t).square().sum()


def test_a_loss_of_several_outputs():
    torch.manual_seed(0)
    (x, y), t, model = data(), torch.randn(12, 1).double(), TwoHeads().double()
    x = x.double()

    def loss(outputs, batch):
        return of_both(outputs[:, :3], outputs[:, 3:], *batch[1]), len(outputs)

    batches = [(x, (y, t))]
    with pytest.raises(TypeError, match=r"got tuple; .*torch\.cat\(\[a, b\], 1\), and the loss"):
        loss_of(model, loss, *batches)

    def joined(model, batch):
        return torch.cat(model(batch[0]), 1)

    problem = lg.Problem(model, loss, batches, forward=joined)
    parameters = dict(model.named_parameters())
    names, shapes = list(parameters), [p.shape for p in parameters.values()]

    def plain(theta):
        pieces = torch.split(theta, [shape.numel() for shape in shapes])
        values = {n: p.view(s) for n, p, s in zip(names, pieces, shapes, strict=True)}
        return of_both(*torch.func.functional_call(model, values, (x,)), y, t) / 12

    H = torch.autograd.functional.hessian(plain, problem.theta)
    assert lg.sharpness(problem, tol=1e-6).value == pytest.approx(
        torch.linalg.eigvalsh(H)[-1].item(), rel=1e-6
    )


class Spectral(nn.Module):
    def __init__(self, w, as_pairs=False):
        super().__init__()
        self.w = nn.Parameter(torch.view_as_real(w) if as_pairs else w)

    def forward(self, x):
        w = self.w if self.w.is_complex() else torch.view_as_complex(self.w)
        return torch.fft.irfft(torch.fft.rfft(x) * w, n=4)


def test_complex_parameters():
    x, w = data()[0], torch.randn(3, dtype=torch.cfloat)
    with pytest.raises(TypeError, match=r"in torch\.complex64; .*view_as_real.*view_as_complex"):
        lg.Problem(Spectral(w), "squared_error", [(x, x)])
    assert lg.sharpness(lg.Problem(Spectral(w, as_pairs=True), "squared_error", [(x, x)])).value > 0


# Losses that are linear in the outputs


def with_log_softmax(model):
    return nn.Sequential(*model, nn.LogSoftmax(1))


@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 1.0, 2.0])])
def test_nll_of_log_probabilities_is_the_cross_entropy(weight):
    x, y = data()
    y = y.masked_fill(torch.arange(12) == 5, -100)
    logits = lg.Problem(mlp().double(), nn.CrossEntropyLoss(weight), [(x, y)])
    log_probabilities = lg.Problem(with_log_softmax(mlp()).double(), nn.NLLLoss(weight), [(x, y)])
    assert log_probabilities.loss() == pytest.approx(logits.loss())
    for matrix in (lg.Hessian, lg.GaussNewton, lg.Residual, lg.EmpiricalFisher):
        expected = matrix(logits).dense()
        torch.testing.assert_close(matrix(log_probabilities).dense(), expected)
        assert expected.any()
    for matrix in (lg.MonteCarloFisher, lg.ConjugateGaussNewton):
        a, b = (matrix(problem).dense().trace() for problem in (log_probabilities, logits))
        torch.testing.assert_close(a, b)
    assert log_probabilities.notes == ()


def critic(outputs, batch):
    return -outputs[:, 0].sum(), len(outputs)


@pytest.mark.parametrize("loss", [nn.NLLLoss(), nn.L1Loss(), critic])
def test_losses_without_curvature_say_so(loss):
    x, y = data()
    targets = torch.randn(12, 3) if isinstance(loss, nn.L1Loss) else y
    problem = lg.Problem(mlp(), loss, [(x, targets)])
    lg.Hessian(problem).dense()
    assert problem.notes == ()
    assert not lg.GaussNewton(problem).dense().any()
    (note,) = problem.notes
    assert "has no curvature in the outputs here" in note
    if isinstance(loss, nn.NLLLoss):
        with pytest.raises(ValueError, match="NLLLoss expects log-probabilities, and the outputs"):
            lg.MonteCarloFisher(problem).dense()


def test_a_zero_product_is_not_a_zero_matrix():
    x, y = data()
    problem = lg.Problem(mlp(), "cross_entropy", [(x, y)])
    v = torch.zeros_like(problem.theta)
    v[-3:] = 1.0  # the same for all logits, which softmax does not see
    lg.GaussNewton(problem) @ torch.zeros_like(v)
    assert (lg.GaussNewton(problem) @ v).norm() < 1e-6
    assert problem.notes == ()
