"""The README's Python runs as it stands, and its commands are those of the Makefile."""

import re
from pathlib import Path

from lossgeom import Record, verdict_of
from lossgeom.report import render

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_python(tmp_path, monkeypatch, capsys, pages_alone):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 6
    exec("\n".join(blocks), {})
    assert len(capsys.readouterr().out.splitlines()) >= 10
    assert Record.open("runs/mine").series("sharpness")[0] == [0, 5, 10, 15]
    assert render([Path("runs/mine")]).exists()
    assert verdict_of(Record.open("runs/watched")).kind == "at the edge"


def test_commands():
    assert "make demo" in README
    assert "make test" in README
    ci = (ROOT / ".ci/run").read_text()
    assert re.findall(r"^make \w+$", ci, flags=re.MULTILINE) == ["make demo", "make test"]


def test_links_and_pictures_exist():
    pages = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), ROOT / "CONTRIBUTING.md"]
    for page in pages:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_files_that_the_pages_on_the_source_name_are_there():
    pages = ROOT / "CONTRIBUTING.md", ROOT / "docs/explanation/architecture.md"
    for page in pages:
        named = re.findall(r"`([\w./]+(?:\.py|/))`", page.read_text())
        assert named
        for name in named:
            places = ROOT / "src/lossgeom" / name, ROOT / name
            assert any(place.exists() for place in places), f"{page.name}: {name}"
