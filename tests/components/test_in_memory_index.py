# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The index of an in-memory store: shared by its retrievers, and in step with it whatever is written."""

import gc
import logging
from threading import Event, Thread
from weakref import ref

import pytest
from haystack import Document
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.document_stores.types import DuplicatePolicy

from haystack_integrations.components.retrievers.keytok import SparseRetriever
from haystack_integrations.components.retrievers.keytok.adapters.in_memory_index import index_of

SHOCK = {"key_tokens": {"shock": 1.0}}


def ids(retriever: SparseRetriever, **query) -> list[str]:
    return [hit.id for hit in retriever.run(**{"key_tokens": {"shock": 1.0}, **query})["documents"]]


@pytest.fixture
def store() -> InMemoryDocumentStore:
    store = InMemoryDocumentStore()
    store.write_documents([Document(id=key, content="shock", meta=dict(SHOCK)) for key in "abc"])
    return store


def test_retrievers_over_one_store_share_an_index_until_all_are_closed(store):
    same = InMemoryDocumentStore(index=store.index)
    first, second = SparseRetriever(store), SparseRetriever(same)
    assert ids(first) == ids(second) == ["a", "b", "c"]
    index = ref(index_of(store, "key_tokens", with_bm25=False))
    first.close()
    gc.collect()
    assert index() is index_of(same, "key_tokens", with_bm25=False)
    store.delete_documents(["b"])
    assert ids(second) == ids(first) == ["a", "c"]
    first.close()
    second.close()
    gc.collect()
    assert index() is None
    assert ids(second) == ["a", "c"]


def test_indices_of_other_fields_and_with_bm25_are_others(store):
    store.write_documents([Document(id="d", content="wave", meta={"other": {"shock": 1.0}})])
    assert ids(SparseRetriever(store, field="other")) == ["d"]
    assert ids(SparseRetriever(store)) == ["a", "b", "c"]
    by_words = SparseRetriever(store, bm25_weight=1.0)
    assert ids(by_words, key_tokens={}, query="wave") == ["d"]


@pytest.mark.parametrize("bad", ["shock", {"shock": "strong"}, {"shock": -1.0}, ["shock"], 1])
def test_a_document_that_is_overwritten_badly_stops_no_search(store, bad, caplog):
    retriever = SparseRetriever(store)
    assert ids(retriever) == ["a", "b", "c"]
    store.write_documents([Document(id="b", content="shock", meta={"key_tokens": bad})], DuplicatePolicy.OVERWRITE)
    store.write_documents([Document(id="d", content="shock", meta=dict(SHOCK))])
    with caplog.at_level(logging.WARNING):
        assert [ids(retriever), ids(retriever)] == [["a", "c", "d"]] * 2
    assert caplog.text.count("A document is not found by its key tokens") == 1
    store.write_documents([Document(id="b", content="shock", meta=dict(SHOCK))], DuplicatePolicy.OVERWRITE)
    assert ids(retriever) == ["a", "b", "c", "d"]


def test_searches_go_on_while_others_write_and_delete(store):
    retriever = SparseRetriever(store, dense_weight=1.0)
    document = Document(id="a", content="shock", embedding=[1.0, 0.0], meta=dict(SHOCK))
    over = Event()

    def write() -> None:
        while not over.is_set():
            store.write_documents([document], DuplicatePolicy.OVERWRITE)
            store.delete_documents(["b"])
            store.write_documents([Document(id="b", content="shock", meta=dict(SHOCK))])

    writer = Thread(target=write)
    writer.start()
    try:
        for _ in range(300):
            found = ids(retriever, query_embedding=[1.0, 0.0])
            assert {"c"} <= {*found} <= {"a", "b", "c"}
    finally:
        over.set()
        writer.join()
    assert ids(retriever, query_embedding=[1.0, 0.0]) == ["a", "b", "c"]


def test_required_tokens_come_before_the_nearest(store):
    near = [Document(id=f"n{i}", content="x", embedding=[1.0, 0.0], meta={"key_tokens": {"x": 1.0}}) for i in range(5)]
    far = Document(id="far", content="y", embedding=[0.6, 0.8], meta={"key_tokens": {"wanted": 1.0}})
    store.write_documents([*near, far])
    retriever = SparseRetriever(store, dense_weight=1.0, nearest=2)
    query = {"key_tokens": {"absent": 1.0}, "query_embedding": [1.0, 0.0], "required_tokens": ["wanted"]}
    assert ids(retriever, **query) == ["far"]
