"""Regularisers, and what goes with the generalisation gap: the Jacobian norm or sharpness.

MacDonald, Valmadre and Lucey (arXiv:2305.14683, figure 5) train a ResNet18 with more and more label
smoothing, augmentation, mixup or sharpness-aware minimisation (SAM), at several initial learning
rates, and measure sharpness (of the loss in train mode), the norm of the input-output Jacobian (in
eval mode, on the examples as they are, not as they are augmented) and the gap between test and
training loss. All four lower the Jacobian norm and the gap, only SAM lowers sharpness, and so the
Jacobian norm goes with the gap much better. The paper gives no coefficients.

They are computed here, over networks that are trained with one regulariser each. To the paper's
four come weight decay and a penalty on the Jacobian norm, and runs with other batch sizes widen the
range of settings. The loss that is measured is the one that is trained, with label smoothing less
the entropy of its labels, as in the paper. Since that makes gaps smaller by itself, all is said of
the gap of the loss without label smoothing, too. The comparison with sharpness is about other seeds
and other settings of this kind: its interval draws both again. Runs that diverge are left out of it
and of all correlations; in ratios to the run without a regulariser they count as infinite.

Digits are images of 8 x 8 pixels. A share of them is shifted by up to a pixel, which is much, and
none is reflected, which would make them something else.

All that follows was fixed on seed 100, before seeds 10, 11, ... were run, which are those of the
study. Seen there, in three versions of 42 runs: with learning rates of 0.02 and 0.2, constant or
falling, and of 0.05 and 0.2, falling. The last was cut to 38 runs, by two strengths, with a batch
size of 125 for 250 and a penalty of 0.001 for 0.003, which were not tried before.

- The rank correlation with the gap is 0.77 to 0.79 of the Jacobian norm and -0.33 to -0.44 of
  sharpness; given the training loss, 0.59 to 0.64 and 0.29 to 0.34. With the gap of the loss
  without label smoothing it is 0.57 to 0.65 and -0.34 to -0.45.
- Over plain runs and those with label smoothing alone, that of the Jacobian norm and this gap is
  0.64 to 0.74, though such runs have about the same gap at all levels of smoothing.
- SAM lowers sharpness to a half or a fifth; all others raise it. Augmentation raises the Jacobian
  norm, unless few images are shifted, and lowers the gap, unless all are.
- At the larger learning rate, the Jacobian norm is twice as large with the most mixup or
  augmentation as with the least.
- Batches of 250 do not fit in 200 steps at the smaller learning rate, hence at most 125.
"""

from typing import Any

from lossgeom.lab.studies._study import Study
from lossgeom.lab.studies._sweep import GLOSSARY, ROWS, scatter, steps
from lossgeom.lab.studies.regularisers import claims, run
from lossgeom.lab.studies.regularisers.config import NONE, PAPER, TECHNIQUES, Config
from lossgeom.recording.metric_figures import Strengths, Sweep


def grid(config: Config) -> dict[str, tuple[Any, ...]]:
    """What tells the runs of a seed apart; each technique has some of the strengths."""
    every = {float(s) for name in TECHNIQUES for s in config.strengths(name)}
    return {"lr": config.lr, "technique": TECHNIQUES, "strength": tuple(sorted(every))}


def column(name: str, label: str, log: bool = False) -> Strengths:
    """That of a regulariser; runs with none have a strength of 0."""
    return Strengths("strength", label, log, where={"technique": (NONE, name)})


STUDY = Study(
    name="regularisers",
    title="Regularisers, the Jacobian norm, sharpness and the gap",
    source=claims.PAPER_A,
    Config=Config,
    paper=PAPER,
    grid=grid,
    planned=lambda config, place: place["strength"] in config.strengths(place["technique"]),
    folder="lr{lr:g}-{technique}{strength:g}-seed{seed}",
    run=run.run,
    steps=steps,
    claims=claims.claims,
    summary=claims.summary,
    glossary=GLOSSARY,
    sweep=Sweep(
        columns=(
            column("label_smoothing", "label smoothing"),
            column("augmentation", "share of images shifted"),
            column("mixup", "mixup, alpha", log=True),
            column("sam", "SAM, radius"),
            column("jacobian_penalty", "Jacobian penalty", log=True),
        ),
        rows=ROWS,
        lines="lr",
        caption="Learning rates are the initial ones. Weight decay and batch size have studies of "
        "their own.",
    ),
    scatter=scatter(colour="technique", size="lr"),
)
