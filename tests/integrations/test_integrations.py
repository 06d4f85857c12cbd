"""What holds without any framework."""

import importlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.quick
EXTRAS = {
    "lightning": ("lightning", "lightning.pytorch", "lightning"),
    "transformers": ("transformers", "transformers", "transformers"),
    "accelerate": ("accelerate", "accelerate", "accelerate"),
}


@pytest.mark.parametrize("name", EXTRAS)
def test_what_is_missing_is_named_with_the_extra_that_brings_it(monkeypatch, name):
    package, module, extra = EXTRAS[name]
    monkeypatch.delitem(sys.modules, f"lossgeom.integrations.{name}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, "pytorch_lightning", None)
    expected = f"{module} is needed here .* pip install 'lossgeom.{extra}.'"
    with pytest.raises(ImportError, match=expected):
        importlib.import_module(f"lossgeom.integrations.{name}")


def test_nothing_heavy_is_imported():
    code = (
        "import sys, lossgeom.integrations, lossgeom; lossgeom.watch; lossgeom.mirrors; "
        "print(*{'lightning', 'pytorch_lightning', 'transformers', 'accelerate'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stdout.strip()
