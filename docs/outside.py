"""For mkdocs: what pages link to outside of this folder becomes part of the site."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
OUTSIDE = re.compile(r"(?<=\]\()\.\./([^)#\s]+)(#[^)\s]*)?")
PLACE = "repository/"


def on_files(files: Any, config: Any) -> Any:
    """Add every file outside of this folder that a page links to."""
    pages = [page.read_text(encoding="utf-8") for page in Path(config.docs_dir).glob("*.md")]
    for path in {found[0] for text in pages for found in OUTSIDE.findall(text)}:
        if (ROOT / path).is_file():
            files.append(File.generated(config, PLACE + path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Let the links lead there. A file from outside keeps its text and loses its own links."""
    if page.file.src_uri.startswith(PLACE):
        return re.sub(r"!?\[([^\]]*)\]\((?!https?:)[^)]*\)", r"\1", markdown)
    return OUTSIDE.sub(lambda found: PLACE + found[1] + (found[2] or "" if found[1].endswith(".md") else ""), markdown)
