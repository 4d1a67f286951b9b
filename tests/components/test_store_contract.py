# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""What SparseRetriever promises of every document store, tried on all of them."""

import asyncio
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
from haystack import Document, Pipeline
from haystack.core.serialization import component_from_dict
from haystack.document_stores.types import DuplicatePolicy
from haystack.errors import FilterError
from helpers.filters import any_filters
from helpers.rankings import stored
from helpers.retrieval import (
    assert_matched,
    assert_ranking,
    dot_products,
    fresh,
    lucene_bm25,
    own_bm25_retriever,
    own_meta,
    pairs,
    search,
)
from helpers.words import WORDS as ALL_WORDS
from hypothesis import given, settings
from hypothesis import strategies as st
from nodes.stores import DENSE_STORES, ENGINE_STORES, STORES

from haystack_integrations.components.retrievers.keytok import SparseRetriever

WORDS = ALL_WORDS[:10]
OPENSEARCH = ("opensearch", "opensearch-knn")
FILTERED = [
    {"year": 1962, "kind": "report", "date": "1962-05-01", "rating": 0.5},
    {"year": 1958, "kind": "paper", "date": "1958-01-31", "rating": 2.25},
    {"year": 1970, "kind": "report", "date": "1970-12-24", "deep": {"n": 1}},
    {"kind": "letter", "date": "1962-05-02", "deep": {"n": 2}},
    {"year": 1962, "rating": 1.0},
    {},
]


def sample_documents() -> list[Document]:
    """Forty documents with text, up to six key tokens and something to filter by; two have no key tokens."""
    random = np.random.default_rng(3)
    documents = []
    for i in range(40):
        chosen = random.choice(WORDS, size=int(random.integers(1, 7)), replace=False).tolist()
        tokens = {word: float(random.uniform(0.05, 1.5)) for word in chosen}
        meta = {**FILTERED[i % len(FILTERED)], "key_tokens": {} if i in (7, 30) else tokens}
        content = " ".join(random.choice(WORDS, size=int(random.integers(2, 12))).tolist())
        documents.append(Document(id=f"d{i:02}", content=content, meta=meta))
    return documents


@pytest.fixture(scope="module", params=STORES)
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def written() -> list[Document]:
    return sample_documents()


@pytest.fixture(scope="module")
def sample(make_store, kind, written, small_model):
    """A store with the sample, for tests that only read."""
    store = make_store(kind, model=small_model)
    store.write_documents(deepcopy(written))
    return store


@pytest.fixture
def store(make_store, kind):
    return make_store(kind)


def queries(number: int, seed: int = 0) -> list[dict[str, float]]:
    random = np.random.default_rng(seed)
    return [
        {
            word: float(random.uniform(0.01, 1))
            for word in random.choice([*WORDS, "unknown"], size=int(random.integers(1, 8)), replace=False).tolist()
        }
        for _ in range(number)
    ]


def test_order_and_scores_are_those_of_a_matrix_product_of_truncated_weights(sample, written):
    words = {word: i for i, word in enumerate(WORDS)}
    matrix = np.zeros((len(written), len(words)))
    for row, document in enumerate(written):
        for word, weight in document.meta["key_tokens"].items():
            matrix[row, words[word]] = stored(weight)
    retriever = SparseRetriever(sample, top_k=100)
    for query in queries(10):
        vector = np.array([query.get(word, 0.0) for word in words])
        scores = dict(zip([document.id for document in written], (matrix @ vector).tolist(), strict=True))
        assert_ranking(search(retriever, query), {key: score for key, score in scores.items() if score > 0})


def test_top_k(sample, written):
    query = {"wing": 1.0, "lift": 0.3, "flow": 0.7}
    retriever = SparseRetriever(sample, top_k=3)
    everything = search(retriever, query, top_k=1000)
    assert_ranking(everything, dot_products(query, written))
    assert len(everything) > 10
    assert search(retriever, query) == everything[:3]
    assert search(retriever, query, top_k=1) == everything[:1]
    assert search(retriever, query, top_k=0) == []
    with pytest.raises(ValueError, match="top_k"):
        retriever.run(key_tokens=query, top_k=-1)


@pytest.mark.parametrize("query", [{}, {"unknown": 1.0}, {"WING": 1.0, "wing ": 1.0, "win": 1.0, "": 1.0, "*": 1.0}])
def test_a_query_that_shares_no_token_finds_nothing(query, sample):
    assert search(SparseRetriever(sample), query) == []
    assert search(SparseRetriever(sample), query, filters={"field": "meta.year", "operator": ">", "value": 0}) == []


def test_an_empty_index_has_no_hits(store):
    assert search(SparseRetriever(store), {"wing": 1.0}) == []
    assert SparseRetriever(store).run_batch([{"wing": 1.0}, {}])["documents"] == [[], []]
    assert SparseRetriever(store).run_batch([])["documents"] == []


def test_tiny_and_huge_weights_are_scored(store):
    tokens = {"tiny": 2e-38, "small": 1e-20, "large": 1e20, "huge": 3e38}
    store.write_documents([Document(id=key, meta={"key_tokens": {key: value}}) for key, value in tokens.items()])
    retriever = SparseRetriever(store)
    for token, weight in tokens.items():
        assert search(retriever, {token: 1.0}) == [(token, pytest.approx(stored(weight), rel=1e-6))]


def test_hits_are_the_documents_that_were_written(sample, written):
    by_id = {document.id: document for document in written}
    query = dict.fromkeys(WORDS, 1.0)
    whole, lean = (
        SparseRetriever(sample, top_k=100, return_key_tokens=answer).run(key_tokens=query)["documents"]
        for answer in (True, False)
    )
    assert len(whole) == len(lean) == 38
    for hit, short in zip(whole, lean, strict=True):
        written_document = by_id[hit.id]
        assert replace(hit, score=None, meta=own_meta(hit)) == written_document
        assert own_meta(short) == {key: v for key, v in written_document.meta.items() if key != "key_tokens"}
        assert replace(short, meta=hit.meta) == hit
        assert_matched(hit, query, written_document.meta["key_tokens"])
        assert short.meta["matched_tokens"] == hit.meta["matched_tokens"]


def test_a_hit_without_key_tokens_of_its_own_is_found_by_bm25(sample, written, small_model_folder):
    retriever = SparseRetriever(sample, model=small_model_folder, bm25_weight=1.0, top_k=100)
    hits = {hit.id: hit for hit in retriever.run(key_tokens={}, query=" ".join(WORDS))["documents"]}
    assert set(hits) == {document.id for document in written}
    assert not hits["d07"].meta.get("key_tokens")


QUERY = dict.fromkeys(WORDS, 0.5)


@pytest.mark.parametrize(
    ("filters", "matches"),
    [
        ({"field": "id", "operator": "in", "value": ["d01", "d05", "none"]}, lambda d: d.id in ("d01", "d05")),
        ({"field": "meta.deep.n", "operator": "==", "value": 2}, lambda d: d.meta.get("deep") == {"n": 2}),
        (
            {
                "operator": "AND",
                "conditions": [
                    {"field": "meta.year", "operator": ">=", "value": 1960},
                    {
                        "operator": "OR",
                        "conditions": [
                            {"field": "meta.kind", "operator": "==", "value": "report"},
                            {
                                "operator": "NOT",
                                "conditions": [
                                    {"field": "meta.rating", "operator": ">", "value": 0.75},
                                    {"field": "meta.rating", "operator": "<", "value": 2.0},
                                ],
                            },
                        ],
                    },
                ],
            },
            lambda d: d.meta.get("year", 0) >= 1960 and d.meta.get("kind") == "report",
        ),
        (
            {
                "operator": "NOT",
                "conditions": [
                    {
                        "operator": "OR",
                        "conditions": [
                            {"field": "meta.kind", "operator": "in", "value": ["report", "paper"]},
                            {"field": "meta.date", "operator": ">", "value": "1962-05-01"},
                        ],
                    },
                ],
            },
            lambda d: d.meta.get("kind") not in ("report", "paper", "letter"),
        ),
    ],
)
def test_nested_filters(filters, matches, sample, written):
    hits = search(SparseRetriever(sample, top_k=100), QUERY, filters=filters)
    assert_ranking(hits, dot_products(QUERY, [document for document in written if matches(document)]))
    assert hits


VALUES = {
    "meta.year": st.sampled_from([1950, 1958, 1962, 1970, None]),
    "meta.kind": st.sampled_from(["report", "paper", "letter", "other", None]),
    "meta.date": st.sampled_from(["1958-01-31", "1962-05-01", "1970-12-24T10:00:00", None]),
    "meta.rating": st.sampled_from([0.5, 1, 2.25]),
    "meta.deep.n": st.sampled_from([1, 2, None]),
    "meta.unknown": st.sampled_from([1, None]),
    "id": st.sampled_from(["d00", "d11", "none"]),
    "content": st.sampled_from(["wing", "lift"]),
}


@given(filters=any_filters(VALUES))
@settings(max_examples=60)
def test_any_filter_means_what_it_means_to_the_store(sample, filters):
    retriever = SparseRetriever(sample, top_k=100)
    query = {"wing": 1.0, "lift": 0.3}
    try:
        allowed = {document.id for document in sample.filter_documents(filters)}
    except Exception:  # whatever the store raises
        with pytest.raises(Exception, match=r"."):
            search(retriever, query, filters=filters)
        return
    assert search(retriever, query, filters=filters) == [hit for hit in search(retriever, query) if hit[0] in allowed]


@pytest.mark.parametrize("kind", OPENSEARCH)
def test_filters_on_nested_fields_of_opensearch(kind, make_store):
    definition = make_store.definition(kind, dimension=None, model=None, field="key_tokens")
    definition["mappings"]["properties"]["authors"] = {"type": "nested"}
    store = make_store(kind, definition=definition)
    authors = [[{"name": "x", "age": 3}, {"name": "y", "age": 5}], [{"name": "x", "age": 5}], []]
    store.write_documents(
        [Document(id=str(i), meta={"key_tokens": {"wing": 1.0 + i}, "authors": a}) for i, a in enumerate(authors)]
    )
    both = {
        "operator": "AND",
        "conditions": [
            {"field": "meta.authors.name", "operator": "==", "value": "x"},
            {"field": "meta.authors.age", "operator": "==", "value": 5},
        ],
    }
    assert search(SparseRetriever(fresh(store)), {"wing": 1.0}, filters=both) == [("1", 2.0)]


@pytest.mark.parametrize("bm25_weight", [0.0, 0.1])
def test_a_filter_alone_finds_nothing(bm25_weight, sample, small_model_folder):
    retriever = SparseRetriever(sample, model=small_model_folder, bm25_weight=bm25_weight)
    filters = {"field": "meta.kind", "operator": "==", "value": "report"}
    for query in ({}, {"unknown": 1.0}):
        for text in ("", "unknown"):
            assert search(retriever, query, query=text, filters=filters) == []
            assert retriever.run_batch([query], [text], filters=filters)["documents"] == [[]]


@pytest.mark.parametrize("required", [["wing"], ["wing", "lift"], ["unknown"]])
@pytest.mark.parametrize("filters", [None, {"field": "meta.year", "operator": ">=", "value": 1960}])
def test_every_hit_has_the_required_tokens_and_none_is_missing(required, filters, sample, written):
    query = {"wing": 0.4, "lift": 1.0, "speed": 0.9}
    kept = [
        document
        for document in written
        if document.meta["key_tokens"].keys() >= {*required}
        and (filters is None or document.meta.get("year", 0) >= 1960)
    ]
    retriever = SparseRetriever(sample, top_k=40, first_phase=1.0)
    assert_ranking(search(retriever, query, filters=filters, required_tokens=required), dot_products(query, kept))
    if required == ["unknown"]:
        empty = retriever.run(key_tokens=query, filters=filters, required_tokens=required)["meta"]["empty"]
        assert empty == "No document that the query finds has all required tokens: unknown."


def test_filter_policy(sample, written):
    reports = {"field": "meta.kind", "operator": "==", "value": "report"}
    early = {"field": "meta.year", "operator": "<", "value": 1965}

    def found(policy, filters):
        retriever = SparseRetriever(sample, filters=reports, filter_policy=policy, top_k=100)
        (batch,) = retriever.run_batch([QUERY], filters=filters)["documents"]
        assert pairs(batch) == search(retriever, QUERY, filters=filters)
        return {hit.meta.get("year") for hit in batch}

    assert found("replace", None) == found("merge", None) == {1962, 1970}
    assert found("replace", early) == {1958, 1962}
    assert found("merge", early) == {1962}


@pytest.mark.parametrize(
    "filters",
    [
        {"field": "meta.year", "value": 1962},
        {"field": "meta.year", "operator": "=="},
        {"field": "meta.year", "operator": "in", "value": 1962},
        {"field": "meta.kind", "operator": ">", "value": "report"},
        {"field": "meta.year", "operator": ">", "value": [1962]},
        {"operator": "AND"},
        {"operator": "XOR", "conditions": [{"field": "meta.year", "operator": "==", "value": 1962}]},
        {"conditions": [{"field": "meta.year", "operator": "==", "value": 1962}]},
    ],
)
def test_invalid_filters_are_refused(filters, sample):
    retriever = SparseRetriever(sample)
    with pytest.raises((FilterError, ValueError)):
        search(retriever, QUERY, filters=filters)
    with pytest.raises((FilterError, ValueError)):
        retriever.run_batch([QUERY], filters=filters)


@pytest.mark.parametrize("text", ["wing lift", "wing wing speed", "unknown", ""])
@pytest.mark.parametrize("bm25_weight", [0.1, 2.0])
def test_the_bm25_share_is_lucenes_formula_on_every_store(bm25_weight, text, sample, written, small_model_folder):
    retriever = SparseRetriever(sample, model=small_model_folder, bm25_weight=bm25_weight, top_k=100)
    query = {"shock": 0.5, "wave": 0.25}
    keyed, lexical = dot_products(query, written), lucene_bm25(written, text)
    expected = {key: keyed.get(key, 0) + bm25_weight * lexical.get(key, 0) for key in keyed | lexical}
    assert_ranking(search(retriever, query, query=text), expected)
    assert_ranking(search(retriever, {}, query=text), {key: bm25_weight * lexical[key] for key in lexical})


@pytest.mark.slow
def test_the_bm25_share_is_the_same_number_on_every_engine(make_store):
    """Of texts with upper case, punctuation, empty and missing ones, and ones longer than Lucene keeps lengths of."""
    random = np.random.default_rng(5)
    contents = [None, "", "...", "Wing-lift, (FLOW)!", "über naïve 3.5 100% wing", "wing " * 57 + "lift"]
    contents += [" ".join(random.choice(WORDS, size=size).tolist()) for size in random.integers(1, 300, size=40)]
    documents = [
        Document(id=f"{i:02}", content=content, meta={"key_tokens": {"a": 0.5, "b": 0.1 + i}})
        for i, content in enumerate(contents)
    ]
    shares = {}
    for kind in ENGINE_STORES:
        store = make_store(kind)
        store.write_documents(deepcopy(documents))
        for text in ("Wing lift", "über 3.5 flow", "100%"):
            keyed = dict(search(SparseRetriever(store, top_k=100), {"a": 0.01}))
            lexical = dict(search(SparseRetriever(store, top_k=100, bm25_weight=1.0), {}, query=text))
            mixed = dict(search(SparseRetriever(store, top_k=100, bm25_weight=0.5), {"a": 0.01}, query=text))
            assert mixed == pytest.approx({key: keyed[key] + 0.5 * lexical.get(key, 0) for key in keyed}, rel=1e-6)
            assert lexical
            shares.setdefault(text, []).append(lexical)
    for first, *others in shares.values():
        for other in others:
            assert other == pytest.approx(first, rel=1e-6)


def test_filters_do_not_change_scores_with_bm25(sample, small_model_folder):
    retriever = SparseRetriever(sample, model=small_model_folder, bm25_weight=0.1, top_k=100)
    filters = {"field": "meta.kind", "operator": "==", "value": "report"}
    query, text = {"wing": 0.5}, "lift flow"
    allowed = {document.id for document in sample.filter_documents(filters)}
    among = search(retriever, query, query=text, filters=filters)
    assert dict(among) == dict(hit for hit in search(retriever, query, query=text) if hit[0] in allowed)
    assert among


@pytest.mark.parametrize("number", [1, 101, 230])
def test_run_batch_is_run_for_each_query(number, sample):
    batch = queries(number, seed=1)
    batch[0] = batch[len(batch) // 2] = {"unknown": 1.0}
    batch[-1:] = [{}]
    retriever = SparseRetriever(sample, top_k=4)
    filters = {"field": "meta.kind", "operator": "!=", "value": "paper"}
    found = retriever.run_batch(batch, filters=filters)["documents"]
    assert found == [retriever.run(key_tokens=query, filters=filters)["documents"] for query in batch]


def test_run_batch_with_bm25_is_run_for_each_query(sample, small_model_folder):
    batch = queries(120, seed=2)
    batch[0] = batch[99] = batch[100] = batch[119] = {}
    texts = [" ".join(query) for query in queries(120, seed=3)]
    texts[0] = texts[50] = texts[100] = ""
    retriever = SparseRetriever(sample, model=small_model_folder, bm25_weight=0.1)
    found = retriever.run_batch(batch, texts, top_k=7)["documents"]
    assert found == [
        retriever.run(key_tokens=query, query=text, top_k=7)["documents"]
        for query, text in zip(batch, texts, strict=True)
    ]
    assert [len(hits) for hits in found[99:101]] == [7, 0]
    assert retriever.run_batch(batch, texts, top_k=0)["documents"] == [[]] * 120
    assert retriever.run_batch([{}] * 3, [""] * 3)["documents"] == [[]] * 3


def test_run_batch_says_what_it_lacks(sample, small_model_folder):
    with pytest.raises(ValueError, match=r"2 queries.*1 texts"):
        SparseRetriever(sample).run_batch([{}, {}], ["wing"])
    with pytest.raises(ValueError, match="`query`"):
        SparseRetriever(sample, model=small_model_folder, bm25_weight=0.1).run_batch([{"wing": 1.0}])
    with pytest.raises(ValueError, match="'wing'"):
        SparseRetriever(sample).run_batch([{"lift": 1.0}, {"wing": -1.0}])


async def test_run_async_is_run_also_for_many_at_once_and_after_a_close(sample, small_model_folder):
    retriever = SparseRetriever(fresh(sample), model=small_model_folder, bm25_weight=0.1)
    filters = {"field": "meta.year", "operator": ">", "value": 1960}
    inputs = [
        {"key_tokens": query, "query": " ".join(query), "filters": filters, "top_k": 5} for query in queries(20, seed=4)
    ]
    inputs += [{"key_tokens": {}, "query": ""}, {"key_tokens": {"wing": 1.0}, "query": "", "top_k": 0}]
    expected = [retriever.run(**arguments) for arguments in inputs]
    retriever.close()
    for _ in range(2):
        assert await asyncio.gather(*(retriever.run_async(**arguments) for arguments in inputs)) == expected
        await retriever.close_async()
    await retriever.warm_up_async()
    assert await retriever.run_async(**inputs[0]) == expected[0]
    with pytest.raises(ValueError, match="top_k"):
        await retriever.run_async(key_tokens={}, query="", top_k=-1)
    await retriever.close_async()
    retriever.close()


def test_asyncio_run_twice_with_a_close_between(sample):
    retriever = SparseRetriever(fresh(sample))

    async def once():
        try:
            return await retriever.run_async(key_tokens=QUERY)
        finally:
            await retriever.close_async()

    assert asyncio.run(once()) == asyncio.run(once()) == retriever.run(key_tokens=QUERY)
    retriever.close()


async def test_sync_and_async_side_by_side_with_closes_of_one_kind(sample):
    retriever = SparseRetriever(fresh(sample))
    expected = retriever.run(key_tokens=QUERY)
    assert await retriever.run_async(key_tokens=QUERY) == expected
    retriever.close()
    assert await retriever.run_async(key_tokens=QUERY) == expected
    await retriever.close_async()
    assert retriever.run(key_tokens=QUERY) == expected
    retriever.close()


async def test_closing_is_safe_at_any_time(sample):
    retriever = SparseRetriever(fresh(sample))
    other = SparseRetriever(retriever.document_store)
    retriever.close()
    await retriever.close_async()
    expected = search(retriever, QUERY)
    for _ in range(2):
        retriever.close()
        retriever.close()
        await retriever.close_async()
        assert search(retriever, QUERY) == search(other, QUERY) == expected
    assert retriever.document_store.count_documents() == 40
    retriever.close()


@pytest.mark.parametrize("kind", ["in-memory", *DENSE_STORES])
@pytest.mark.parametrize("return_embedding", [None, True, False])
def test_hits_have_an_embedding_where_the_stores_own_hits_have_it(kind, return_embedding, make_store):
    if kind.startswith("elasticsearch"):
        options = {}
        definition = make_store.definition(kind, dimension=3, model=None, field="key_tokens")
        if return_embedding is False:  # Elasticsearch's store has no such option; Elasticsearch 9 has one by default
            definition["settings"].pop("index.mapping.exclude_source_vectors", None)
    else:
        options = {} if return_embedding is None else {"return_embedding": return_embedding}
        definition = None
    store = make_store(kind, dimension=3, definition=definition, **options)
    document = Document(id="a", content="wing", embedding=[0.6, 0.0, 0.8], meta={"key_tokens": {"wing": 0.5}, "n": 1})
    store.write_documents([deepcopy(document)])
    (own,) = own_bm25_retriever(store).run(query="wing")["documents"]
    (hit,) = SparseRetriever(store).run(key_tokens={"wing": 1.0})["documents"]
    assert (hit.embedding is None) == (own.embedding is None)
    assert hit.embedding is None or hit.embedding == pytest.approx([0.6, 0.0, 0.8])
    assert (hit.content, own_meta(hit)) == ("wing", {"n": 1})
    if options:
        assert (hit.embedding is not None) == return_embedding


def test_key_tokens_come_back_also_where_elasticsearch_9_leaves_vectors_out_of_the_source(make_store):
    definition = make_store.definition("elasticsearch-9", dimension=None, model=None, field="key_tokens")
    assert definition["settings"].pop("index.mapping.exclude_source_vectors") is False
    store = make_store("elasticsearch-9", definition=definition)
    tokens = {"wing": 0.3, "3%2E5": 0.1234567, "%25": 7.0, "##ing": 1e-30}
    store.write_documents([Document(id="a", content="x", meta={"year": 1, "key_tokens": dict(tokens)})])
    (hit,) = SparseRetriever(store, return_key_tokens=True).run(key_tokens={"wing": 1.0})["documents"]
    assert hit.meta.pop("key_tokens") == pytest.approx({key: stored(value) for key, value in tokens.items()}, rel=1e-2)
    assert own_meta(hit) == {"year": 1}
    query = dict.fromkeys(tokens, 0.7)
    (lean,) = SparseRetriever(store).run(key_tokens=query)["documents"]
    assert_matched(lean, query, tokens)
    assert own_meta(lean) == {"year": 1}
    assert "key_tokens" not in store.filter_documents()[0].meta  # or the index would not show anything


def test_overwriting_replaces_tokens_and_deleting_removes_the_document(store):
    retriever = SparseRetriever(store)
    store.write_documents(
        [
            Document(id="a", content="x", meta={"key_tokens": {"wing": 1.0, "lift": 0.5}}),
            Document(id="b", content="x", meta={"key_tokens": {"wing": 0.5}}),
        ]
    )
    assert search(retriever, {"wing": 1.0}) == [("a", 1.0), ("b", 0.5)]
    overwritten = Document(id="a", content="x", meta={"key_tokens": {"wing": 0.25, "flow": 2.0}})
    store.write_documents([overwritten], DuplicatePolicy.OVERWRITE)
    assert search(retriever, {"wing": 1.0}) == [("b", 0.5), ("a", 0.25)]
    assert search(retriever, {"lift": 1.0}) == []
    (hit,) = retriever.run(key_tokens={"flow": 1.0})["documents"]
    assert hit.score == 2.0
    assert_matched(hit, {"flow": 1.0}, {"wing": 0.25, "flow": 2.0})
    store.delete_documents(["a"])
    assert search(retriever, {"wing": 1.0, "flow": 1.0}) == [("b", 0.5)]
    store.write_documents([Document(id="b", content="x")], DuplicatePolicy.OVERWRITE)
    assert search(retriever, {"wing": 1.0}) == []


def test_two_fields_side_by_side(make_store, kind):
    definition = None
    if kind != "in-memory":
        definition = make_store.definition(kind, dimension=None, model=None, field="key_tokens")
        properties = definition["mappings"]["properties"]
        properties["key_tokens_v2"] = properties["key_tokens"]
    store = make_store(kind, definition=definition)
    metas = [
        {"key_tokens": {"wing": 1.0}, "key_tokens_v2": {"wing": 0.25, "lift": 1.0}},
        {"key_tokens": {"lift": 0.5}, "key_tokens_v2": {"wing": 4.0}},
        {"key_tokens_v2": {"lift": 0.5}},
    ]
    store.write_documents([Document(id=key, content="x", meta=meta) for key, meta in zip("abc", metas, strict=True)])
    old, new = SparseRetriever(store), SparseRetriever(store, field="key_tokens_v2")
    assert search(old, {"wing": 1.0, "lift": 1.0}) == [("a", 1.0), ("b", 0.5)]
    assert search(new, {"wing": 1.0}) == [("b", 4.0), ("a", 0.25)]
    assert search(new, {"lift": 1.0}) == [("a", 1.0), ("c", 0.5)]
    others = [{"key_tokens": metas[0]["key_tokens"]}, {}]
    assert [own_meta(hit) for hit in new.run(key_tokens={"lift": 1.0})["documents"]] == others


def test_serialization(sample, monkeypatch, small_model_folder):
    for name in ("HAYSTACK_DESERIALIZATION_ALLOWLIST", "HAYSTACK_UNSAFE_DESERIALIZATION"):
        monkeypatch.delenv(name, raising=False)
    retriever = SparseRetriever(
        sample,
        filters={"field": "meta.year", "operator": ">", "value": 1960},
        top_k=5,
        filter_policy="merge",
        model=small_model_folder,
        bm25_weight=0.1,
    )
    expected = search(retriever, QUERY, query="wing")
    data = retriever.to_dict()
    # of a copy: OpenSearch's document store changes what it is loaded from
    loaded = component_from_dict(SparseRetriever, deepcopy(data), "retriever")
    assert loaded.to_dict() == data
    assert search(loaded, QUERY, query="wing") == expected
    pipeline = Pipeline()
    pipeline.add_component("retriever", loaded)
    loaded = Pipeline.loads(pipeline.dumps())
    assert loaded == pipeline
    found = loaded.run({"retriever": {"key_tokens": QUERY, "query": "wing"}})["retriever"]["documents"]
    assert pairs(found) == expected
    assert expected


def test_no_engine_s_client_is_imported_before_it_is_used():
    code = (
        "import sys\n"
        "from haystack.document_stores.in_memory import InMemoryDocumentStore\n"
        "from haystack_integrations.components.embedders.keytok import KeyTokenSparseEmbedder\n"
        "from haystack_integrations.components.retrievers.keytok import KeyTokenHybridRetriever, SparseRetriever\n"
        "import keytok_haystack.cli.app\n"
        "SparseRetriever(InMemoryDocumentStore()).run(key_tokens={'shock': 1.0})\n"
        "assert not {'opensearchpy', 'elasticsearch'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


async def test_weak_tokens_find_documents_if_the_strong_ones_find_too_few(make_store, kind):
    store = make_store(kind)
    strong, weak = [f"strong{i}" for i in range(8)], [f"weak{i}" for i in range(4)]
    documents = [Document(id=f"s{i}", content="x", meta={"key_tokens": {strong[i]: 0.1}}) for i in range(3)]
    documents += [Document(id=f"w{i}", content="x", meta={"key_tokens": dict.fromkeys(weak, 8.0)}) for i in range(5)]
    store.write_documents(documents)
    query = {**dict.fromkeys(weak, 0.1), **dict.fromkeys(strong, 1.0)}
    retriever = SparseRetriever(store)
    # Elasticsearch 7 does not tell the scores of tokens, so it finds by all of them
    by_strongest = {"w0", "w1", "w2", "w3", "w4"} if kind == "elasticsearch-7" else {"s0", "s1", "s2"}
    for top_k, expected in ((3, by_strongest), (4, {"w0", "w1", "w2", "w3", "w4"}), (8, None), (50, None)):
        found = retriever.run(key_tokens=query, top_k=top_k)["documents"]
        assert found == (await retriever.run_async(key_tokens=query, top_k=top_k))["documents"]
        assert {hit.id for hit in found} <= (expected or {document.id for document in documents})
        assert len(found) == min(top_k, 8)
    exact = SparseRetriever(store, first_phase=1.0).run(key_tokens=query, top_k=3)["documents"]
    assert all(hit.id.startswith("w") for hit in exact)
