"""What the tests of the studies share."""

from typing import Any


def varied(numbers: dict[str, dict[str, float]], seeds: int = 6) -> list[dict[str, Any]]:
    """The numbers of a seed for several, which differ by less than a thousandth."""
    return [
        {
            stage: {name: value * (1 + 1e-4 * seed) for name, value in row.items()}
            for stage, row in numbers.items()
        }
        for seed in range(seeds)
    ]
