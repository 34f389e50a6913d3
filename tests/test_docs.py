"""The documents: their examples give what they say, their commands run, and the site is built from them."""

from __future__ import annotations

import doctest
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.cli import main
from tests.topology.importers.files import nvswitch_xml

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
NAMED_FILE = re.compile(r"```yaml\n# (\S+\.yaml)\n(.*?)```", re.DOTALL)
FILES = {name: text for page in TEXTS.values() for name, text in NAMED_FILE.findall(page)} | {
    "nccl-topo.xml": nvswitch_xml()
}


def commands(text: str) -> list[str]:
    r"""Return the commands of a page, in order; lines with [--option] say what may be written, and are none.

    >>> commands("text\n\n    chipmesh list --json   # all\n    chipmesh topo SYSTEM [--svg FILE]\n")
    ['chipmesh list --json']
    """
    lines = [line.split("  #")[0].strip() for line in text.splitlines() if line.startswith("    chipmesh ")]
    return [part.strip() for line in lines if "[--" not in line for part in line.split("&&")]


LONG = (
    "--backend ray", "sweep layouts.yaml", "chipmesh plan", "--compare-fp32", "parallel.tp=9", "1KiB:1GiB",
    "--algorithm synthesised", "--reduction max",
)  # fmt: skip
"""What takes more than a few seconds."""
MANY_TOKENS = "run galaxy-smollm2"
"""What is as much of a test with fewer tokens."""
HAS_LONG = [n for n, text in TEXTS.items() if any(w in c for c in commands(text) for w in (*LONG, MANY_TOKENS))]
HAS_SHORT = [name for name, text in TEXTS.items() if any(all(w not in c for w in LONG) for c in commands(text))]


def run_all(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, long: bool) -> int:
    """Run a page's commands, the short or all of them, in a folder with the files that the pages name."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    chosen = commands(TEXTS[page])
    if not long:
        few = f"{MANY_TOKENS} --set workload.new_tokens=2"
        chosen = [c.replace(MANY_TOKENS, few) for c in chosen if not any(word in c for word in LONG)]
    for command in chosen:
        assert main(shlex.split(command)[1:]) == 0, command
    return len(chosen)


@pytest.mark.parametrize("page", [page for page in PAGES if ">>> " in TEXTS[page.name]], ids=lambda page: page.name)
def test_examples(page):
    """Every line with a prompt gives the lines below it."""
    failed, tried = doctest.testfile(str(page), module_relative=False)
    assert tried
    assert not failed


@pytest.mark.no_cover  # the tests of the commands measure them
@pytest.mark.parametrize("page", HAS_SHORT)
def test_commands(page, tmp_path, monkeypatch):
    """Every command of a page ends well, in the page's order."""
    assert run_all(page, tmp_path, monkeypatch, long=False)


@pytest.mark.heavy
@pytest.mark.parametrize("page", HAS_LONG)
def test_long_commands(page, tmp_path, monkeypatch):
    """So do those that take longer."""
    assert run_all(page, tmp_path, monkeypatch, long=True)


def test_every_page_is_in_the_site():
    """The site's index names every page."""
    named = set(re.findall(r"^([a-z-]+)$", TEXTS["index.md"], re.MULTILINE))
    assert {Path(name).stem for name in TEXTS} - {"README", "index"} == named


def test_site(tmp_path):
    """Sphinx builds the site without a warning: links, tables of contents, docstrings."""
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-b",
        "html",
        str(ROOT / "docs"),
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "cluster.launch" in (tmp_path / "api.html").read_text(encoding="utf-8")


@pytest.mark.heavy
@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.py")), ids=lambda script: script.stem)
def test_scripts(script, tmp_path):
    """An example prints its figures and draws its picture, which the site shows."""
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert (tmp_path / f"{script.stem}.svg").exists()
    assert (ROOT / "docs" / "examples" / f"{script.stem}.svg").exists()
    assert f"examples/{script.stem}.svg" in TEXTS["examples.md"]
