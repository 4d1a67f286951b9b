# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The page in a real browser: Chromium clicks, types, reads, and compares what is shown with the server's answers."""

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
import uvicorn
from fastapi.testclient import TestClient
from helpers.browser import chromium
from playwright.sync_api import Browser, Page, expect, sync_playwright

from keytok_haystack.explore import Workbench, page
from keytok_haystack.explore.server import create_app

QUESTION = "papers on shock-sound wave interaction ."
WIDE, NARROW = {"width": 1280, "height": 1000}, {"width": 400, "height": 800}


@pytest.fixture(scope="module")
def address(bench: Workbench) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(create_app(bench), port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def tab(browser: Browser) -> Iterator[Page]:
    """A wide page, on which nothing may fail, and which asks nobody but its server."""
    tab = browser.new_page(viewport=WIDE)
    tab.set_default_timeout(60_000)
    faults: list[str] = []
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    tab.on(
        "request",
        lambda asked: (
            None
            if "127.0.0.1" in asked.url or asked.url.startswith(("data:", "file:"))
            else faults.append(f"asks {asked.url}")
        ),
    )
    yield tab
    tab.close()
    assert [fault for fault in faults if "422" not in fault] == []


def ask(tab: Page, address: str, question: str = QUESTION) -> None:
    tab.goto(address)
    tab.get_by_label("Question", exact=True).fill(question)
    tab.get_by_label("Question", exact=True).press("Enter")
    expect(tab.locator("#status")).to_contain_text("documents in all rankings")


def chip(tab: Page, token: str):
    return tab.locator(f'#tokens li[data-token="{token}"]')


def test_a_question_shows_four_rankings_with_lines_between_the_same_documents(tab, address, bench):
    ask(tab, address)
    found = bench.search(QUESTION)
    expect(tab.locator("#status")).to_contain_text(f"confidence {found['confidence']:.2f}")
    for name, system in found["systems"].items():
        shown = tab.locator(f'[data-system="{name}"] .hit')
        assert [each.get_attribute("data-id") for each in shown.all()] == [hit["id"] for hit in system["hits"]]
    pairs = list(found["systems"].values())
    expected = sum(
        len({hit["id"] for hit in left["hits"]} & {hit["id"] for hit in right["hits"]})
        for left, right in pairwise(pairs)
    )
    assert tab.locator("#links path").count() == expected


def test_a_hit_is_explained_by_bars_that_sum_to_its_score(tab, address, bench):
    ask(tab, address)
    hit = tab.locator('[data-system="key_tokens"] .hit').nth(1)
    hit.click()
    key = hit.get_attribute("data-id")
    explained = bench.search(QUESTION)["documents"][key]
    expect(tab.locator("#document-heading")).to_have_text(key)
    expect(tab.locator(".sentence")).to_contain_text(explained["sentence"][1:])
    rows = tab.locator(".contributions tbody tr")
    assert [row.get_attribute("data-token") for row in rows.all()] == [each["token"] for each in explained["shared"]]
    adds = [float(row.locator(".number").inner_text()) for row in rows.all()]
    assert sum(adds) == pytest.approx(float(tab.locator("#sum").inner_text()), abs=0.005 * (len(adds) + 1))
    widths = [row.locator(".bar span").bounding_box()["width"] for row in rows.all()]
    assert widths == sorted(widths, reverse=True)
    for row, each in zip(rows.all(), explained["shared"], strict=True):
        assert ("literal" in row.locator(".bar").get_attribute("class")) == each["is_literal"]
    marked = tab.locator("#document mark").all_inner_texts()
    assert marked == [piece for piece, token in explained["text"] if token is not None]
    expect(tab.locator("#document")).to_contain_text("of the similarity of the dense vectors")
    for heading in ("Only in the question", "Only in the document"):
        expect(tab.get_by_role("heading", name=heading)).to_be_visible()
    assert tab.locator(f'.hit.chosen[data-id="{key}"]').count() == tab.locator(f'.hit[data-id="{key}"]').count()


def test_tokens_are_muted_and_boosted_and_the_ranking_changes(tab, address):
    ask(tab, address)
    first = tab.locator('[data-system="key_tokens"] .hit').first
    before = first.inner_text()
    chip(tab, "sound").get_by_role("button", name="Mute sound").click()
    expect(tab.locator("#tokens .muted")).to_contain_text("sound")
    expect(first).not_to_have_text(before)
    tab.get_by_role("button", name="Count sound again").click()
    expect(tab.locator("#tokens .muted")).to_have_count(0)
    expect(chip(tab, "sound")).to_contain_text("1.00")
    chip(tab, "noise").get_by_role("button", name="Boost noise").click()
    expect(chip(tab, "noise").get_by_role("button", name="Boost noise")).to_have_attribute("aria-pressed", "true")
    tab.get_by_role("button", name="Ask for vorticity, too").click()
    expect(chip(tab, "vorticity")).to_be_visible()


def test_why_not_this_one(tab, address, bench):
    ask(tab, address)
    kind, which = tab.get_by_label("What to look for"), tab.get_by_label("Id or text")
    for asked, arguments in (("100", {"document_id": "100"}), ("acoustics", {"text": "acoustics"})):
        kind.select_option(next(iter(arguments)))
        which.fill(asked)
        tab.get_by_role("button", name="Say why").click()
        why = bench.why(QUESTION, **arguments)
        expect(tab.locator("#reason")).to_contain_text(why["reason"])
        expect(tab.locator("#document-heading")).to_have_text(why["document"]["id"])
        for system, rank in why["ranks"].items():
            expect(tab.locator("#ranks")).to_contain_text(f"{system}: {f'number {rank}' if rank else 'no rank'}")
    kind.select_option("document_id")
    which.fill("no-such")
    which.press("Enter")
    expect(tab.locator("#reason")).to_contain_text("no document with the id 'no-such'")


def test_an_answer_about_a_document_goes_with_its_question(tab, address):
    ask(tab, address)
    tab.get_by_label("Id or text").fill("100")
    tab.get_by_role("button", name="Say why").click()
    expect(tab.locator("#reason")).to_contain_text("100: ")
    chip(tab, "sound").get_by_role("button", name="Mute sound").click()
    expect(tab.locator("#tokens .muted")).to_contain_text("sound")
    expect(tab.locator("#reason")).to_contain_text("100: ")  # the document is in the link, so it is asked for anew
    tab.route("**/api/why", lambda route: (time.sleep(1), route.continue_()))
    tab.get_by_label("Id or text").fill("200")
    tab.get_by_role("button", name="Say why").click()
    tab.get_by_label("Question", exact=True).fill("heat transfer")
    tab.get_by_label("Question", exact=True).press("Enter")
    expect(chip(tab, "heat")).to_be_visible()
    first = tab.locator('[data-system="hybrid"] .hit').first.get_attribute("data-id")
    tab.wait_for_timeout(2000)
    expect(tab.locator("#document-heading")).to_have_text(first)
    expect(tab.locator("#reason")).to_be_empty()


@pytest.mark.parametrize("link", ["doc=toString", "system=nope", "doc=no-such&system=toString", "token:sound=1e999"])
def test_a_link_that_makes_no_sense_shows_the_hits(tab, address, link):
    tab.set_viewport_size(NARROW)
    tab.goto(f"{address}#q=shock+waves&{link}")
    expect(tab.locator('[data-system="hybrid"] .hit').first).to_be_visible()
    expect(tab.locator(".sentence")).to_be_visible()


def test_a_filter_narrows_all_rankings_and_why_not_says_so(tab, address, bench):
    tab.goto(address)
    tab.get_by_label("Field").select_option("year")
    tab.get_by_label("Comparison").select_option(">=")
    tab.get_by_label("Value").fill("1965")
    tab.get_by_label("Question", exact=True).fill(QUESTION)
    tab.get_by_role("button", name="Search").click()
    expect(tab.locator("#status")).to_contain_text("documents in all rankings")
    filters = {"field": "meta.year", "operator": ">=", "value": 1965}
    for name, system in bench.search(QUESTION, filters=filters)["systems"].items():
        shown = tab.locator(f'[data-system="{name}"] .hit')
        assert [each.get_attribute("data-id") for each in shown.all()] == [hit["id"] for hit in system["hits"]] != []
    unfiltered = bench.search(QUESTION)["systems"]["key_tokens"]["hits"]
    left_out = next(hit["id"] for hit in unfiltered if int(hit["id"]) % 20 < 15)
    tab.get_by_label("Id or text").fill(left_out)
    tab.get_by_role("button", name="Say why").click()
    expect(tab.locator("#reason")).to_contain_text("The filters leave it out.")
    link = tab.url
    tab.goto("about:blank")
    tab.goto(link)
    expect(tab.get_by_label("Value")).to_have_value("1965")
    expect(tab.get_by_label("Field")).to_have_value("year")
    tab.get_by_label("Comparison").select_option("in")
    tab.get_by_label("Value").fill("1951, 1952")
    tab.get_by_role("button", name="Search").click()
    among = bench.search(QUESTION, filters={"field": "meta.year", "operator": "in", "value": [1951, 1952]})
    hits = [hit["id"] for hit in among["systems"]["hybrid"]["hits"]]
    shown = tab.locator('[data-system="hybrid"] .hit')
    expect(shown.first).to_have_attribute("data-id", hits[0])
    assert [each.get_attribute("data-id") for each in shown.all()] == hits


def test_a_link_keeps_the_state(tab, address):
    ask(tab, address)
    tab.locator('[data-system="dense"] .hit').nth(2).click()
    chosen = tab.locator("#document-heading").inner_text()
    chip(tab, "sound").get_by_role("button", name="Mute sound").click()
    expect(tab.locator("#tokens .muted")).to_contain_text("sound")
    link = tab.url
    tab.goto("about:blank")
    tab.goto(link)
    expect(tab.locator("#tokens .muted")).to_contain_text("sound")
    expect(tab.get_by_label("Question", exact=True)).to_have_value(QUESTION)
    expect(tab.locator("#document-heading")).to_have_text(chosen)


def test_everything_can_be_reached_by_the_keyboard_and_has_a_name(tab, address):
    ask(tab, address)
    unnamed = tab.evaluate(
        """() => [...document.querySelectorAll("button, input, select")].filter((each) => each.offsetParent
            && !(each.getAttribute("aria-label") || each.innerText?.trim() || each.labels?.length)).length"""
    )
    assert unnamed == 0
    tab.get_by_label("Question", exact=True).focus()
    reached = set()
    for _ in range(400):
        tab.keyboard.press("Tab")
        reached.add(tab.evaluate("document.activeElement.getAttribute('aria-label') ?? document.activeElement.id"))
        if tab.evaluate("document.activeElement.classList.contains('hit')"):
            break
    assert "Mute sound" in reached
    tab.keyboard.press("Tab")
    key = tab.evaluate("document.activeElement.dataset.id")
    tab.keyboard.press("Enter")
    expect(tab.locator("#document-heading")).to_have_text(key)
    assert tab.evaluate("document.activeElement.id") == "document"  # a screen reader goes on there
    assert tab.locator("[role=status][aria-live=polite]").count() == 2
    levels = [int(each.evaluate("each => each.tagName[1]")) for each in tab.locator("h1, h2, h3").all()]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_a_phone_shows_one_ranking_and_nothing_is_wider(tab, address):
    tab.set_viewport_size(NARROW)
    ask(tab, address)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 400
    expect(tab.locator('[data-system="hybrid"]')).to_be_visible()
    expect(tab.locator('[data-system="bm25"]')).to_be_hidden()
    tab.get_by_label("Ranking by").select_option("bm25")
    expect(tab.locator('[data-system="bm25"]')).to_be_visible()
    expect(tab.locator('[data-system="hybrid"]')).to_be_hidden()
    assert tab.evaluate("document.documentElement.scrollWidth") <= 400


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colors_can_be_read(tab, address, scheme):
    tab.emulate_media(color_scheme=scheme)
    ask(tab, address)
    for selector in ("body", ".key.literal", ".key.aligned", "#status", ".hit .head span", ".hit.chosen .snippet"):
        colors = tab.locator(selector).first.evaluate(
            """(each) => { let ground = each;
                while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
                return [getComputedStyle(each).color, getComputedStyle(ground).backgroundColor]; }"""
        )
        assert contrast(*colors) >= 4.5, (selector, colors)  # WCAG AA


def contrast(first: str, second: str) -> float:
    """Return the contrast of two colors by WCAG 2."""

    def luminance(color: str) -> float:
        channels = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    lighter, darker = sorted((luminance(first), luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_texts_and_names_are_never_markup(browser, tmp_path, bench):
    evil = '</script><script>document.title = "taken"</script><img src=x onerror="document.title=1">'
    found = bench.search(QUESTION)
    found["question"] = evil
    key = found["systems"]["hybrid"]["hits"][0]["id"]
    found["documents"][key]["text"] = [[evil, None], [evil, "sound"]]
    file = tmp_path / "hits.html"
    file.write_text(page(evil, json.loads(json.dumps(found))), encoding="utf-8")
    tab = browser.new_page()
    tab.goto(file.as_uri())
    expect(tab.locator("#question-shown")).to_have_text(evil)
    expect(tab.locator("#document mark").first).to_have_text(evil)
    assert tab.title() == evil
    assert tab.locator("img").count() == 0
    tab.close()


def test_a_written_page_shows_the_hits_and_nothing_that_needs_a_server(tab, tmp_path, bench):
    file = tmp_path / "hits.html"
    file.write_text(page("Cranfield", bench.search(QUESTION)), encoding="utf-8")
    tab.goto(file.as_uri())
    expect(tab.locator('[data-system="hybrid"] .hit')).to_have_count(10)
    expect(tab.locator(".sentence")).to_contain_text("(your words)")
    for hidden in ("#ask", "#why-not"):
        expect(tab.locator(hidden)).to_be_hidden()
    assert tab.locator("#tokens button").count() == 0


def test_the_server_refuses_in_one_sentence_and_serves_only_its_own_names(bench):
    client = TestClient(create_app(bench), base_url="http://127.0.0.1")
    assert client.get("/").status_code == 200
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400
    answer = client.post("/api/why", json={"question": QUESTION, "document_id": "none"})
    assert (answer.status_code, answer.json()["detail"]) == (422, "There is no document with the id 'none'.")
    answer = client.post("/api/search", json={"question": QUESTION, "filters": {"operator": "AND"}})
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)
    assert client.post("/api/search", json={"question": "x" * 20_000}).status_code == 422
    assert client.post("/api/search", json={"question": QUESTION, "edits": {"sound": -1}}).status_code == 422
