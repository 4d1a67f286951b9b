# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The index of an in-memory store follows its store, and filters mean what they mean to the store."""

import gc
import logging
import re
from copy import deepcopy
from pathlib import Path
from threading import Event, Thread
from weakref import ref

import pytest
from haystack import Document
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.document_stores.types import DuplicatePolicy, FilterPolicy
from haystack.errors import FilterError
from helpers.filters import any_filters
from helpers.retrieval import brute_force, dot_product, lucene_bm25, search
from helpers.words import WORDS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from haystack_integrations.components.retrievers.keytok import SparseRetriever
from haystack_integrations.components.retrievers.keytok.adapters.in_memory_index import index_of
from keytok_haystack import InvertedIndex

# weights that truncation leaves alone and whose sums are exact, so that ties are ties
WEIGHTS = st.sampled_from([0.125, 0.25, 0.5, 0.75, 1.0, 1.5])
IDS = st.sampled_from(["a", "b", "c", "d", "e", "f"])
TOKENS = st.dictionaries(st.sampled_from(WORDS), WEIGHTS, max_size=4)
CONTENTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map(" ".join)


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The ids of each addition to an inverted index."""
    additions = []
    original = InvertedIndex.add

    def add(self, ids, tokens, texts):
        if ids:
            additions.append(sorted(ids))
        original(self, ids, tokens, texts)

    monkeypatch.setattr(InvertedIndex, "add", add)
    return additions


class StoreOperations(RuleBasedStateMachine):
    """Whatever happens to the store, the next search finds what a brute-force search of it finds."""

    model_folder: Path

    def __init__(self):
        super().__init__()
        self.store = InMemoryDocumentStore(index=f"machine-{id(self)}")
        self.same_index = InMemoryDocumentStore(index=f"machine-{id(self)}")
        self.plain = SparseRetriever(self.store)
        self.hybrid = SparseRetriever(self.store, model=self.model_folder, bm25_weight=0.5, top_k=100)

    @initialize()
    def begin_with_an_index(self):
        contents = zip("abcdef", WORDS[::2], WORDS[1::2], strict=True)
        self.write({key: ({one: 1.0, other: 0.5}, f"{one} {other}") for key, one, other in contents}, other=False)
        self.search({"shock": 1.0}, 7)
        self.search_with_bm25({}, "shock")

    @rule(data=st.dictionaries(IDS, st.tuples(TOKENS, CONTENTS), min_size=1, max_size=4), other=st.booleans())
    def write(self, data, other):
        documents = [
            Document(id=key, content=content, meta={"key_tokens": tokens}) for key, (tokens, content) in data.items()
        ]
        (self.same_index if other else self.store).write_documents(documents, DuplicatePolicy.OVERWRITE)

    @rule(identifier=IDS)
    def write_without_key_tokens(self, identifier):
        self.store.write_documents([Document(id=identifier, content="wing")], DuplicatePolicy.OVERWRITE)

    @rule(identifiers=st.sets(IDS, min_size=1))
    def write_equal_copies(self, identifiers):
        copies = [deepcopy(self.store.storage[key]) for key in identifiers if key in self.store.storage]
        self.store.write_documents(copies, DuplicatePolicy.OVERWRITE)

    @rule(identifiers=st.sets(IDS, min_size=1))
    def write_the_same_objects(self, identifiers):
        same = [self.store.storage[key] for key in identifiers if key in self.store.storage]
        self.store.write_documents(same, DuplicatePolicy.OVERWRITE)

    @rule(identifiers=st.sets(IDS, min_size=1))
    def delete(self, identifiers):
        self.store.delete_documents(list(identifiers))

    @rule()
    def delete_all(self):
        self.store.delete_all_documents()

    @rule(identifiers=st.sets(IDS, min_size=1), tokens=st.none() | TOKENS)
    def update_in_place(self, identifiers, tokens):
        filters = {"field": "id", "operator": "in", "value": list(identifiers)}
        self.store.update_by_filter(filters, {"key_tokens": tokens})

    @rule(identifiers=st.sets(IDS, min_size=1))
    def update_another_field(self, identifiers):
        filters = {"field": "id", "operator": "in", "value": list(identifiers)}
        self.same_index.update_by_filter(filters, {"year": len(identifiers)})

    @rule(identifier=IDS)
    def delete_by_filter(self, identifier):
        self.store.delete_by_filter({"field": "id", "operator": "==", "value": identifier})

    @rule()
    def close(self):
        self.plain.close()
        self.hybrid.close()

    @rule(query=TOKENS, top_k=st.integers(0, 7))
    def search(self, query, top_k):
        assert search(self.plain, query, top_k=top_k) == brute_force(self.store, query, top_k)

    @rule(query=TOKENS, text=CONTENTS)
    def search_with_bm25(self, query, text):
        expected = {d.id: dot_product(d.meta.get("key_tokens") or {}, query) for d in self.store.storage.values()}
        for identifier, score in lucene_bm25(self.store.storage.values(), text).items():
            expected[identifier] += 0.5 * score
        found = dict(search(self.hybrid, query, query=text))
        assert found == pytest.approx({key: score for key, score in expected.items() if score > 0}, rel=1e-5)

    def teardown(self):
        query = dict.fromkeys(WORDS, 1.0)
        self.search(query, 7)
        self.search_with_bm25(query, " ".join(WORDS))
        self.store.delete_all_documents()


def test_the_index_follows_every_operation_on_the_store(small_model_folder, monkeypatch):
    monkeypatch.setattr(StoreOperations, "model_folder", small_model_folder, raising=False)
    profile = settings(max_examples=60, stateful_step_count=15, suppress_health_check=[HealthCheck.too_slow])
    run_state_machine_as_test(StoreOperations, settings=profile)


def test_nothing_is_indexed_again_while_nothing_changes(store, added):
    retriever = SparseRetriever(store)
    for _ in range(5):
        search(retriever, {"wave": 1.0})
        search(retriever, {"heat": 1.0}, filters={"field": "meta.year", "operator": "==", "value": 1})
    assert added == [["empty", "hot", "shocking", "wavy"]]


def test_only_what_changed_is_indexed_again(store, added):
    retriever = SparseRetriever(store)
    search(retriever, {"wave": 1.0})
    added.clear()
    store.write_documents([Document(id="new", content="new", meta={"key_tokens": {"wave": 2.0}})])
    store.delete_documents(["hot"])
    assert search(retriever, {"wave": 1.0})[0] == ("new", 2.0)
    store.update_by_filter({"field": "id", "operator": "==", "value": "wavy"}, {"key_tokens": {"wave": 4.0}})
    assert search(retriever, {"wave": 1.0})[0] == ("wavy", 4.0)
    assert added == [["new"], ["wavy"]]


def test_equal_copies_are_not_indexed_again(store, added):
    retriever = SparseRetriever(store)
    expected = search(retriever, {"wave": 1.0})
    added.clear()
    for _ in range(2):
        store.write_documents(deepcopy(list(store.storage.values())), DuplicatePolicy.OVERWRITE)
        assert search(retriever, {"wave": 1.0}) == expected
    assert added == []


def test_changed_content_is_indexed_again_for_bm25(small_model_folder):
    store = InMemoryDocumentStore()
    retriever = SparseRetriever(store, model=small_model_folder, bm25_weight=1.0)
    for content, found in (("wing", []), ("lift", ["a"]), ("wing", [])):
        document = Document(id="a", content=content, meta={"key_tokens": {"heat": 1.0}})
        store.write_documents([document], DuplicatePolicy.OVERWRITE)
        assert [hit.id for hit in retriever.run(key_tokens={}, query="lift")["documents"]] == found


def test_retrievers_of_other_fields_have_an_index_each(store):
    one, other = SparseRetriever(store), SparseRetriever(store, field="other")
    store.write_documents([Document(id="b", meta={"other": {"wave": 3.0}})])
    assert search(one, {"wave": 1.0}) == brute_force(store, {"wave": 1.0})
    assert search(other, {"wave": 1.0}) == [("b", 3.0)]


FILTERED = [
    {"year": 1962, "kind": "report", "date": "1962-05-01", "tags": ["a", "b"], "deep": {"n": 1}},
    {"year": 1958, "kind": "paper", "date": "1958-01-31", "tags": [], "deep": {"n": 2}},
    {"year": 1970, "kind": "report", "date": "1970-12-24T10:00:00+00:00", "deep": {"n": None}},
    {"year": None, "kind": "letter", "deep": None},
    {"kind": None, "tags": ["a"]},
    {},
]


@pytest.fixture(scope="module")
def filtered_store() -> InMemoryDocumentStore:
    store = InMemoryDocumentStore()
    store.write_documents(
        [
            Document(id=f"{i}{'abc'[n]}", content="x", meta={**meta, "key_tokens": {"a": 1.0 + i / 8 + n / 64}})
            for i, meta in enumerate(FILTERED)
            for n in range(3)
        ]
    )
    return store


VALUES = {
    "meta.year": st.sampled_from([1950, 1958, 1962, 1970, None]),
    "meta.kind": st.sampled_from(["report", "paper", "letter", "other", None]),
    "meta.date": st.sampled_from(["1958-01-31", "1962-05-01", "1970-12-24T10:00:00", None]),
    "meta.tags": st.sampled_from([["a", "b"], [], ["a"], "a"]),
    "meta.deep.n": st.sampled_from([1, 2, None]),
    "meta.unknown": st.sampled_from([1, None]),
    "id": st.sampled_from(["0a", "1b", "none"]),
    "content": st.sampled_from(["x", "y"]),
}


@given(filters=any_filters(VALUES), top_k=st.sampled_from([1, 3, 100]))
@settings(max_examples=400)
def test_any_filter_means_what_it_means_to_the_store(filtered_store, filters, top_k):
    retriever = SparseRetriever(filtered_store)
    try:
        allowed = {document.id for document in filtered_store.filter_documents(filters)}
    except Exception as error:  # whatever Haystack raises
        with pytest.raises(type(error)):
            search(retriever, {"a": 1.0}, filters=filters)
        return
    expected = [hit for hit in brute_force(filtered_store, {"a": 1.0}, 100) if hit[0] in allowed]
    assert search(retriever, {"a": 1.0}, filters=filters, top_k=top_k) == expected[:top_k]


@pytest.mark.parametrize(
    ("operator", "value", "expected"),
    [
        ("==", 1962, {"0"}),
        ("!=", 1962, {"1", "2", "3", "4", "5"}),
        (">", 1962, {"2"}),
        (">=", 1962, {"0", "2"}),
        ("<", 1962, {"1"}),
        ("<=", 1962, {"0", "1"}),
        ("in", [1958, 1970], {"1", "2"}),
        ("not in", [1958, 1970], {"0", "3", "4", "5"}),
    ],
)
def test_each_operator(operator, value, expected, filtered_store):
    filters = {"field": "meta.year", "operator": operator, "value": value}
    hits = search(SparseRetriever(filtered_store), {"a": 1.0}, filters=filters, top_k=100)
    assert {identifier[0] for identifier, _ in hits} == expected
    assert len(hits) == 3 * len(expected)


INVALID = [
    {"field": "meta.year", "value": 1962},
    {"field": "meta.year", "operator": "~", "value": 1962},
    {"field": "meta.year", "operator": "=="},
    {"field": "meta.year", "operator": "in", "value": 1962},
    {"field": "meta.kind", "operator": ">", "value": "report"},
    {"operator": "AND"},
    {"operator": "XOR", "conditions": [{"field": "meta.year", "operator": "==", "value": 1}]},
    {"year": 1962},
]


@pytest.mark.parametrize("filters", INVALID, ids=str)
def test_an_invalid_filter_raises_what_the_store_raises(filters, filtered_store):
    with pytest.raises((ValueError, FilterError)) as expected:
        filtered_store.filter_documents(filters)
    with pytest.raises(expected.type, match=re.escape(str(expected.value))):
        search(SparseRetriever(filtered_store), {"a": 1.0}, filters=filters)


def test_filter_policies(filtered_store):
    report = {"field": "meta.kind", "operator": "==", "value": "report"}
    early = {"field": "meta.year", "operator": "<", "value": 1965}

    def found(policy, **arguments):
        retriever = SparseRetriever(filtered_store, filters=report, filter_policy=policy, top_k=100)
        return {identifier[0] for identifier, _ in search(retriever, {"a": 1.0}, **arguments)}

    assert found(FilterPolicy.REPLACE) == found("merge") == {"0", "2"}
    assert found("replace", filters=early) == {"0", "1"}
    assert found(FilterPolicy.MERGE, filters=early) == {"0"}


def test_an_update_is_seen_by_filters_too(filtered_store):
    store = InMemoryDocumentStore()
    store.write_documents(deepcopy(list(filtered_store.storage.values())))
    retriever = SparseRetriever(store)
    filters = {"field": "meta.year", "operator": "==", "value": 2000}
    assert search(retriever, {"a": 1.0}, filters=filters) == []
    store.update_by_filter({"field": "id", "operator": "==", "value": "3c"}, {"year": 2000})
    assert search(retriever, {"a": 1.0}, filters=filters) == [("3c", 1.0 + 3 / 8 + 2 / 64)]


# --- one index for all retrievers over a store, whatever others write

SHOCK = {"key_tokens": {"shock": 1.0}}


def ids(retriever: SparseRetriever, **query) -> list[str]:
    return [hit.id for hit in retriever.run(**{"key_tokens": {"shock": 1.0}, **query})["documents"]]


@pytest.fixture
def shocks() -> InMemoryDocumentStore:
    store = InMemoryDocumentStore()
    store.write_documents([Document(id=key, content="shock", meta=dict(SHOCK)) for key in "abc"])
    return store


def test_retrievers_over_one_store_share_an_index_until_all_are_closed(shocks):
    same = InMemoryDocumentStore(index=shocks.index)
    first, second = SparseRetriever(shocks), SparseRetriever(same)
    assert ids(first) == ids(second) == ["a", "b", "c"]
    index = ref(index_of(shocks, "key_tokens", with_bm25=False))
    first.close()
    gc.collect()
    assert index() is index_of(same, "key_tokens", with_bm25=False)
    shocks.delete_documents(["b"])
    assert ids(second) == ids(first) == ["a", "c"]
    first.close()
    second.close()
    gc.collect()
    assert index() is None
    assert ids(second) == ["a", "c"]


def test_indices_of_other_fields_and_with_bm25_are_others(shocks):
    shocks.write_documents([Document(id="d", content="wave", meta={"other": {"shock": 1.0}})])
    assert ids(SparseRetriever(shocks, field="other")) == ["d"]
    assert ids(SparseRetriever(shocks)) == ["a", "b", "c"]
    by_words = SparseRetriever(shocks, bm25_weight=1.0)
    assert ids(by_words, key_tokens={}, query="wave") == ["d"]


@pytest.mark.parametrize("bad", ["shock", {"shock": "strong"}, {"shock": -1.0}, ["shock"], 1])
def test_a_document_that_is_overwritten_badly_stops_no_search(shocks, bad, caplog):
    retriever = SparseRetriever(shocks)
    assert ids(retriever) == ["a", "b", "c"]
    shocks.write_documents([Document(id="b", content="shock", meta={"key_tokens": bad})], DuplicatePolicy.OVERWRITE)
    shocks.write_documents([Document(id="d", content="shock", meta=dict(SHOCK))])
    with caplog.at_level(logging.WARNING):
        assert [ids(retriever), ids(retriever)] == [["a", "c", "d"]] * 2
    assert caplog.text.count("A document is not found by its key tokens") == 1
    shocks.write_documents([Document(id="b", content="shock", meta=dict(SHOCK))], DuplicatePolicy.OVERWRITE)
    assert ids(retriever) == ["a", "b", "c", "d"]


def test_searches_go_on_while_others_write_and_delete(shocks):
    retriever = SparseRetriever(shocks, dense_weight=1.0)
    document = Document(id="a", content="shock", embedding=[1.0, 0.0], meta=dict(SHOCK))
    over = Event()

    def write() -> None:
        while not over.is_set():
            shocks.write_documents([document], DuplicatePolicy.OVERWRITE)
            shocks.delete_documents(["b"])
            shocks.write_documents([Document(id="b", content="shock", meta=dict(SHOCK))])

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


def test_required_tokens_come_before_the_nearest(shocks):
    near = [Document(id=f"n{i}", content="x", embedding=[1.0, 0.0], meta={"key_tokens": {"x": 1.0}}) for i in range(5)]
    far = Document(id="far", content="y", embedding=[0.6, 0.8], meta={"key_tokens": {"wanted": 1.0}})
    shocks.write_documents([*near, far])
    retriever = SparseRetriever(shocks, dense_weight=1.0, nearest=2)
    query = {"key_tokens": {"absent": 1.0}, "query_embedding": [1.0, 0.0], "required_tokens": ["wanted"]}
    assert ids(retriever, **query) == ["far"]
