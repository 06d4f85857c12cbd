"""Whether SGD is stable at a minimum."""

from __future__ import annotations

from lossgeom.messages.checks import check_number
from lossgeom.problem import Problem, checked_problem
from lossgeom.stability.sgd._bounded import bounded
from lossgeom.stability.sgd._exact import exact
from lossgeom.stability.sgd._outputs import example_outputs
from lossgeom.stability.sgd._setting import Setting
from lossgeom.stability.sgd.certificate import SGDCertificate
from lossgeom.stability.sgd.examples import (
    LARGEST,
    TooLargeError,
    check_size,
    example_curvatures,
)
from lossgeom.stability.sgd.sampling import Sampling, check_batches


def certify_sgd(
    problem: Problem,
    lr: float,
    batch_size: int,
    momentum: float = 0.0,
    sampling: Sampling = "without replacement",
    *,
    largest: int = LARGEST,
) -> SGDCertificate:
    r"""Say whether SGD with these settings stays at this minimum, and why.

    Near a minimum a step of SGD is :math:`w \to (I - \eta H_b) w - \eta g_b` with the mean of the
    curvatures H_i and gradients g_i of the examples in a random batch b. Its second moment stays
    bounded up to a learning rate that depends on all H_i, not on their mean alone:
    :func:`mean_square_threshold`, which is exact, also with momentum. Where the gradient of every
    example is zero (an interpolating minimum), SGD then converges; where only their mean is (a
    regular one), it stays at a distance (:func:`stationary_state`). Reshuffled epochs are
    enumerated where they are few, and otherwise bounded from below.

    H_i is the Gauss-Newton matrix of an example, positive semi-definite as the theory needs it.
    What that leaves out is measured along the top eigenvector; a verdict has to hold with a margin
    of three times its share, and instability is also seen with it along that direction. At a
    regular minimum single examples have such curvature also where its mean is zero, which makes
    noise that grows by itself wherever the loss is flat; nothing is certified stable where that
    may matter, beside what the smallest eigenvalue of the Hessian damps. Nothing is
    certified where the Hessian has an eigenvalue below -1e-3 of the sharpness, or the gradient is
    more than 0.05 of those of single examples, root mean square, unless their steps with the
    learning rate 2 / sharpness are below 1e-4 of the parameters' length.

    Where there are more outputs than ``largest``, the threshold is bounded from both sides.

    Cost: that of :func:`example_curvatures`, about 50 products of 4 n c r^2 flops, and a search for
    the smallest eigenvalue of the Hessian; at a regular minimum also ten searches for the largest
    of a matrix as costly. With too many outputs: some hundred products with the
    Gauss-Newton matrix in the place of the former.

    Args:
        problem: at a minimum; a loss that is a mean over examples, without weight decay.
        lr: the learning rate.
        batch_size: B, of the n examples of the problem.
        momentum: of heavy ball, as torch.optim.SGD has it without dampening and Nesterov's.
        sampling: how batches are drawn: ``"without replacement"``, ``"with replacement"``, both
            independently, or ``"reshuffling"``, epoch by epoch.
        largest: outputs of all examples, n C, up to which the threshold is exact.

    Returns:
        The certificate, which can be printed.

    Raises:
        ValueError: for settings out of their range, or where a step of SGD is no mean over
            independent examples; see :func:`example_curvatures`.

    Source: Mulayoff and Michaeli, arXiv:2306.07850; Ma and Ying, arXiv:2105.13462; Wu, Ma and E,
    How SGD selects the global minima in over-parameterized learning, 2018.

    >>> import torch
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> _ = torch.nn.init.zeros_(model.weight)
    >>> points = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0], [1.0, -1.0]])
    >>> problem = Problem(model, "squared_error", [(points, torch.zeros(4, 1))])
    >>> found = certify_sgd(problem, lr=0.7, batch_size=1)
    >>> found.state, found.minimum, found.smallest_batch
    ('unstable', 'interpolating', 2)
    >>> round(found.threshold, 6), certify_sgd(problem, lr=0.7, batch_size=2).state
    (0.64401, 'stable')
    """
    check_number("lr", lr, 0)
    check_number("momentum", momentum, 0, 1, at_low=True)
    examples = example_outputs(checked_problem(problem))
    check_batches(examples.n, batch_size, sampling)
    setting = Setting(problem, lr, batch_size, momentum, sampling, examples)
    try:
        check_size(examples, problem, largest)
    except TooLargeError as error:
        return bounded(setting, str(error))
    return exact(setting, example_curvatures(problem, largest=largest))
