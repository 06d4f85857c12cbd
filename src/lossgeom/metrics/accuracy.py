"""The share of targets that are predicted."""

from dataclasses import dataclass

import torch

from lossgeom.batches import Batch
from lossgeom.estimate import Estimate
from lossgeom.problem import NonFiniteError, Problem


@dataclass(frozen=True)
class Accuracy:
    """The share of targets whose class has the largest output, between 0 and 1.

    Outputs are (B, C, ...) with C > 1; targets are class indices (B, ...), of which
    ``ignore_index`` does not count, or one number per class (B, C, ...), the largest being the
    class.

    Cost: one forward pass.

    >>> Accuracy().name
    'accuracy'
    """

    ignore_index: int = -100
    name = "accuracy"

    def __call__(self, problem: Problem) -> Estimate:
        """Measure.

        Raises:
            ValueError: if outputs and targets are not of these shapes, or no target counts.
            NonFiniteError: where an output is NaN or infinite.
        """

        @torch.no_grad()
        def terms(batch: Batch) -> tuple[torch.Tensor, float]:
            outputs, targets = problem.outputs(problem.theta, batch), batch.targets
            if outputs.ndim < 2 or outputs.shape[1] < 2:
                raise ValueError(
                    f"expected outputs (B, C, ...) with C > 1, got {tuple(outputs.shape)}"
                )
            if not isinstance(targets, torch.Tensor):
                raise ValueError(f"expected a tensor of targets to score; {batch.remedy}")
            if not torch.isfinite(outputs).all():
                raise NonFiniteError("an output of the model is NaN or infinite")
            classes = targets.argmax(1) if targets.shape == outputs.shape else targets
            predicted = outputs.argmax(1)
            if classes.shape != predicted.shape:
                raise ValueError(
                    f"expected targets of shape {tuple(predicted.shape)} or "
                    f"{tuple(outputs.shape)}, got {tuple(targets.shape)}"
                )
            valid = classes != self.ignore_index
            right = (predicted == classes) & valid
            return torch.stack([right.sum(), valid.sum()]), 1.0

        total, _ = problem.reduced(lambda here: here.over_batches(terms))
        right, valid = total.tolist()
        if valid == 0:
            raise ValueError("expected targets to score, but all of them are ignored")
        return Estimate(right / valid)
