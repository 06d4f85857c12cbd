"""What the command line says of arguments that are none of what there is."""

import re

import pytest

from lossgeom.cli import main


@pytest.mark.quick
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "planar_quadratic", "--preset", "fast"], "'fast'; expected paper or quick"),
        (["run", "planar_quadratic", "--seeds", "2.5"], "expected a whole number, got '2.5'"),
        (["run", "planar_quadratic", "--workers", "all"], "expected a whole number, got 'all'"),
        (["measure", "net.py:model", "--lr", "abc"], "expected a number, got 'abc'"),
        (["measure", "net.py:model", "--dtype", "float16"], "expected float32 or float64"),
        (
            ["measure", "net.py:model", "--loss", "squared_eror"],
            "did you mean squared_error? expected cross_entropy, next_token_cross_entropy, "
            "squared_error or token_cross_entropy",
        ),
        (["doctor", "net.py:model", "--mode", "test"], "unknown choice 'test'; expected eval or"),
    ],
)
def test_choices_are_sorted_and_in_english(arguments, said, capsys):
    try:
        status = main(arguments)
    except SystemExit as ended:
        status = ended.code
    text = re.sub(r"[\s│]+", " ", capsys.readouterr().err)
    assert status == 2
    assert said in text
    assert "None" not in text
