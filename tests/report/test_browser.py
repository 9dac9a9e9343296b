"""The page in a real browser, where there is one: it fits a telephone and a screen, and asks for nothing else."""

import json
import re
import shutil
import subprocess
from html import escape, unescape

import pytest
from test_report import write_run

from iquitos_rl.report.page import write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
MEASURE = """<script>
const loose = [...document.querySelectorAll("body *:not(.wide *, svg *)")].filter(e => e.checkVisibility());
const over = loose.filter(e => e.getBoundingClientRect().right > innerWidth).map(e => e.outerHTML.slice(0, 80));
parent.document.title = JSON.stringify({width: innerWidth, scroll: document.documentElement.scrollWidth, over,
  drawn: loose.filter(e => e.tagName == "svg" && e.getBoundingClientRect().height > 50).length,
  asked: performance.getEntriesByType("resource").map(e => e.name)});
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return write_report(write_run(tmp_path_factory.mktemp("report") / "run", ("sac", "ppo")))


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen_and_nothing_is_asked_for(page, tmp_path, width):
    html = page.read_text(encoding="utf-8")
    frame = tmp_path / "frame.html"  # a window is never as narrow as a telephone
    frame.write_text(f'<title></title><iframe width={width} srcdoc="{escape(html + MEASURE)}">', encoding="utf-8")
    words = [BROWSER, "--headless", "--no-sandbox", "--hide-scrollbars", f"--user-data-dir={tmp_path / 'profile'}"]
    words += ["--dump-dom", frame.as_uri()]
    shown = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True).stdout
    found = json.loads(unescape(re.search("<title>(.*?)</title>", shown)[1]))
    expected = {"width": width, "scroll": width, "over": [], "drawn": html.count("<svg"), "asked": []}
    assert found == expected
