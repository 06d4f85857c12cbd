"""Studies, one in each file: the empirical statements of a paper, executed."""

from lossgeom.lab.studies import (
    gauss_newton_outliers,
    input_smoothness,
    progressive_sharpening,
    quadratic_expansion,
)
from lossgeom.lab.studies._study import RunConfig, Study

STUDIES = {
    study.name: study
    for study in (
        progressive_sharpening.STUDY,
        gauss_newton_outliers.STUDY,
        input_smoothness.STUDY,
        quadratic_expansion.STUDY,
    )
}

__all__ = ["STUDIES", "RunConfig", "Study"]
