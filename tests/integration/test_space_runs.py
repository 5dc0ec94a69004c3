"""What `export format=space` wrote, in a new environment, asked by gradio_client and in a browser."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("playwright")

import httpx
from helpers.servers import PATIENCE, answers, free_port
from playwright.sync_api import Page, expect, sync_playwright

from emotion_lightning import load
from emotion_lightning.models import backbone
from emotion_lightning.models.metadata import METADATA

TEXTS = ["We won!", "<img src=x onerror=alert(8)>", "Rain again, **and** [so tired](javascript:alert(9))."]
HOSTILE = ["<img src=x onerror=alert(1)>", 'joy"><script>alert(2)</script>', "**b** [a](javascript:alert(3))"]
ASK = """
import json, sys
from gradio_client import Client

client, texts = Client(sys.argv[1], verbose=False), json.loads(sys.argv[2])
one = client.predict(texts[0], api_name="/predict")
several = client.predict("\\n".join([texts[0], "  ", *texts[1:]]), api_name="/predict_lines")
refused = []
for bad, name in ((" ", "/predict"), ("x" * 10_001, "/predict"), ("a\\n" * 201, "/predict_lines")):
    try:
        client.predict(bad, api_name=name)
    except Exception as error:
        refused.append(str(error))
print(json.dumps([one, several, refused]))
"""


def rename_labels(folder: Path) -> None:
    """Give the first labels names that look like HTML and Markdown."""
    text = (folder / METADATA).read_text()
    for name, hostile in zip(json.loads(text)["labels"], HOSTILE, strict=False):
        text = text.replace(json.dumps(name), json.dumps(hostile))
    (folder / METADATA).write_text(text)


@pytest.mark.exhaustive
def test_a_space_runs_as_it_stands(run: Any, tmp_path: Path) -> None:
    assert run("export", f"run={backbone.BUNDLED_RUN}", "output=space", "format=space") == 0
    folder = tmp_path / "space"
    rename_labels(folder / "model")
    expected = load(folder, accelerator="cpu").predict(TEXTS)
    subprocess.run([sys.executable, "-m", "venv", "new"], check=True)
    python = str(tmp_path / "new" / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", folder / "requirements.txt"], check=True)
    port, hidden = free_port(), ("PYTHONPATH", "HF_", "GRADIO_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    environment |= {"GRADIO_SERVER_PORT": str(port), "HF_HUB_OFFLINE": "1"}
    base = f"http://127.0.0.1:{port}/"
    with (
        (tmp_path / "log").open("w+") as log,
        subprocess.Popen([python, "app.py"], cwd=folder, stdout=log, stderr=log, env=environment) as process,
    ):
        try:
            answers(process, lambda: httpx.get(base).raise_for_status(), unlike=httpx.HTTPError, seconds=PATIENCE)
            line = [python, "-c", ASK, base, json.dumps(TEXTS)]
            done = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
            check_answers(json.loads(done.stdout), expected)
            check_page(base)
        finally:
            process.terminate()
            print((tmp_path / "log").read_text())
    assert "Traceback" not in (tmp_path / "log").read_text()


def check_answers(found: Any, expected: Any) -> None:
    (labels, shares), several, refused = found
    given = {one["label"]: one["confidence"] for one in shares["confidences"]}
    assert given == pytest.approx(expected[0].probabilities, abs=1e-5)
    assert labels == (", ".join(f"{name} ({given[name]:.0%})" for name in expected[0].labels) or "no label")
    assert several["headers"] == ["text", "labels", *expected[0].probabilities]
    assert [row[0] for row in several["data"]] == TEXTS
    for row, one in zip(several["data"], expected, strict=True):
        assert row[1] == ", ".join(one.labels) and row[2:] == pytest.approx([*one.probabilities.values()], abs=6e-4)
    assert [sentence.partition(";")[0] for sentence in refused] == [
        "Type a text first.", "Text 1 has 10,001 characters", "These are 201 texts",
    ]  # fmt: skip


def check_page(base: str) -> None:
    """Look at the page in a browser (Debian: chromium), if there is one: nothing that is text runs or is drawn."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        return
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page, wrong = browser.new_page(), list[str]()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        own = (base, "data:", "blob:")
        page.on("request", lambda asked: None if asked.url.startswith(own) else wrong.append(asked.url))
        page.set_default_timeout(120_000)
        page.goto(base, wait_until="domcontentloaded")
        page.get_by_label("Text", exact=True).fill(TEXTS[1])
        page.get_by_role("button", name="Label", exact=True).click()
        for name in HOSTILE:
            expect(page.get_by_text(name, exact=True)).to_be_visible(timeout=120_000)
        page.get_by_role("tab", name="Several texts").click()
        page.get_by_label("Texts, each on a line").fill("\n".join(TEXTS))
        page.get_by_role("button", name="Label all").click()
        expect(page.get_by_text(TEXTS[2], exact=True).last).to_be_visible(timeout=120_000)
        assert drawn(page) == [0, 0, 0] and not wrong
        browser.close()


def drawn(page: Page) -> Any:
    """Pictures, links and bold letters that labels or texts would have become."""
    return page.evaluate(
        """() => [
            [...document.images].filter(one => one.getAttribute("src") === "x").length,
            [...document.links].filter(one => one.href.startsWith("javascript:")).length,
            [...document.querySelectorAll("strong")].length,
        ]"""
    )
