"""A network with one output that tells odd digits from even ones, and minima that SGD finds."""

import pytest
import torch
from torch import nn

import lossgeom as lg

N = 100  # digits


def digits():
    """Images with pixels from -1 to 1, and targets 1 for odd digits and -1 for even ones."""
    np, datasets = pytest.importorskip("numpy"), pytest.importorskip("sklearn.datasets")
    found, chosen = datasets.load_digits(), np.random.default_rng(0).permutation(1797)[:N]
    y = torch.tensor(found.target[chosen] % 2 * 2.0 - 1)
    return torch.tensor((found.data[chosen] - 8) / 8), y[:, None]


def start():
    """The network before training, which is the same every time, with the squared error."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        model = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 1))
    finally:
        torch.set_default_dtype(before)
    return lg.Problem(model, "squared_error", [digits()], mode="eval")


def trained(lr, batch_size, steps):
    """Where independent batches take the network, for each of some learning rates."""
    problem, (x, y) = start(), digits()
    generator = torch.Generator().manual_seed(0)
    share = torch.tensor(lr, dtype=torch.float64)[:, None, None] / batch_size
    parameters = [p.detach() for p in problem.model.parameters()]
    W, b, v, c = (p.expand(len(lr), *p.shape) for p in parameters)
    for _ in range(steps):
        drawn = torch.rand(len(lr), N, generator=generator).topk(batch_size, 1).indices
        inputs = x[drawn]
        z = torch.tanh(inputs @ W.mT + b[:, None])
        r = share * (z @ v.mT + c[:, None] - y[drawn])
        u = r * v * (1 - z * z)
        W, b, v, c = W - u.mT @ inputs, b - u.sum(1), v - r.mT @ z, c - r.sum(1)
    return [problem.at(theta) for theta in torch.cat([p.flatten(1) for p in (W, b, v, c)], 1)]


def fitted(problem):
    """The minimum that Gauss-Newton steps of least length come to."""
    y = problem.first_batch().targets
    for _ in range(15):
        f = problem.outputs(problem.theta, problem.first_batch()).detach()
        J = lg.ParameterJacobian(problem).dense()
        step = torch.linalg.lstsq(J, f - y, driver="gelsd").solution
        problem = problem.at(problem.theta - step[:, 0])
        if problem.loss() < 1e-29:
            break
    return problem
