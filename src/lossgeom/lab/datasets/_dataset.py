"""What every data set is."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Dataset:
    """Examples to train on and examples to test on, as pairs (inputs, targets)."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    classes: int
    scaling: str
