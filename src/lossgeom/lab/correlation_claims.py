"""Claims about correlations over runs, of which seeds and settings are a sample."""

import math
from typing import Any

from lossgeom.lab.statistics import claim_of
from lossgeom.recording.claim import Claim
from lossgeom.recording.correlations import NEEDED, Correlation


def claim_of_correlation(name: str, *, found: Correlation, note: str = "", **parts: Any) -> Claim:
    """Make a claim about a correlation over runs, or about the difference of two.

    The statement is about other seeds and other settings of this kind. Of a statement about these
    settings alone, each seed gives a correlation, and
    :func:`lossgeom.lab.statistics.claim_over_seeds` judges them.

    Args:
        name: of the claim.
        found: by ``correlation`` or ``difference`` of
            :class:`lossgeom.recording.correlations.Runs`. Runs without finite values, such as
            those that diverged, are left out, and the note says so.
        note: what follows.
        parts: the others of :class:`lossgeom.Claim`.

    >>> from lossgeom.recording.correlations import Runs
    >>> seeds, settings = [0, 0, 0, 1, 1, 1], "abcabc"
    >>> runs = Runs(seeds, settings, {"x": [1, 2, 3, 1, 2, 3], "y": [1, 3, 2, 4, 6, 5]})
    >>> claim_of_correlation("a", statement="x goes with y", source="A", measured="correlation",
    ...     found=runs.correlation("x", "y"), expected=(0.0, 1.0)).verdict
    'inconclusive'
    """
    said = f"Over {found.runs} runs."
    if found.left_out:
        said = f"Over {found.runs} runs, without {found.left_out} that have no finite values."
    reason = f"{NEEDED.capitalize()}." if math.isnan(found.interval()[0]) else ""
    return claim_of(name, found.value, found.interval, found.of_seeds, said, reason, note, **parts)
