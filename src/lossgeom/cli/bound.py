"""``lossgeom bound``."""

from __future__ import annotations

from lossgeom.cli import all_bounds, pac_bayes
from lossgeom.cli.messages import show
from lossgeom.messages.wording import one_of, unknown

BOUNDS = {"all": all_bounds, "pac-bayes": pac_bayes}


def main(arguments: list[str]) -> int:
    """Compute a bound, print and write it; return the exit status."""
    if not arguments:
        raise ValueError(f"expected a bound: lossgeom bound NAME, with {one_of(BOUNDS)}")
    name, *rest = arguments
    if name in ("-h", "--help"):
        show("usage: lossgeom bound NAME [--help] [OPTIONS]\n\nbounds:")
        for known, summary in summaries().items():
            show(f"  {known:<24}{summary}")
        return 0
    if name not in BOUNDS:
        raise ValueError(unknown("bound", name, BOUNDS))
    return int(BOUNDS[name].main(rest))


def summaries() -> dict[str, str]:
    """A line on each bound."""
    return {name: bound.HELP.partition("\n")[0] for name, bound in BOUNDS.items()}
