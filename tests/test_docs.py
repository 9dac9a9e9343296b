"""What the documentation says can be done: its blocks run, its commands parse, its links lead somewhere."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import pytest

from iquitos_rl import __main__
from iquitos_rl.agents.registry import AGENTS
from iquitos_rl.assignments import read_value
from iquitos_rl.baselines.registry import CONTROLLERS
from iquitos_rl.buffers.codecs import CODECS
from iquitos_rl.cases.presets import PRESETS
from iquitos_rl.envs.engines import ENGINES
from iquitos_rl.runs import session
from iquitos_rl.version import __version__
from iquitos_rl.writers.registry import WRITERS

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").glob("*.md"))]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
SHORTER = {
    **{r"\b(20|50|200)_000\b": "300", r"num_envs=\d+": "num_envs=2", r"ENVIRONMENTS = \d+": "ENVIRONMENTS = 2"},
    **{"horizon=1_024": "horizon=128", "horizon=64": "horizon=8", "batch_size=512": "batch_size=16"},
    **{"EPISODES = 10": "EPISODES = 1", r"learn\(1_024\)": "learn(128)"},
}
"""What blocks say, and what a test runs in its place."""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def run(code: str, case: Path, scope: dict[str, Any]) -> None:
    for long, short in SHORTER.items():
        code = re.sub(long, short, code)
    code = re.sub(r"build_preset\(.*\)", f"Path({str(case)!r})", code)
    for name in ('"my_case"', '"path/to/schema_folder"'):
        code = code.replace(name, repr(str(case)))
    exec(compile(code, "block", "exec"), scope)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name_of)
def test_blocks_run(page: Path, week_38: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page.name == "coming_from.md":
        pytest.skip("test_coming_from.py runs them side by side")
    monkeypatch.chdir(tmp_path)
    for table in (AGENTS, CONTROLLERS, CODECS, PRESETS, ENGINES, WRITERS):
        monkeypatch.setattr(table, "_entries", dict(table._entries))  # some blocks add entries
    scope: dict[str, Any] = {"encode": None, "decode": None}  # left out where a codec is shown
    for code in blocks(page, "python"):
        run(code, week_38, scope)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=name_of)
def test_notebooks_run(notebook: Path, week_38: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    backend = matplotlib.get_backend()
    matplotlib.use("Agg")
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    scope: dict[str, Any] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            run("".join(cell["source"]), week_38, scope)
    matplotlib.use(backend)
    assert scope["agent"].steps > 0


def commands() -> list[str]:
    """Every command of this package that a page shows, without comments and line ends."""
    found = []
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                words = [word for n, word in enumerate(words) if "=" not in word or n > 0]
                if words[:1] == ["iquitos-rl"]:
                    found.append(shlex.join(words[1:]))
    return sorted(set(found))


def test_pages_show_commands() -> None:
    assert len(commands()) > 20


@pytest.mark.parametrize("command", commands())
def test_commands_parse(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    words = shlex.split(command)
    if "reinforce" in words:  # of the plugin that CONTRIBUTING shows
        return
    if words[0] == "train" and "--resume" not in words:
        asked: list[session.Request] = []
        monkeypatch.setattr(session, "train", lambda request: asked.append(request) or 0)
        assert __main__.main(words) == 0
        assert asked[0].settings().agents
    elif words[-1] != "--resume":  # a folder may be left out there, which `run_app` takes care of
        __main__.commands().parse_args(words, exit_on_error=False, print_error=False)


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for name, link in re.findall(r"\[([^\]]*)\]\(([^)\s]+)\)", text) + [
        ("", x) for x in re.findall(r'src="([^"]+)"', text)
    ]:
        if link.startswith(("http:", "https:")):
            continue
        path, _, place = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if target.suffix == ".md" and place:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert place in map(slug, headings), link
        elif place:  # a line of code: it defines what the link names
            line = target.read_text(encoding="utf-8").splitlines()[int(place.removeprefix("L")) - 1]
            assert re.match(rf"(def|class) {name.strip('`')}\b", line), link


def test_every_page_has_its_place_in_the_site() -> None:
    config = read_value((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    placed = re.findall(r"[\w./]+\.md", json.dumps(config["nav"]))
    assert sorted(placed) == sorted(page.name for page in PAGES if page.parent.name == "docs")


@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="needs the extra docs")
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env={**os.environ}, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "index.html").is_file()


def test_the_version_is_one() -> None:
    cited = read_value((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"]
    assert str(cited) == __version__
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
