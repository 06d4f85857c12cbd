"""Sections of a report, one in each file: a Source in, a Section out, or None for no section."""

from collections.abc import Callable
from pathlib import Path

from lossgeom.report._section import Section
from lossgeom.report._source import Source
from lossgeom.report.sections.bound import bound
from lossgeom.report.sections.boundaries import boundaries
from lossgeom.report.sections.claims import claims
from lossgeom.report.sections.comparison import comparison
from lossgeom.report.sections.correlations import correlations
from lossgeom.report.sections.curves import curves
from lossgeom.report.sections.density import density
from lossgeom.report.sections.eigenvalues import eigenvalues
from lossgeom.report.sections.geometry import geometry
from lossgeom.report.sections.heat_map import heat_map
from lossgeom.report.sections.phase_plane import phase_plane
from lossgeom.report.sections.predictions import predictions
from lossgeom.report.sections.runs import runs
from lossgeom.report.sections.scatter import scatter
from lossgeom.report.sections.setup import setup
from lossgeom.report.sections.spectra import spectra
from lossgeom.report.sections.structure import structure
from lossgeom.report.sections.sweep import sweep
from lossgeom.report.sections.training import training
from lossgeom.report.sections.trajectories import trajectories
from lossgeom.report.sections.verdict import verdict

SECTIONS: tuple[Callable[[Source, Path], Section | None], ...] = (
    bound,
    comparison,
    geometry,
    density,
    eigenvalues,
    structure,
    verdict,
    training,
    sweep,
    scatter,
    correlations,
    trajectories,
    spectra,
    phase_plane,
    boundaries,
    predictions,
    curves,
    heat_map,
    claims,
    runs,
    setup,
)
