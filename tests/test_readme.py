"""The Python of README and front pages runs as it stands; commands and links lead somewhere."""

import re
from pathlib import Path

from lossgeom import Record, verdict_of
from lossgeom.report import render

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def python(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)


def test_python(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (block,) = python(ROOT / "README.md")
    exec(block, {})
    assert capsys.readouterr().out.startswith("at the edge since step 80: sharpness 1.09 to 1.19")
    assert verdict_of(Record.open("runs/watched")).kind == "at the edge"


def test_python_of_first_numbers(tmp_path, monkeypatch, capsys, pages_alone):
    monkeypatch.chdir(tmp_path)
    blocks = python(ROOT / "docs/how-to/first-numbers.md")
    assert len(blocks) == 5
    exec("\n".join(blocks), {})
    assert len(capsys.readouterr().out.splitlines()) >= 10
    assert Record.open("runs/mine").series("sharpness")[0] == [0, 5, 10, 15]
    assert render([Path("runs/mine")]).exists()


def test_the_front_page_has_the_example_of_the_readme():
    assert python(ROOT / "docs/index.md") == python(ROOT / "README.md")


def test_commands():
    assert "make demo" in README
    assert "make test" in README
    ci = (ROOT / ".ci/run").read_text()
    assert re.findall(r"^make \w+$", ci, flags=re.MULTILINE) == [
        "make demo",
        "make test",
        "make docs",
    ]


def test_links_and_pictures_exist():
    pages = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), ROOT / "CONTRIBUTING.md"]
    for page in pages:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_room_has_a_line_on_the_page_of_the_source():
    page = (ROOT / "docs/explanation/architecture.md").read_text()
    section = page.split("## Which room")[1].split("\n## ")[0]
    entries = [path for path in (ROOT / "src/lossgeom").glob("[a-z]*") if path.suffix != ".typed"]
    rooms = [path.name + "/" * path.is_dir() for path in entries]
    assert sorted(re.findall(r"`([\w./]+)`", section)) == sorted(rooms)


def test_files_that_the_pages_on_the_source_name_are_there():
    pages = ROOT / "CONTRIBUTING.md", ROOT / "docs/explanation/architecture.md"
    for page in pages:
        named = re.findall(r"`([\w./]+(?:\.py|/))`", page.read_text())
        assert named
        for name in named:
            places = ROOT / "src/lossgeom" / name, ROOT / name
            assert any(place.exists() for place in places), f"{page.name}: {name}"
