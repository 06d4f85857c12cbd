"""The settings of the study."""

from __future__ import annotations

from dataclasses import dataclass

from lossgeom.lab.studies._study import require

FEWER = 4  # times fewer inputs, where what is missing of the overlap is compared


@dataclass(frozen=True)
class Config:
    """Settings of the study; the defaults run in half a minute on two cores."""

    widths: tuple[int, ...] = (50, 200, 800)
    """Widths n of the hidden layer, increasing."""
    inputs: int = 100
    """Numbers d per example."""
    outputs: int = 10
    """Classes C."""
    samples: int = 2000
    """Examples, drawn from a normal distribution."""

    def __post_init__(self) -> None:
        widths = list(self.widths)
        require(self, self.outputs >= 3, "three classes or more", "outputs")
        require(self, self.inputs >= FEWER, f"{FEWER} inputs or more", "inputs")
        require(self, self.samples >= 1, "one example or more", "samples")
        rising = len(widths) >= 2 and widths == sorted(set(widths))
        require(self, rising, "two increasing widths or more", "widths")
        wide = min(widths) > self.outputs
        require(self, wide, "widths above the number of classes", "widths", "outputs")


# The theorem's limit is an infinite width; the sizes are ours.
PAPER = Config(widths=(50, 200, 800, 2000), samples=8000)
