"""Average curvature of the parts of a transformer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lossgeom.curvature._block_types import TYPES, block_types
from lossgeom.curvature._parameter_matrix import ProblemMatrix
from lossgeom.curvature.named_matrix import Matrix, named_matrix
from lossgeom.estimate import Estimate
from lossgeom.linalg import diagonal, plain_arithmetic, random_numbers
from lossgeom.linalg.probes import exact_estimate, mean_estimate, sign_probes
from lossgeom.messages.checks import check_whole
from lossgeom.messages.reprs import short
from lossgeom.messages.wording import in_columns
from lossgeom.problem import Problem, checked_problem


@dataclass(frozen=True)
class BlockSharpness:
    """How sharp the loss is in some of the parameters.

    Attributes:
        average: the trace of their block of the matrix by their number.
        size: their number.
        parameters: names of those that lie in the block, of fused ones a third or two.
    """

    average: Estimate
    size: int
    parameters: tuple[str, ...]

    __repr__ = short


class BlockSharpnesses(dict[str, BlockSharpness]):
    """Blocks by name, which print as a table."""

    def __repr__(self) -> str:
        rows = [["block", "parameters", "average sharpness", "standard error"]]
        for name, block in self.items():
            found = block.average
            rows.append([name, f"{block.size:,}", f"{found.value:.4g}", f"{found.stderr or 0:.2g}"])
        return "\n".join(in_columns(rows))

    __str__ = __repr__


def block_sharpness(
    problem: Problem,
    blocks: Mapping[str, str | Sequence[str]] | None = None,
    *,
    matrix: Matrix = "gauss_newton",
    matvecs: int = 30,
    seed: int = 0,
) -> BlockSharpnesses:
    r"""The average sharpness of each part of a transformer: embedding, QK, VO, MLP and norm.

    .. math:: \frac{\mathrm{tr}(A_b)}{\dim b} = \frac{1}{\dim b} \, E \, z_b^\top (A z)_b

    for probes z of random signs, in the units of the loss by those of a squared parameter. One
    product serves all blocks; what a probe in the others adds to a block is zero on average, and
    its spread is in the standard error. So a small block beside sharp ones needs many probes, and
    its estimate may come out negative; or the trace of ``problem.with_parameters(...)`` alone.

    Parameters are told apart by types and names of modules: embeddings of tokens and places, also
    where a head shares them; queries and keys; values and the projection after them; both halves of
    the feed-forward part; layers of normalisation; a head of its own. ``nn.MultiheadAttention``,
    ``nn.TransformerEncoderLayer`` and the usual names of Hugging Face are known, and so are fused
    projections with the rows (or columns) of Q, K and V one after the other. What is not recognised
    is the block ``"other"``: see its ``parameters``, and name it by ``blocks``.

    Cost: ``matvecs`` products, in blocks of at most 8. With as many as there are parameters the
    result is exact.

    Args:
        problem: the loss and where to take it.
        blocks: blocks of your own, as patterns of parameter names, such as ``{"first":
            "layers.0.*"}``; the rest is told apart as above.
        matrix: ``"gauss_newton"`` or ``"hessian"``.
        matvecs: products to spend, at least 2.
        seed: of the probes, drawn on the CPU from a generator of its own.

    Returns:
        The blocks that there are, by name: those of yours, then those of the types, in a dict that
        prints as a table. Errors are as of :func:`lossgeom.trace`, and those of blocks are not
        independent of each other.

    Raises:
        TypeError: if blocks are no mapping.
        ValueError: if a pattern matches no parameter, a parameter matches patterns of two blocks,
            matvecs < 2, or the matrix is another one.
        NonFiniteError: where the loss is NaN or infinite.

    Source: Wang et al., The sharpness disparity principle in transformers, arXiv:2502.19002.

    >>> import torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Embedding(2, 1), nn.LayerNorm(1), nn.Linear(1, 1))
    >>> data = [(torch.tensor([0, 1]), torch.ones(2, 1))]
    >>> found = block_sharpness(Problem(model, "squared_error", data), {"head": "2.*"})
    >>> {name: (block.size, block.parameters) for name, block in found.items()}
    {'head': (2, ('2.weight', '2.bias')), 'embedding': (2, ('0.weight',)),
     'norm': (2, ('1.weight', '1.bias'))}
    >>> found["embedding"].average
    Estimate(value=0.0, stderr=0.0, ...)
    """
    check_whole(2, matvecs=matvecs)
    if blocks is not None and not isinstance(blocks, Mapping):
        raise TypeError(
            "expected blocks as a mapping from names to patterns of parameters, such as "
            f"{{'first': 'layers.0.*'}}, got {blocks!r}"
        )
    kind = named_matrix(matrix)
    names, labels = _labels(checked_problem(problem), blocks or {})
    sizes, averages = labels.bincount(), _averages(kind(problem), labels, matvecs, seed)
    found, pieces = BlockSharpnesses(), problem.unflatten(labels).items()
    for i, name in enumerate(names):
        inside = (parameter for parameter, own in pieces if (own == i).any())
        found[name] = BlockSharpness(averages[i], int(sizes[i]), tuple(inside))
    return found


def _labels(
    problem: Problem, blocks: Mapping[str, str | Sequence[str]]
) -> tuple[list[str], Int[Tensor, " P"]]:
    """Names of the blocks that there are, and which of them each number of theta is in."""
    network, names = problem.network, list(dict.fromkeys([*blocks, *TYPES]))
    labels = torch.tensor([names.index(of) for of in TYPES])[block_types(network)]
    pieces, taken = network.split(labels), dict[int, str]()
    for name, patterns in blocks.items():
        for i in network.matching(patterns):
            if i in taken:
                raise ValueError(
                    f"expected patterns of one block to match {network.names[i]}, but those of "
                    f"{taken[i]!r} and of {name!r} do"
                )
            taken[i] = name
            pieces[i].fill_(names.index(name))
    there = torch.bincount(labels).nonzero().flatten()
    labels = torch.searchsorted(there, labels).to(problem.theta.device)
    return [names[i] for i in there.tolist()], labels


def _averages(
    A: ProblemMatrix, labels: Int[Tensor, " P"], matvecs: int, seed: int
) -> list[Estimate]:
    sizes = labels.bincount()

    def means(entries: Float[Tensor, "P k"]) -> Float[Tensor, "blocks k"]:
        sums = entries.new_zeros(len(sizes), entries.shape[1], dtype=torch.float64)
        return sums.index_add_(0, labels, entries.double()) / sizes[:, None]

    with plain_arithmetic(A.device), torch.no_grad():
        if matvecs >= len(labels):
            entries = diagonal(A, matvecs=matvecs).values[:, None]
            return [exact_estimate(mean, len(labels)) for mean in means(entries)[:, 0].tolist()]
        forms, rounding = [], []
        for Z in sign_probes(A, matvecs, random_numbers(seed)):
            product = A.matmat(Z)
            forms.append(means(Z * product))
            spread = (means(Z.square()) * means(product.square())).sqrt()
            rounding.append(torch.finfo(A.dtype).eps * spread)
        rows = zip(torch.cat(forms, 1), torch.cat(rounding, 1), strict=True)
        return [mean_estimate(form, error, matvecs) for form, error in rows]
