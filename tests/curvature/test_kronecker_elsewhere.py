"""Kronecker factors beside those of other libraries, and where these compute something else."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from curvlinops import EKFACLinearOperator, FisherType, KFACLinearOperator
from torch import Tensor, nn

import lossgeom as lg
from tests.curvature.test_kronecker import (
    F64,
    IMAGES,
    LABELS,
    convolutional,
    in_theta,
    split,
    waves,
    with_waves,
)


def block_diagonal(factors) -> Tensor:
    blocks = []
    for own in factors:
        blocks.append(in_theta(own))
        if own.bias_matrix is not None:
            blocks.append(own.bias_matrix.dense())
    return torch.block_diag(*blocks)


MODELS = {
    "vectors": (
        lambda: with_waves(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3))),
        waves(12, 4),
    ),
    "images": (convolutional, waves(12, 2, 4, 4)),
    "dilated": (lambda: convolutional(dilation=2, padding=0), waves(12, 2, 7, 7)),
    "sequences": (
        lambda: with_waves(
            nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(9, 3))
        ),
        waves(12, 3, 4),
    ),
}
LOSSES = {
    "classes": (nn.CrossEntropyLoss(), torch.arange(12) % 3),
    "squares": (nn.MSELoss(), waves(12, 3)),
    "sum": (nn.MSELoss(reduction="sum"), waves(12, 3)),
    "coins": (nn.BCEWithLogitsLoss(), (waves(12, 3) > 0).double()),
}
SETTINGS = [
    *itertools.product(MODELS, ["classes"], ["exact", "empirical"], ["expand", "reduce"]),
    *itertools.product(["images"], ["squares", "sum", "coins"], ["exact", "empirical"], ["expand"]),
]
THEIRS = {"exact": FisherType.TYPE2, "empirical": FisherType.EMPIRICAL}


@pytest.mark.parametrize(("name", "loss", "curvature", "sharing"), SETTINGS)
def test_agrees_with_curvlinops(name, loss, curvature, sharing, unchecked):
    (make, x), (criterion, y) = MODELS[name], LOSSES[loss]
    model, data = make(), split(x, y, 7, 5)
    problem = lg.Problem(model, criterion, data, check=False)
    V = torch.eye(problem.theta.numel(), dtype=F64)
    for bias, (corrected, operator) in itertools.product(
        (False, True), ((False, KFACLinearOperator), (True, EKFACLinearOperator))
    ):
        theirs = operator(
            model,
            criterion,
            list(model.parameters()),
            data,
            fisher_type=THEIRS[curvature],
            kfac_approx=sharing,
            separate_weight_and_bias=not bias,
            check_deterministic=False,
            num_data=12,
            num_per_example_loss_terms=1,
        )
        ours = lg.kronecker_factors(
            problem, curvature=curvature, sharing=sharing, bias=bias, corrected=corrected
        )
        torch.testing.assert_close(block_diagonal(ours), theirs @ V, rtol=1e-9, atol=1e-12)


def test_agrees_with_nngeometry():
    """Its KFAC and EKFAC (0.4, variant="classif_logits"), whose numbers stand here.

    For each layer the traces of both, the norm of EKFAC's eigenvalues, and v^T K v of KFAC.
    """
    problem = lg.Problem(convolutional(), "cross_entropy", split(IMAGES, LABELS, 3, 4))
    theirs = [
        (7.114675374888365, 6.808994436126621, 2.1902267152458386, 2.899274813059455),
        (5.685630527191688, 5.459608162653733, 2.302851963064468, 1.7040403994784232),
    ]
    plain, corrected = (
        lg.kronecker_factors(problem, bias=True, corrected=c) for c in (False, True)
    )
    for K, E, numbers in zip(plain, corrected, theirs, strict=True):
        v = waves(K.matrix.shape[0])
        found = (
            K.matrix.trace(),
            E.matrix.trace(),
            E.matrix.frobenius_norm(),
            (v @ (K.matrix @ v)).item(),
        )
        assert found == pytest.approx(numbers, rel=1e-9)


def test_repeats_the_padding_that_curvlinops_takes_as_zeros():
    model = convolutional(padding_mode="circular")
    problem = lg.Problem(model, "cross_entropy", [(IMAGES, LABELS)])
    padded = nn.functional.pad(IMAGES, (1, 1, 1, 1), mode="circular")
    patches = nn.functional.unfold(padded, 2, stride=2).mT.reshape(-1, 8)
    expected = patches.T @ patches / len(patches)
    theirs = KFACLinearOperator(
        model, nn.CrossEntropyLoss(), list(model.parameters()), [(IMAGES, LABELS)]
    )
    theirs.compute_kronecker_factors()
    torch.testing.assert_close(lg.kronecker_factors(problem)[0].inputs, expected)
    assert not torch.allclose(theirs._input_covariances["0"], expected, rtol=0.1)


class TokenAttention(nn.Module):
    """Class scores per token, each of which depends on all tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(4, 12), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.out(F.scaled_dot_product_attention(q, k, v)).transpose(1, 2)


def test_does_not_mix_tokens_as_curvlinops_does():
    """One column for each token and class, where its type-2 factors take one for each class.

    A bias with its positions summed has the Gauss-Newton block. That of curvlinops is another, also
    than the mean of its own Monte-Carlo factors, which is ours.
    """
    model, x, y = (
        with_waves(TokenAttention()),
        2 * waves(4, 5, 4),
        (torch.arange(20) % 3).view(4, 5),
    )
    problem = lg.Problem(model, "cross_entropy", [(x, y)])

    def theirs(**settings) -> dict[str, Tensor]:
        operator = KFACLinearOperator(
            model,
            nn.CrossEntropyLoss(),
            list(model.parameters()),
            [(x, y)],
            kfac_approx="reduce",
            check_deterministic=False,
            num_data=4,
            num_per_example_loss_terms=5,
            **settings,
        )
        operator.compute_kronecker_factors()
        return operator._gradient_covariances

    exact, sampled = theirs(fisher_type="type-2"), theirs(fisher_type="mc", mc_samples=400)
    for own in lg.kronecker_factors(problem, sharing="reduce"):
        G = lg.GaussNewton(problem.with_parameters(own.parameters[1])).dense()
        torch.testing.assert_close(own.outputs, G, rtol=1e-9, atol=1e-12)
        assert (exact[own.name] - G).norm() > G.norm()
        assert (sampled[own.name] - G).norm() < 0.2 * G.norm()
