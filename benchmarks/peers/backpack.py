"""BackPACK's matrix-free products."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.cases import Case
from benchmarks.peers._peer import Peer, Product
from benchmarks.plain import flat, pieces


def hessian(case: Case) -> Product:
    """Hessian products with gradients kept, which saves one of its backward passes."""
    from backpack.hessianfree.hvp import hessian_vector_product

    parameters, kept = case.parameters, []
    for x, y, share in case.weighted():
        loss = case.criterion(case.model(x), y)
        gradients = torch.autograd.grad(loss, parameters, create_graph=True)
        kept.append((share, loss, gradients))

    def product(v: Tensor) -> Tensor:
        vs = pieces(case, v)
        total = torch.zeros_like(v)
        for share, loss, gradients in kept:
            total += share * flat(
                hessian_vector_product(loss, parameters, vs, grad_params=gradients)
            )
        return total

    return product


def gauss_newton(case: Case) -> Product:
    """Gauss-Newton products with outputs kept."""
    from backpack.hessianfree.ggnvp import ggn_vector_product_from_plist

    parameters, kept = case.parameters, []
    for x, y, share in case.weighted():
        outputs = case.model(x)
        kept.append((share, case.criterion(outputs, y), outputs))

    def product(v: Tensor) -> Tensor:
        vs = pieces(case, v)
        total = torch.zeros_like(v)
        for share, loss, outputs in kept:
            total += share * flat(ggn_vector_product_from_plist(loss, outputs, parameters, vs))
        return total

    return product


PEER = Peer(
    "BackPACK",
    "backpack-for-pytorch",
    "backpack",
    install="pip install backpack-for-pytorch==1.7.1",
    hessian=hessian,
    gauss_newton=gauss_newton,
    notes="hessianfree, with the graphs of all batches kept",
)
