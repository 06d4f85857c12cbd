"""Studies, one in each folder: the empirical statements of a paper, executed."""

from lossgeom.lab.studies import (
    batch_norm,
    batch_size,
    edge_of_stability,
    eigenspace_overlap,
    gauss_newton_outliers,
    generalisation_bound,
    input_scaling,
    input_smoothness,
    jacobian_intervention,
    layerwise_structure,
    learning_rate,
    pac_bayes,
    planar_quadratic,
    progressive_sharpening,
    quadratic_expansion,
    random_quadratic,
    random_two_layer,
    sgd_stability,
    sharpening_lower_bound,
    smoothness_bounds,
    target_scaling,
    weight_decay,
    width,
)
from lossgeom.lab.studies._study import SeedRun, Study

STUDIES = {
    study.name: study
    for study in (
        progressive_sharpening.STUDY,
        gauss_newton_outliers.STUDY,
        input_smoothness.STUDY,
        quadratic_expansion.STUDY,
        planar_quadratic.STUDY,
        random_quadratic.STUDY,
        edge_of_stability.STUDY,
        sgd_stability.STUDY,
        smoothness_bounds.STUDY,
        eigenspace_overlap.STUDY,
        random_two_layer.STUDY,
        layerwise_structure.STUDY,
        pac_bayes.STUDY,
        sharpening_lower_bound.STUDY,
        generalisation_bound.STUDY,
        weight_decay.STUDY,
        learning_rate.STUDY,
        batch_size.STUDY,
        jacobian_intervention.STUDY,
        batch_norm.STUDY,
        input_scaling.STUDY,
        target_scaling.STUDY,
        width.STUDY,
    )
}
