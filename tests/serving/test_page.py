"""The page of `serve` in a browser (Debian: chromium), with a stand-in that labels."""

import asyncio
import csv
import io
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("litserve")
pytest.importorskip("playwright")

from axe_playwright_python.sync_playwright import Axe
from helpers.stand_in_server import SETTINGS, facts, label, listening, served
from playwright.sync_api import Browser, Page, expect, sync_playwright
from starlette.exceptions import HTTPException

expect.set_options(timeout=60_000)  # a busy machine
HOSTILE = ["<img src=x onerror=alert(1)>", 'joy"><script>alert(2)</script>', "=HYPERLINK(1)", "‮evil", "sad,ness"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs a browser (Debian: chromium)")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    """A server with ordinary labels."""
    with listening(served()) as address:
        yield address


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A new page; an error in its script or against its policy fails the test, and so does a dialog."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    found, wrong = context.new_page(), list[str]()
    found.on("pageerror", lambda error: wrong.append(str(error)))
    found.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    found.on("console", lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None)
    yield found
    context.close()
    assert not wrong


def names(page: Page) -> list[str]:
    return page.locator(".bar .name").all_inner_texts()


def drop(page: Page, name: str, content: bytes) -> None:
    """Drop a file on the page."""
    transfer = page.evaluate_handle(
        """([name, bytes]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], name));
            return transfer;
        }""",
        [name, list(content)],
    )
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})


def test_a_text_is_typed_and_answered_by_the_keyboard(page: Page, base: str) -> None:
    page.goto(base)
    expect(page.locator("#model")).to_have_text("stand-in")
    page.keyboard.press("Tab")
    expect(page.locator("#text")).to_be_focused()
    page.keyboard.type("We won 👍 today")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#status")).to_have_text("Done: 1 text.")
    assert names(page) == ["sadness", "joy", "anger"]
    assert page.locator(".bar").first.text_content() == "sadness75 %, found, threshold 50 %"
    assert page.locator(".bar.found .name").all_inner_texts() == ["sadness"]
    box = page.locator(".track").first.bounding_box()
    fill, cut = page.locator(".fill").first.bounding_box(), page.locator(".cut").first.bounding_box()
    assert box and fill and cut
    assert fill["width"] == pytest.approx(0.75 * box["width"], abs=1)
    assert cut["x"] - box["x"] == pytest.approx(0.5 * box["width"], abs=2)
    expect(page.locator("#answers-title")).to_be_focused()
    # Nothing of the text is kept in the address before one asks for it.
    assert "#" not in page.url and page.locator("button.bar").count() == 0


def test_words_are_coloured_for_the_label_that_one_points_at(page: Page, base: str) -> None:
    page.goto(base)
    page.get_by_label("Show which words decided").check()
    page.get_by_label("Text", exact=True).fill("👍 We really\nwon")
    page.get_by_role("button", name="Label", exact=True).click()
    said = page.locator(".said")
    expect(said).to_have_text("👍 We really\nwon")
    assert said.locator("span").all_inner_texts() == ["👍", "We", "really", "won"]
    page.get_by_role("button", name=re.compile("joy.*50 %.*not found, threshold 50 %")).hover()
    assert [page.locator(".said span.against").count(), page.locator(".said span.for").count()] == [4, 0]
    expect(page.locator(".spoke")).to_have_text(
        "For joy: none. Against it: really (−0.60), won (−0.30), We (−0.20), 👍 (−0.10)."
    )
    page.get_by_role("button", name="anger").hover()
    assert page.locator(".said span.for").all_inner_texts() == ["👍", "We", "really", "won"]
    # Pointing at a bar moves none of them.
    tops = [bar.bounding_box() for bar in page.locator(".bar").all()]
    page.locator("button.bar").first.hover()
    assert [bar.bounding_box() for bar in page.locator(".bar").all()] == tops
    page.get_by_role("button", name="anger").press("Enter")
    page.locator("h1").hover()
    expect(page.get_by_role("button", name="anger")).to_have_attribute("aria-pressed", "true")
    colours = said.locator("span").evaluate_all("all => all.map(one => getComputedStyle(one).backgroundColor)")
    assert len(set(colours)) == 4  # by their strength


FILES = [
    ("a.csv", 'id,Tweet,x\r\n1,"We ""won"",\nat last",a\r\n2,Rain,b\r\n', ['We "won",\nat last', "Rain"]),
    ("a.csv", "n;comment\n1;We won, at last\n", ["We won, at last"]),
    ("a.tsv", "n\twhat they said\n1\tWe won\n22\t=1+1\n", ["We won", "=1+1"]),
    ("a.csv", "We won\nRain\n", ["We won", "Rain"]),
    ("a.txt", "We won, at last\n\nRain\n", ["We won, at last", "Rain"]),
    ("a.jsonl", '{"id": 1, "text": "We won"}\n{"text": "Rain"}\n', ["We won", "Rain"]),
    ("a.json", '["We won", "Rain"]', ["We won", "Rain"]),
]
BROKEN = [
    ("b.csv", "text\nétoile\n".encode("latin-1"), "it is not in UTF-8"),
    ("c.jsonl", b'{"text": "a"', "it is no JSON"),
    ("d.txt", b"\n\n", "no texts"),
    ("e.csv", b"", "no texts"),
    ("f.jsonl", b"3\nnull\n", "no texts"),
]


def test_texts_of_a_dropped_file_are_answered_or_it_is_named(page: Page, base: str) -> None:
    page.goto(base)
    asked: list[str] = []
    page.on("request", lambda request: asked.extend(json.loads(request.post_data or "{}").get("texts", [])))
    expect(page.locator("#model")).to_have_text("stand-in")
    for name, content, texts in FILES:
        asked.clear()
        page.evaluate("say('')")
        drop(page, name, content.encode())
        expect(page.locator("#status")).to_contain_text("Done")
        assert asked == texts
    for name, broken, reason in BROKEN:
        drop(page, name, broken)
        expect(page.get_by_role("alert")).to_contain_text(f"{name} cannot be read: {reason}")


def test_the_first_200_rows_are_answered_and_downloaded(page: Page, base: str) -> None:
    page.goto(base)
    expect(page.locator("#model")).to_have_text("stand-in")
    texts = [f'=cmd|\' {number}, "x"' for number in range(250)]
    drop(page, "a.txt", "\n".join(texts).encode())
    expect(page.locator("#status")).to_have_text("The first 200 texts of a.txt. Done: 200 texts.")
    assert page.locator("#results > details").count() == 200
    page.locator("#results summary").nth(7).click()
    expect(page.locator("#results .said")).to_have_text(texts[7])
    with page.expect_download() as waited:
        page.get_by_role("button", name="Download as CSV").click()
    content = Path(waited.value.path()).read_text(encoding="utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(content, newline="")))
    assert [row["text"] for row in rows] == ["'" + text for text in texts[:200]]
    assert rows[0].keys() == {"text", "anger", "joy", "sadness", "p_anger", "p_joy", "p_sadness"}
    assert rows[0]["sadness"] == "1" and rows[0]["joy"] == "0" and float(rows[0]["p_joy"]) == 0.5


def test_a_pasted_list_is_several_texts(page: Page, base: str) -> None:
    page.goto(base)
    page.locator("#text").focus()
    page.evaluate(
        """() => {
            const data = new DataTransfer();
            data.setData("text/plain", "We won\\nRain\\nAgain");
            document.activeElement.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data, bubbles: true}));
        }"""
    )
    page.locator("#text").fill("We won\nRain\nAgain")
    page.get_by_role("button", name="Label", exact=True).click()
    expect(page.locator("#answers-title")).to_have_text("Answers to 3 texts")


def test_a_link_holds_the_text_after_a_click_and_answers_where_it_is_opened(page: Page, base: str) -> None:
    page.goto(base)
    page.locator("#text").fill("100% & <b>joy</b> #1 👍")
    page.get_by_role("button", name="Label", exact=True).click()
    expect(page.locator("#status")).to_contain_text("Done")
    assert page.url == base
    page.get_by_role("button", name="Link to this text").click()
    expect(page.locator("#status")).to_contain_text("link")
    address = page.url
    assert address.startswith(f"{base}#text=")
    page.goto("about:blank")
    page.goto(address)
    expect(page.locator(".said")).to_have_text("100% & <b>joy</b> #1 👍")
    page.goto("about:blank")
    page.goto(f"{base}#text=%E0%A4%A")  # cut
    expect(page.locator("#text")).to_have_value("")


def test_hostile_texts_labels_and_cards_stay_text(page: Page) -> None:
    with listening(served(HOSTILE)) as address:
        page.goto(address)
        page.get_by_label("Show which words decided").check()
        page.locator("#text").fill("<img src=x onerror=alert(3)> ‮abc</p><script>alert(4)</script>")
        page.keyboard.press("Control+Enter")
        expect(page.locator("#status")).to_contain_text("Done")
        assert names(page) == list(reversed(HOSTILE))
        page.locator("button.bar").first.hover()
        page.locator("#about summary").click()
        expect(page.locator("#card")).to_contain_text("It is <b>no</b> model.")
        assert page.locator("img, #card b, main script").count() == 0
        with page.expect_download() as waited:
            page.get_by_role("button", name="Download as CSV").click()
        content = Path(waited.value.path()).read_text(encoding="utf-8-sig")
        header = next(csv.reader(io.StringIO(content)))
        assert header[1:6] == [HOSTILE[0], HOSTILE[1], "'=HYPERLINK(1)", HOSTILE[3], HOSTILE[4]]


def test_refusals_and_a_server_that_is_gone_are_told(page: Page) -> None:
    with listening(served()) as address:
        page.goto(address)
        expect(page.locator("#model")).to_have_text("stand-in")
        page.get_by_role("button", name="Label", exact=True).click()
        expect(page.get_by_role("alert")).to_have_text("There is no text yet.")
        page.locator("#text").fill("a" * 1001)
        page.keyboard.press("Control+Enter")
        expect(page.get_by_role("alert")).to_have_text("Text 1 has 1,001 characters; this server takes at most 1,000.")
    page.locator("#text").fill("a")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("alert")).to_have_text("The server does not answer. Is it still running?")
    expect(page.get_by_role("button", name="Label", exact=True)).to_be_enabled()


def test_answers_before_an_error_stay(page: Page) -> None:
    count = 0

    async def ask(asked: Mapping[str, Any], identifier: str) -> Mapping[str, Any]:
        nonlocal count
        count += 1
        if count > 2:
            raise HTTPException(503, "Too much.")
        return {"predictions": label(asked["texts"], facts(["joy"])["labels"], None, False), "batch": None}

    with listening(served(["joy"], ask=ask)) as address:
        page.goto(address)
        expect(page.locator("#model")).to_have_text("stand-in")
        drop(page, "a.txt", b"\n".join(b"text" for _ in range(40)))
        expect(page.get_by_role("alert")).to_have_text("After text 32: Too much.")
        assert page.locator("#results > details").count() == 32


def test_a_token_is_asked_for_where_one_is_needed(page: Page) -> None:
    with listening(served(token="secret")) as address:
        page.goto(address)
        expect(page.get_by_role("alert")).to_contain_text("needs a token")
        page.get_by_label("Token of this server").fill("wrong")
        page.locator("#text").fill("We won")
        page.keyboard.press("Control+Enter")
        expect(page.locator("#ask")).to_be_enabled()
        expect(page.get_by_role("alert")).to_contain_text("needs a token")
        page.get_by_label("Token of this server").fill("secret")
        page.locator("#text").press("Control+Enter")
        expect(page.locator("#status")).to_have_text("Done: 1 text.")
        assert "secret" not in page.url and page.evaluate("localStorage.length + sessionStorage.length") == 0


def test_a_later_question_is_not_answered_by_an_earlier_one(page: Page) -> None:
    async def ask(asked: Mapping[str, Any], identifier: str) -> Mapping[str, Any]:
        await asyncio.sleep(0.5 if asked["texts"] == ["slow"] else 0)
        return {"predictions": label(asked["texts"], ["joy"], None, False), "batch": None}

    with listening(served(["joy"], ask=ask)) as address:
        page.goto(address)
        expect(page.locator("#model")).to_have_text("stand-in")
        page.locator("#text").fill("slow")
        page.keyboard.press("Control+Enter")
        page.locator("#text").fill("fast")
        page.keyboard.press("Control+Enter")
        expect(page.locator(".said")).to_have_text("fast")
        page.wait_for_timeout(700)
        expect(page.locator(".said")).to_have_text("fast")


@pytest.mark.parametrize(
    ("scheme", "width"),
    [
        ("light", 1280),
        ("dark", 390),
        pytest.param("light", 390, marks=pytest.mark.exhaustive),
        pytest.param("dark", 1280, marks=pytest.mark.exhaustive),
    ],
)
def test_it_is_accessible_and_fits(browser: Browser, scheme: Any, width: int) -> None:
    with listening(served(["anger", "a label whose name is as long as labels can become " * 2, "joy"])) as address:
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page = context.new_page()
        page.goto(address)
        page.get_by_label("Show which words decided").check()
        page.locator("#text").fill("W" * 200 + " We won\nat last")
        page.keyboard.press("Control+Enter")
        expect(page.locator("#status")).to_contain_text("Done")
        page.locator("#about summary").click()
        page.get_by_role("button", name="anger").focus()
        found = Axe().run(page)
        assert not found.response["violations"], found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        drop(page, "a.txt", b"We won\nRain")
        expect(page.locator("#answers-title")).to_have_text("Answers to 2 texts")
        page.locator("#results summary").first.click()
        found = Axe().run(page)
        assert not found.response["violations"], found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        context.close()


@pytest.mark.slow
def test_the_description_of_the_interface_is_shown_without_other_servers(page: Page, base: str) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(base)
    page.get_by_role("link", name="how to ask this server").click()
    expect(page.locator(".opblock-summary-path").first).to_contain_text("predict")
    assert all(url.startswith((base, "data:")) for url in asked) and SETTINGS["host"] in base
