# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Indices whose documents are kept without key tokens: what still works, and what is lost."""

from typing import Any

import pytest
from haystack import Document
from helpers.live_index import filled
from helpers.retrieval import assert_matched, own_bm25_retriever, own_meta, pairs, search
from nodes.stores import RawIndex, connection_to, engine_of

from haystack_integrations.components.embedders.keytok import KeyTokenSparseEmbedder
from haystack_integrations.components.retrievers.keytok import KeyTokenExplainer, SparseRetriever
from keytok_haystack.engines import MappingError
from keytok_haystack.live_index import create_index, drop
from keytok_haystack.live_index.fields import Fields

KINDS = ("opensearch-knn", "elasticsearch-9", "elasticsearch-8")
TOKENS = {"wing": 0.5, "lift": 1.0, "3%2E5": 0.26}


@pytest.fixture
def lean(make_store, small_model):
    def store(kind: str) -> Any:
        return make_store(
            kind,
            definition=make_store.definition(kind, dimension=8, model=small_model, field="key_tokens", lean=True),
        )

    return store


def document() -> Document:
    return Document(id="a", content="a wing", embedding=[1.0] + [0.0] * 7, meta={"key_tokens": TOKENS, "n": 1})


@pytest.mark.parametrize("kind", KINDS)
def test_hits_are_found_and_explained_although_documents_show_no_key_tokens(kind, lean, small_model_folder, caplog):
    store = lean(kind)
    store.write_documents([document(), Document(id="b", content="a wing")])
    query = {"wing": 0.7, "3%2E5": 0.3, "drag": 1.0}
    retriever = SparseRetriever(store, model=small_model_folder)
    (hit,) = retriever.run(key_tokens=query)["documents"]
    assert (hit.id, own_meta(hit)) == ("a", {"n": 1})
    assert_matched(hit, query, TOKENS)
    (explained,) = KeyTokenExplainer(top_k=1).run(documents=[hit], key_tokens=query)["documents"]
    assert [match["token"] for match in explained.meta["matched_tokens"]] == ["wing"]
    assert not any("key_tokens" in each.meta for each in store.filter_documents())
    assert "_source" not in caplog.text  # it was asked for


@pytest.mark.parametrize("kind", KINDS)
def test_hits_of_other_retrievers_are_not_explained(kind, lean):
    store = lean(kind)
    store.write_documents([document()])
    hits = own_bm25_retriever(store).run(query="wing")["documents"]
    (explained,) = KeyTokenExplainer().run(documents=hits, key_tokens=TOKENS)["documents"]
    assert explained.meta["matched_tokens"] == []


@pytest.mark.parametrize("kind", KINDS)
def test_key_tokens_come_back_only_where_the_engine_has_them(kind, lean):
    store = lean(kind)
    store.write_documents([document()])
    retriever = SparseRetriever(store, return_key_tokens=True)
    if kind == "elasticsearch-9":
        (hit,) = retriever.run(key_tokens={"wing": 1.0})["documents"]
        assert hit.meta["key_tokens"] == pytest.approx(TOKENS, rel=1e-2)
    else:
        with pytest.raises(MappingError, match=r"_source.*return_key_tokens.*False"):
            retriever.warm_up()


@pytest.mark.parametrize("kind", KINDS)
def test_a_partial_update_loses_key_tokens_but_on_elasticsearch_9(kind, lean, make_store):
    store = lean(kind)
    store.write_documents([document()])
    with connection_to(engine_of(kind), make_store.url(kind), store._index) as connection:
        connection.client.update(index=store._index, id="a", body={"doc": {"n": 2}}, refresh=True)
    found = [key for key, _ in search(SparseRetriever(store), {"wing": 1.0})]
    assert found == (["a"] if kind == "elasticsearch-9" else [])
    assert store.filter_documents()[0].meta["n"] == 2


def test_backfill_restores_what_a_reindex_has_lost(lean, make_store, sources, small_model, small_model_folder):
    first, second = lean("opensearch-knn"), lean("opensearch-knn")
    raw = RawIndex("opensearch-knn", make_store.url("opensearch-knn"), first._index)
    raw.write(sources)
    assert filled(first, small_model).written == len(sources)
    embedder = KeyTokenSparseEmbedder(small_model_folder)
    query = embedder.run(embedding=[1.0] + [0.1] * 7)["key_tokens"]
    retrievers = [SparseRetriever(store, model=small_model_folder, top_k=100) for store in (first, second)]
    expected = search(retrievers[0], query)
    assert expected

    with connection_to("opensearch", make_store.url("opensearch-knn"), first._index) as connection:
        body = {"source": {"index": first._index}, "dest": {"index": second._index}}
        connection.client.reindex(body=body, refresh=True)
    assert second.count_documents() == len(sources)
    assert search(retrievers[1], query) == []
    for resume in (False, True):  # which shows nothing either
        assert filled(second, small_model, resume=resume).written == len(sources)
        assert dict(search(retrievers[1], query)) == pytest.approx(dict(expected), rel=1e-6)


def test_an_index_is_not_rewritten_if_another_field_would_be_lost(lean, small_model):
    store = lean("opensearch-knn")
    store.write_documents([document()])
    expected = pairs(SparseRetriever(store).run(key_tokens=TOKENS)["documents"])
    with pytest.raises(MappingError, match="keeps documents without 'key_tokens'"):
        drop(store, "key_tokens", progress_bar=False)
    assert create_index(store, small_model, field="second", lean=True).change == "extended"
    with pytest.raises(MappingError, match="does not keep whole documents"):
        filled(store, small_model, Fields(key_tokens="second"))
    assert pairs(SparseRetriever(store).run(key_tokens=TOKENS)["documents"]) == expected
