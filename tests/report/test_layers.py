"""Tables of the structure of layers."""

import pytest

from lossgeom.report.layers import layers_table

pytestmark = pytest.mark.quick
LAYER = {
    "layer": "0", "shape": [3, 4], "overlap": [1.0], "baseline": [0.5], "errors": {},
    "outliers": {"count": 1, "gap": "inf"}, "rank_one_energy": [1.0], "mean_input_energy": [0.5],
    "input_ratio": "inf", "trace_ratios": {},
}  # fmt: skip


def test_ratios_to_nothing_are_infinite():
    """Of a block of low rank, as JSON has them."""
    headings, row = layers_table([LAYER])
    cells = dict(zip(headings, row, strict=True))
    assert cells["outliers, gap"] == "1 of 1, inf"
    assert cells["mu1/mu2"] == "inf"
    assert cells["trace"] == ""
