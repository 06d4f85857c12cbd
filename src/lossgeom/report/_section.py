"""A section of a report."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Section:
    """A heading, and a template with the values that it shows."""

    title: str
    template: str
    values: dict[str, Any]
