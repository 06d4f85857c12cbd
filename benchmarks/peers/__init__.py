"""Competitors, one in each file."""

from benchmarks.peers import (
    backpack,
    curvlinops,
    double_backward,
    hessian_eigenthings,
    jacobians,
    lossgeom,
    power_iteration,
    pyhessian,
)
from benchmarks.peers._peer import Choices, Pairs, Peer, Product, Quadrature, Steps

PEERS: dict[str, Peer] = {
    "lossgeom": lossgeom.PEER,
    "lossgeom_without_memory": lossgeom.WITHOUT_MEMORY,
    "double_backward": double_backward.PEER,
    "power_iteration": power_iteration.PEER,
    "curvlinops": curvlinops.PEER,
    "hessian_eigenthings": hessian_eigenthings.PEER,
    "hessian_eigenthings_differences": hessian_eigenthings.DIFFERENCES,
    "pyhessian": pyhessian.PEER,
    "backpack": backpack.PEER,
    "jacrev": jacobians.VALUES,
    "jacrev_gram": jacobians.GRAM,
    "rows_gram": jacobians.ROWS,
    "jacobian_power_iteration": jacobians.POWER,
}

__all__ = ["PEERS", "Choices", "Pairs", "Peer", "Product", "Quadrature", "Steps"]
