# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""`keytok search` and `keytok explore`, as they are called."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from haystack import Document
from nodes.stores import engine_of

from haystack_integrations.components.embedders.keytok import KeyTokenSparseEmbedder
from keytok_haystack import fit
from keytok_haystack.encoders import embed

TEXTS = {
    "a": "a shock wave in front of a blunt body",
    "b": "noise of a jet and its sound field",
    "c": "heat transfer to a flat plate",
    "d": "the buckling of thin shells under pressure",
}


@pytest.fixture(scope="module")
def model(cranfield_model_folder) -> Path:
    return cranfield_model_folder


@pytest.fixture
def own(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    lines = [f"{key},{text}" for key, text in TEXTS.items()]
    Path("own.csv").write_text("\n".join(["key,body", *lines]), encoding="utf-8")
    return tmp_path


OWN = ("--text-field", "body", "--id-field", "key")


def test_search_says_why_each_hit_is_one(keytok, own, model):
    code, out, _ = keytok("search", "own.csv", "shock waves", "--model", model, *OWN, "--top", 2)
    assert code == 0
    lines = [line for line in out.splitlines() if line]
    assert lines[0].startswith("confidence ")
    assert lines[1].startswith("1. a  ")
    assert " key tokens + " in lines[1]
    assert " BM25 + " in lines[1]
    assert lines[2] == TEXTS["a"]
    assert lines[3].startswith("found for ")
    assert "(your words)" in lines[3]


def test_search_writes_data_and_a_page(keytok, own, model):
    arguments = ("search", "own.csv", "acoustics", "--model", model, *OWN, "--html", "pages/hits.html", "--json")
    code, out, err = keytok(*arguments)
    assert (code, err) == (0, "pages/hits.html written.\n")
    found = json.loads(out)
    assert found["systems"]["hybrid"]["hits"][0]["id"] == "b"
    assert "its meaning" in found["documents"]["b"]["sentence"]
    page = Path("pages/hits.html").read_text(encoding="utf-8")
    assert f'"{TEXTS["b"]}"' in page or all(f'"{piece}"' in page for piece, _ in found["documents"]["b"]["text"])
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert "https://" not in page


def test_search_says_why_nothing_is_found(keytok, own, model):
    code, out, _ = keytok("search", "own.csv", "the", "--model", model, *OWN)
    assert code == 0
    assert "no words but stop words" in " ".join(out.split())


@pytest.mark.parametrize("kind", ["opensearch-knn", "elasticsearch-9"])
def test_search_asks_an_index(keytok, kind, make_store, own, cranfield_model, model, embedder):
    store = make_store(kind, dimension=384, model=cranfield_model)
    embeddings = embed(list(TEXTS.values()), embedder, progress_bar=False).embeddings.tolist()
    documents = [
        Document(id=key, content=text, embedding=embedding)
        for (key, text), embedding in zip(TEXTS.items(), embeddings, strict=True)
    ]
    store.write_documents(KeyTokenSparseEmbedder(model).run(documents)["documents"])
    server = ("--engine", engine_of(kind), "--url", make_store.url(kind))
    code, out, err = keytok("search", store._index, "shock waves", "--model", model, *server, "--json")
    assert code == 0, err
    indexed = json.loads(out)
    code, out, _ = keytok("search", "own.csv", "shock waves", "--model", model, *OWN, "--json")
    in_memory = json.loads(out)
    for name in ("hybrid", "key_tokens", "dense"):
        scores = [{hit["id"]: hit["score"] for hit in each["systems"][name]["hits"]} for each in (indexed, in_memory)]
        assert scores[0] == pytest.approx(scores[1], rel=1e-3), name
    assert indexed["documents"]["a"]["sentence"] == in_memory["documents"]["a"]["sentence"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("own.csv", "q"), "no column 'text'"),
        (("none.csv", "q", *OWN), "none.csv"),
        (("own.csv", "q", *OWN, "--url", "http://localhost:1"), "--url needs an --engine"),
        (("index", "q", "--engine", "opensearch", "--url", "http://localhost:1"), "localhost:1"),
        (("index", "q", "--engine", "opensearch", *OWN), "leave them out with --engine"),
        (("own.csv", "q", *OWN, "--top", "0"), "--top"),
        (("own.csv", "q", *OWN, "--html", "."), "'.' is a folder, not a file"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_one_sentence(keytok, own, model, arguments, reason):
    code, out, err = keytok("search", *arguments, "--model", model)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert reason in err


def test_a_model_without_an_embedder_asks_for_one(keytok, own, small_embeddings, small_texts):
    fit(small_embeddings, small_texts).save("nameless")
    code, _, err = keytok("search", "own.csv", "q", "--model", "nameless", *OWN)
    assert (code, "give --embedder" in err) == (2, True)


def test_explore_serves_the_page_until_it_is_interrupted(own, model):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).parent / "keytok", "explore", "own.csv", "--model", str(model), *OWN]
    process = subprocess.Popen([*command, "--port", str(port), "--no-browser"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(f"http://127.0.0.1:{port}/")
        for _ in range(100):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
                    assert "own.csv" in answer.read().decode()
                break
            except OSError:
                time.sleep(0.1)
        else:
            pytest.fail("the page is not served")
    finally:
        process.terminate()
        process.wait(20)


def test_a_port_in_use_is_named_before_anything_is_embedded(keytok, own, model):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, err = keytok("explore", "own.csv", "--model", model, *OWN, "--port", port)
    assert (code, out) == (2, "")
    assert f"127.0.0.1 cannot listen on port {port}" in err
    assert "choose another by --port" in err
