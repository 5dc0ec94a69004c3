"""A page as a browser shows it."""

import html
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest


def driven(page: str, script: str, folder: Path) -> str:
    """What a script that is run in a page leaves as its title; the test is skipped where there is no browser."""
    file = folder / "driven.html"
    file.write_text(page.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    title = re.search(r"<title>(.*?)</title>", _dom(file), re.DOTALL)
    assert title is not None
    return html.unescape(title[1])


def laid_out(page: str, folder: Path, *, width: int) -> tuple[int, int, bool]:
    """How wide a page of HTML becomes in a window of some width, how many pictures it has, and whether all load.

    The test is skipped where there is no browser; `folder` takes a file.
    """
    # A frame, as a browser without a screen makes no window narrower than 500.
    probe = (
        "<script>addEventListener('load',()=>{const d=document.getElementById('f').contentDocument;document.title="
        "[d.documentElement.scrollWidth,d.images.length,[...d.images].every(i=>i.naturalWidth>0)].join()})</script>"
    )
    inner = page.replace("&", "&amp;").replace('"', "&quot;")
    file = folder / "page.html"
    file.write_text(f'{probe}<iframe id="f" width="{width}" height="900" srcdoc="{inner}"></iframe>', encoding="utf-8")
    title = re.search(r"<title>(\d+),(\d+),(\w+)</title>", _dom(file))
    assert title is not None
    return int(title[1]), int(title[2]), title[3] == "true"


def _dom(file: Path) -> str:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs a browser (Debian: chromium)")
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
             "--disable-background-networking",
             "--disable-component-update", "--disable-sync", f"--user-data-dir={profile}", "--dump-dom", str(file)],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
    return done.stdout
