"""What the search for a PAC-Bayes bound leaves in a record."""

from __future__ import annotations

from lossgeom.bounds import Epoch
from lossgeom.recording.metric_figures import Panel, Trajectories

OBJECTIVE, KL, PRIOR_VARIANCE = "objective", "kl", "prior_variance"
SEARCH = Trajectories(
    panels=(
        Panel(OBJECTIVE, "surrogate of the bound:\nloss in bits + complexity", log=True),
        Panel(KL, "KL, nats", log=True),
        Panel(PRIOR_VARIANCE, "variance of the prior", log=True),
    ),
    step="epoch",
)


def numbers_of(epoch: Epoch) -> dict[str, float]:
    """The numbers of the search after an epoch, by metric."""
    surrogate = epoch.surrogate + epoch.complexity
    return {OBJECTIVE: surrogate, KL: epoch.kl, PRIOR_VARIANCE: epoch.prior_variance}
