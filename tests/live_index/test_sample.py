# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Samples of an index, and models that are fitted to them."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers.live_index import two_engines
from nodes.stores import engine_of

from keytok_haystack import KeyTokenModel
from keytok_haystack.live_index import sample

PAGE = 25


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    """Few documents are many pages."""
    monkeypatch.setattr("keytok_haystack.live_index.scan.PAGE", PAGE)


def fitted(keytok: Callable[..., Any], *arguments: object) -> dict[str, Any]:
    code, out, err = keytok("fit", *arguments, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


@two_engines
def test_a_model_is_fitted_to_an_index_as_to_files(
    kind, keytok, new_index, make_store, sources, small_texts, small_embeddings, tmp_path
):
    others = {
        "no text": json.dumps({"embedding": small_embeddings[0].tolist()}),
        "empty text": json.dumps({"embedding": small_embeddings[0].tolist(), "content": ""}),
        "no embedding": '{"content": "shock wave"}',
        "null": '{"content": "shock wave", "embedding": null}',
    }
    _, raw = new_index(kind, {**sources, **others})
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in small_texts))
    np.save(tmp_path / "embeddings.npy", small_embeddings)
    files = (tmp_path / "texts.jsonl", "--embeddings", tmp_path / "embeddings.npy")
    of_files = fitted(keytok, *files, "--output", tmp_path / "files")
    server = ("--engine", engine_of(kind), "--url", make_store.url(kind), "--index", raw.name)
    of_index = fitted(keytok, *server, "--output", tmp_path / "index")
    assert of_index["texts"] == of_files["texts"] == 60
    expected, found = KeyTokenModel.load(tmp_path / "files"), KeyTokenModel.load(tmp_path / "index")
    for top in (None, 3):
        np.testing.assert_allclose(
            found.encode_documents(small_embeddings, small_texts, top_k=top).rows.toarray(),
            expected.encode_documents(small_embeddings, small_texts, top_k=top).rows.toarray(),
            rtol=1e-2,
            atol=1e-3,
        )


@two_engines
def test_a_sample_is_of_distinct_documents_and_repeatable(kind, new_index, sources):
    documents = {key: json.dumps({**json.loads(source), "content": f"text {key}"}) for key, source in sources.items()}
    store, _ = new_index(kind, documents, settings={"index.number_of_shards": 2})
    texts, embeddings = sample(store, 40, progress_bar=False)
    assert len(set(texts)) == 40
    expected = {document["content"]: document["embedding"] for document in map(json.loads, documents.values())}
    np.testing.assert_allclose(embeddings, [expected[text] for text in texts], rtol=1e-6)
    again = sample(store, 40, progress_bar=False)
    assert again[0] == texts
    assert np.array_equal(again[1], embeddings)
    assert texts != sorted(texts, key=lambda text: int(text.split()[1]))  # drawn, and not the first ones
    assert {*sample(store, 1000, progress_bar=False)[0]} == expected.keys()


@two_engines
def test_a_sample_is_as_large_as_was_asked_for_where_there_are_so_many(kind, new_index, sources):
    others = {f"none {i}": '{"content": "text without an embedding"}' for i in range(60)}
    store, _ = new_index(kind, {**sources, **others})
    texts, _ = sample(store, 40, progress_bar=False)
    assert len(texts) == 40


@two_engines
def test_an_index_without_any_text_or_embedding_cannot_be_fitted_to(kind, new_index):
    store, _ = new_index(kind, {"a": '{"content": "shock"}', "b": '{"embedding": [1, 2, 3, 4, 5, 6, 7, 8]}'})
    with pytest.raises(ValueError, match="'embedding' and 'content'"):
        sample(store, 10, progress_bar=False)
