# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import asyncio
import gc
import math
import re
import shutil
import struct
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from haystack import Document, Pipeline, component
from haystack.components.embedders import MockTextEmbedder
from haystack.components.retrievers import TextEmbeddingRetriever
from haystack.core.serialization import component_from_dict
from haystack.dataclasses import SparseEmbedding
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.document_stores.types import DuplicatePolicy, FilterPolicy
from haystack.errors import FilterError
from helpers.filters import any_filters
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from haystack_integrations.components.embedders.keytok import KeyTokenSparseEmbedder
from haystack_integrations.components.embedders.keytok.loading import load_model
from haystack_integrations.components.retrievers.keytok import SparseRetriever
from keytok_haystack import InvertedIndex, KeyTokenModel, ModelFolderError, fit

TYPE = "haystack_integrations.components.retrievers.keytok.sparse_retriever.SparseRetriever"
STORE_TYPE = "haystack.document_stores.in_memory.document_store.InMemoryDocumentStore"
WORDS = ("shock", "wave", "boundary", "layer", "heat", "transfer", "wing", "lift", "flow", "speed", "3.5", "100%")


def stored(weight: float) -> float:
    """What Lucene stores of a float: its sign, its exponent and the first 8 bits of its mantissa."""
    (bits,) = struct.unpack("<I", struct.pack("<f", weight))
    return struct.unpack("<f", struct.pack("<I", bits & 0xFFFF8000))[0]


def dot_product(document: Document, query: dict[str, float]) -> float:
    tokens = document.meta.get("key_tokens") or {}
    return math.fsum(weight * stored(tokens[token]) for token, weight in query.items() if token in tokens)


def brute_force(store: InMemoryDocumentStore, query: dict[str, float], top_k: int = 10) -> list[tuple[str, float]]:
    scores = [(document.id, dot_product(document, query)) for document in store.storage.values()]
    return sorted((hit for hit in scores if hit[1] > 0), key=lambda hit: (-hit[1], hit[0]))[:top_k]


def lucene_bm25(store: InMemoryDocumentStore, text: str) -> dict[str, float]:
    """Okapi BM25 as in Lucene's BM25Similarity, over lower-cased words; documents without a word do not count."""
    words = {d.id: [w for w in (d.content or "").lower().split() if w in WORDS] for d in store.storage.values()}
    lengths = {identifier: len(found) for identifier, found in words.items() if found}
    scores = Counter()
    for word in text.lower().split():
        frequency = sum(word in found for found in words.values())
        idf = math.log(1 + (len(lengths) - frequency + 0.5) / (frequency + 0.5))
        for identifier, length in lengths.items():
            tf = words[identifier].count(word)
            norm = 1.2 * (1 - 0.75 + 0.75 * length / (sum(lengths.values()) / len(lengths)))
            scores[identifier] += idf * tf / (tf + norm)
    return {identifier: score for identifier, score in scores.items() if score > 0}


def store_of(tokens: dict[str, dict[str, float]]) -> InMemoryDocumentStore:
    store = InMemoryDocumentStore()
    store.write_documents([Document(id=key, content=key, meta={"key_tokens": value}) for key, value in tokens.items()])
    return store


def pairs(documents: list[Document]) -> list[tuple[str, float]]:
    return [(document.id, document.score) for document in documents]


def search(retriever: SparseRetriever, key_tokens: dict[str, float], **arguments) -> list[tuple[str, float]]:
    return pairs(retriever.run(key_tokens=key_tokens, **arguments)["documents"])


@pytest.fixture
def store() -> InMemoryDocumentStore:
    return store_of(
        {
            "shocking": {"shock": 1.0, "wave": 0.3},
            "wavy": {"wave": 0.9, "flow": 0.2},
            "hot": {"heat": 0.7, "transfer": 0.6},
            "empty": {},
        }
    )


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


@pytest.fixture(scope="module")
def small_store(small_model_folder, small_texts, small_embeddings) -> InMemoryDocumentStore:
    documents = [
        Document(id=f"{i:02}", content=text, embedding=embedding.tolist())
        for i, (text, embedding) in enumerate(zip(small_texts, small_embeddings, strict=True))
    ]
    store = InMemoryDocumentStore()
    embedder = KeyTokenSparseEmbedder(small_model_folder, return_sparse_embedding=True)
    store.write_documents(embedder.run(documents=documents)["documents"])
    return store


def test_init_default(store):
    retriever = SparseRetriever(store)
    assert retriever.document_store is store
    assert (retriever.filters, retriever.top_k, retriever.filter_policy) == (None, 10, FilterPolicy.REPLACE)
    assert (retriever.model, retriever.bm25_weight, retriever.field) == (None, 0.0, "key_tokens")


def test_init_with_parameters(store):
    filters = {"field": "meta.year", "operator": ">", "value": 1960}
    retriever = SparseRetriever(
        store, filters=filters, top_k=5, filter_policy="merge", model=Path("m"), bm25_weight=0.1, field="t"
    )
    assert (retriever.filters, retriever.top_k, retriever.filter_policy) == (filters, 5, FilterPolicy.MERGE)
    assert (retriever.model, retriever.bm25_weight, retriever.field) == ("m", 0.1, "t")


@pytest.mark.parametrize(
    "parameters",
    [{"top_k": 0}, {"top_k": -1}, *({"bm25_weight": weight} for weight in (-0.1, float("nan"), float("inf")))],
)
def test_a_number_without_a_meaning_is_refused(parameters, store):
    with pytest.raises(ValueError, match=next(iter(parameters))):
        SparseRetriever(store, **parameters)


def test_an_unknown_filter_policy_is_refused(store):
    with pytest.raises(ValueError, match="FilterPolicy"):
        SparseRetriever(store, filter_policy="perhaps")


def test_an_unsupported_store_is_refused():
    class OtherStore:
        pass

    with pytest.raises(TypeError, match=r"OtherStore.*InMemoryDocumentStore"):
        SparseRetriever(OtherStore())


def test_a_store_derived_from_a_supported_one_is_supported():
    class OwnStore(InMemoryDocumentStore):
        pass

    own = OwnStore()
    own.write_documents([Document(id="a", meta={"key_tokens": {"shock": 0.5}})])
    assert search(SparseRetriever(own), {"shock": 1.0}) == [("a", 0.5)]


def test_to_dict():
    assert SparseRetriever(InMemoryDocumentStore(index="mine")).to_dict() == {
        "type": TYPE,
        "init_parameters": {
            "document_store": {
                "type": STORE_TYPE,
                "init_parameters": InMemoryDocumentStore(index="mine").to_dict()["init_parameters"],
            },
            "filters": None,
            "top_k": 10,
            "filter_policy": "replace",
            "model": None,
            "bm25_weight": 0.0,
            "field": "key_tokens",
            "exact": False,
        },
    }


def test_to_dict_with_custom_parameters():
    filters = {"field": "meta.year", "operator": ">", "value": 1960}
    retriever = SparseRetriever(
        InMemoryDocumentStore(index="mine"),
        filters=filters,
        top_k=5,
        filter_policy=FilterPolicy.MERGE,
        model=Path("m"),
        bm25_weight=0.1,
        field="t",
        exact=True,
    )
    parameters = retriever.to_dict()["init_parameters"]
    assert parameters.pop("document_store")["init_parameters"]["index"] == "mine"
    assert parameters == {
        "filters": filters,
        "top_k": 5,
        "filter_policy": "merge",
        "model": "m",
        "bm25_weight": 0.1,
        "field": "t",
        "exact": True,
    }


def test_from_dict(store):
    data = {
        "type": TYPE,
        "init_parameters": {
            "document_store": {"type": STORE_TYPE, "init_parameters": {"index": store.index}},
            "top_k": 1,
            "filter_policy": "merge",
        },
    }
    retriever = component_from_dict(SparseRetriever, data, "retriever")
    assert (retriever.top_k, retriever.filter_policy) == (1, FilterPolicy.MERGE)
    assert search(retriever, {"wave": 1.0}) == [("wavy", stored(0.9))]


def test_warm_up_loads_the_model_once_and_for_good(small_store, small_model_folder, small_embeddings, tmp_path):
    shutil.copytree(small_model_folder, tmp_path / "model")
    retriever = SparseRetriever(small_store, model=tmp_path / "model")
    retriever.warm_up()
    shutil.rmtree(tmp_path / "model")
    retriever.warm_up()
    assert len(retriever.run(query_embedding=small_embeddings[0].tolist())["documents"]) == 10


def test_an_unknown_or_corrupt_model_is_named(store, small_model_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        SparseRetriever(store, model=tmp_path / "nothing").warm_up()
    shutil.copytree(small_model_folder, tmp_path / "corrupt")
    (tmp_path / "corrupt" / "decoder.safetensors").write_bytes(b"")
    with pytest.raises(ModelFolderError, match="corrupt"):
        SparseRetriever(store, model=tmp_path / "corrupt").run(key_tokens={"wave": 1.0})


def test_run(store):
    query = {"wave": 0.5, "shock": 0.25, "unheard-of": 1.0}
    hits = search(SparseRetriever(store), query)
    assert hits == [("wavy", 0.5 * stored(0.9)), ("shocking", 0.25 + 0.5 * stored(0.3))]
    assert hits == brute_force(store, query)


@pytest.mark.parametrize("query", [{}, {"unheard-of": 1.0}])
def test_a_query_that_shares_no_token_finds_nothing(query, store):
    assert search(SparseRetriever(store), query) == []


def test_run_on_empty_store():
    assert search(SparseRetriever(InMemoryDocumentStore()), {"wave": 1.0}) == []


def test_neither_the_store_nor_the_query_is_mutated(store):
    before, query = deepcopy(store.storage), {"wave": 0.5}
    SparseRetriever(store).run(key_tokens=query)
    assert store.storage == before
    assert query == {"wave": 0.5}


def test_hits_are_copies_as_those_of_haystacks_own_retrievers(store):
    store.update_by_filter({"field": "id", "operator": "==", "value": "wavy"}, {"tags": ["a"]})
    before = deepcopy(store.storage)
    (hit, *_) = SparseRetriever(store).run(key_tokens={"wave": 1.0})["documents"]
    hit.meta["mine"] = True
    hit.meta["tags"].append("b")
    hit.meta["key_tokens"].clear()
    assert store.storage == before


def test_hits_keep_id_content_and_meta_and_the_embedding_if_the_store_returns_it():
    for return_embedding in (True, False):
        store = InMemoryDocumentStore(return_embedding=return_embedding)
        document = Document(content="x", embedding=[1.0], meta={"key_tokens": {"a": 1.0}, "year": 1962})
        store.write_documents([document])
        (hit,) = SparseRetriever(store).run(key_tokens={"a": 0.5})["documents"]
        assert (hit.id, hit.content, hit.meta, hit.score) == (document.id, "x", document.meta, 0.5)
        assert hit.embedding == ([1.0] if return_embedding else None)
        assert document.embedding == [1.0]


def test_ties_are_broken_by_id():
    ids = [f"{i:03}" for i in np.random.default_rng(0).permutation(300)]
    store = store_of({key: {"a": 0.5} for key in ids})
    for top_k in (1, 7, 300):
        assert search(SparseRetriever(store), {"a": 1.0}, top_k=top_k) == [(key, 0.5) for key in sorted(ids)[:top_k]]


def test_top_k(store):
    retriever = SparseRetriever(store, top_k=1)
    assert len(search(retriever, {"wave": 1.0})) == 1
    assert len(search(retriever, {"wave": 1.0}, top_k=10)) == 2
    assert search(retriever, {"wave": 1.0}, top_k=0) == []
    with pytest.raises(ValueError, match="top_k"):
        retriever.run(key_tokens={"wave": 1.0}, top_k=-1)


def test_cranfield_ranking_and_scores_are_those_of_dense_products_of_truncated_weights(
    cranfield, cranfield_documents, cranfield_queries, cranfield_model_folder
):
    embedder = KeyTokenSparseEmbedder(cranfield_model_folder, progress_bar=False)
    documents = embedder.run(
        documents=[
            Document(id=key, content=text, embedding=embedding.tolist())
            for (key, text), embedding in zip(cranfield.documents.items(), cranfield_documents.embeddings, strict=True)
        ]
    )["documents"]
    store = InMemoryDocumentStore()
    store.write_documents(documents)
    queries = [
        embedder.run(embedding=embedding.tolist(), text=text)["key_tokens"]
        for text, embedding in zip(cranfield.queries.values(), cranfield_queries.embeddings, strict=True)
    ]
    columns = {key: i for i, key in enumerate(sorted({key for d in documents for key in d.meta["key_tokens"]}))}
    document_matrix = np.zeros((len(documents), len(columns)))
    for row, document in enumerate(documents):
        for key, weight in document.meta["key_tokens"].items():
            document_matrix[row, columns[key]] = stored(weight)
    query_matrix = np.zeros((len(queries), len(columns)))
    for row, query in enumerate(queries):
        for key, weight in query.items():
            if key in columns:
                query_matrix[row, columns[key]] = weight
    ids = np.array([document.id for document in documents])
    retriever = SparseRetriever(store, top_k=100)
    for query, scores in zip(queries, query_matrix @ document_matrix.T, strict=True):
        best = np.lexsort((ids, -scores.round(12)))[:100]
        hits = retriever.run(key_tokens=query)["documents"]
        assert [hit.id for hit in hits] == ids[best].tolist()
        np.testing.assert_allclose([hit.score for hit in hits], scores[best], rtol=1e-12)


# weights that truncation leaves alone and whose sums are exact, so that ties are ties
WEIGHTS = st.sampled_from([0.125, 0.25, 0.5, 0.75, 1.0, 1.5])
IDS = st.sampled_from(["a", "b", "c", "d", "e", "f"])
TOKENS = st.dictionaries(st.sampled_from(WORDS), WEIGHTS, max_size=4)
CONTENTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map(" ".join)


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
        expected = {d.id: dot_product(d, query) for d in self.store.storage.values()}
        for identifier, score in lucene_bm25(self.store, text).items():
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


def test_two_retrievers_over_one_store_have_an_index_each(store):
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


@pytest.mark.parametrize("query", [None, "wing 3.5"])
def test_a_query_embedding_does_what_the_embedder_in_front_does(query, small_store, small_model_folder):
    retriever = SparseRetriever(small_store, model=small_model_folder, top_k=60)
    embedder = KeyTokenSparseEmbedder(small_model_folder)
    for embedding in np.random.default_rng(0).normal(size=(10, 8)).tolist():
        key_tokens = embedder.run(embedding=embedding, text=query)["key_tokens"]
        hits = pairs(retriever.run(query_embedding=embedding, query=query)["documents"])
        assert hits == search(SparseRetriever(small_store, top_k=60), key_tokens)
        assert hits


@pytest.mark.parametrize("embedding", [[1.0], [float("nan")] * 8, [0.0] * 8])
def test_an_unusable_query_embedding_is_refused(embedding, small_store, small_model_folder):
    with pytest.raises(ValueError, match=r"[Ee]mbedding"):
        SparseRetriever(small_store, model=small_model_folder).run(query_embedding=embedding)


@component
class FixedTextEmbedder:
    """A text embedder with one embedding for all texts."""

    def __init__(self, embedding: list[float]):
        self.embedding = embedding

    @component.output_types(embedding=list[float])
    def run(self, text: str):
        return {"embedding": self.embedding}


async def test_inside_haystacks_own_text_embedding_retriever(small_store, small_model_folder, small_embeddings):
    embedding = small_embeddings[0].tolist()
    inner = SparseRetriever(small_store, model=small_model_folder)
    retriever = TextEmbeddingRetriever(retriever=inner, text_embedder=FixedTextEmbedder(embedding))
    expected = inner.run(query_embedding=embedding, top_k=7)["documents"]
    assert retriever.run("wing", top_k=7)["documents"] == expected
    assert (await retriever.run_async("wing", top_k=7))["documents"] == expected
    assert retriever.to_dict()["init_parameters"]["retriever"] == inner.to_dict()


def test_haystacks_own_text_embedding_retriever_is_loaded_with_it(small_store, small_model_folder, small_embeddings):
    inner = SparseRetriever(small_store, model=small_model_folder, top_k=7)
    embedder = MockTextEmbedder(embedding=small_embeddings[0].tolist())
    pipeline = Pipeline()
    pipeline.add_component("retriever", TextEmbeddingRetriever(retriever=inner, text_embedder=embedder))
    loaded = Pipeline.loads(pipeline.dumps())
    data = {"retriever": {"query": "wing"}}
    assert loaded.run(data) == pipeline.run(data)
    assert len(loaded.run(data)["retriever"]["documents"]) == 7


def test_a_sparse_query_embedding_of_the_model_is_its_key_tokens(small_store, small_model_folder, small_embeddings):
    result = KeyTokenSparseEmbedder(small_model_folder).run(embedding=small_embeddings[0].tolist(), text="wing")
    retriever = SparseRetriever(small_store, model=small_model_folder, top_k=60)
    hits = retriever.run(query_sparse_embedding=result["sparse_embedding"])["documents"]
    expected = dict(search(SparseRetriever(small_store, top_k=60), result["key_tokens"]))
    assert dict(pairs(hits)) == pytest.approx(expected, abs=1e-5)


def test_any_sparse_embedder_s_vectors_are_searched_by_index():
    store = InMemoryDocumentStore()
    store.write_documents(
        [
            Document(id="one", sparse_embedding=SparseEmbedding([3, 30522], [0.5, 0.7])),
            Document(id="two", sparse_embedding=SparseEmbedding([3, 4], [0.25, 0.0])),
            Document(id="three", meta={"key_tokens": {"3": 1.0}}),
            Document(id="four"),
        ]
    )
    retriever = SparseRetriever(store)
    query = SparseEmbedding([3, 30522, 9], [1.0, 2.0, 0.0])
    hits = pairs(retriever.run(query_sparse_embedding=query)["documents"])
    assert hits == [("one", 0.5 + 2 * stored(0.7)), ("three", 1.0), ("two", 0.25)]
    store.write_documents([Document(id="two", sparse_embedding=SparseEmbedding([3], [4.0]))], DuplicatePolicy.OVERWRITE)
    assert pairs(retriever.run(query_sparse_embedding=query)["documents"])[0] == ("two", 4.0)


@pytest.mark.parametrize("index", [12, 30522, -1])
def test_a_sparse_index_that_is_no_feature_of_the_model_is_refused(index, small_store, small_model_folder):
    retriever = SparseRetriever(small_store, model=small_model_folder)
    with pytest.raises(ValueError, match="12 features"):
        retriever.run(query_sparse_embedding=SparseEmbedding([0, index], [1.0, 1.0]))


@pytest.mark.parametrize("text", ["wing lift", "Wing wing 3.5", "unheard-of", "", "100% flow\nspeed"])
def test_the_bm25_share_is_lucene_s_formula(text, small_store, small_model_folder):
    query = {"shock": 0.5, "3%2E5": 0.25}
    for weight in (0.1, 2.0):
        retriever = SparseRetriever(small_store, model=small_model_folder, bm25_weight=weight, top_k=60)
        lexical = lucene_bm25(small_store, text)
        expected = {d.id: dot_product(d, query) + weight * lexical.get(d.id, 0) for d in small_store.storage.values()}
        hits = search(retriever, query, query=text)
        assert dict(hits) == pytest.approx({key: score for key, score in expected.items() if score > 0}, rel=1e-5)
        assert hits == sorted(hits, key=lambda hit: (-hit[1], hit[0]))


def test_bm25_counts_all_words_of_the_tokenizer(small_store, small_embeddings, small_texts, small_vocabulary, tmp_path):
    frequency = Counter(word for text in small_texts for word in set(text.lower().split()))
    rarest = min(WORDS, key=lambda word: frequency[word])
    model = fit(small_embeddings, small_texts, small_vocabulary, min_df=frequency[rarest] + 1)
    assert rarest in model.vocabulary.features[len(model.decoder) :], "the decoder has no row for it"
    model.save(tmp_path / "model")
    retriever = SparseRetriever(small_store, model=tmp_path / "model", bm25_weight=1.0, top_k=60)
    assert dict(search(retriever, {}, query=rarest)) == pytest.approx(lucene_bm25(small_store, rarest), rel=1e-5)


@pytest.mark.parametrize("content", [None, "", "...", "unheard-of"])
def test_documents_without_a_word_do_not_count_in_bm25(content, small_model_folder):
    store = InMemoryDocumentStore()
    store.write_documents([Document(id="a", content="wing lift"), Document(id="b", content="wing"), Document(id="c")])
    store.write_documents([Document(id=f"empty {i}", content=content) for i in range(5)])
    retriever = SparseRetriever(store, model=small_model_folder, bm25_weight=1.0)
    assert dict(search(retriever, {}, query="lift wing")) == pytest.approx(lucene_bm25(store, "lift wing"), rel=1e-5)


def test_filters_do_not_change_scores(small_store, small_model_folder):
    retriever = SparseRetriever(small_store, model=small_model_folder, bm25_weight=0.1, top_k=60)
    query = {"shock": 0.5}
    everything = search(retriever, query, query="wing")
    filters = {"field": "id", "operator": "in", "value": ["03", "17", "41", "42", "58"]}
    among = search(retriever, query, query="wing", filters=filters)
    assert among == [hit for hit in everything if hit[0] in filters["value"]]
    assert among


def test_what_a_query_lacks_is_said(store, small_model_folder, small_embeddings):
    with pytest.raises(ValueError, match="exactly one"):
        SparseRetriever(store).run()
    with pytest.raises(ValueError, match="exactly one"):
        SparseRetriever(store).run(query="wing")
    with pytest.raises(ValueError, match="exactly one"):
        SparseRetriever(store).run(key_tokens={}, query_sparse_embedding=SparseEmbedding([], []))
    with pytest.raises(ValueError, match="`model`"):
        SparseRetriever(store).run(query_embedding=small_embeddings[0].tolist())
    with pytest.raises(ValueError, match="`model`"):
        SparseRetriever(store, bm25_weight=0.1).run(key_tokens={"wave": 1.0}, query="wave")
    with pytest.raises(ValueError, match="`query`"):
        SparseRetriever(store, model=small_model_folder, bm25_weight=0.1).run(key_tokens={"wave": 1.0})


@pytest.mark.parametrize("weight", [0.0, -0.5, float("nan"), float("inf")])
def test_a_query_weight_must_be_positive(weight, store):
    with pytest.raises(ValueError, match="'shock'"):
        SparseRetriever(store).run(key_tokens={"wave": 1.0, "shock": weight})


@pytest.mark.parametrize("text", [5, ["wing"]])
def test_a_query_that_is_no_string_is_refused(text, small_store, small_model_folder):
    with pytest.raises(TypeError, match=type(text).__name__):
        SparseRetriever(small_store, model=small_model_folder, bm25_weight=0.1).run(key_tokens={}, query=text)


def test_a_million_characters_of_query(small_store, small_model_folder, small_embeddings):
    retriever = SparseRetriever(small_store, model=small_model_folder)
    embedding = small_embeddings[0].tolist()
    long = retriever.run(query_embedding=embedding, query="wing lift " * 100_000)["documents"]
    assert long == retriever.run(query_embedding=embedding, query="wing lift")["documents"]


@pytest.mark.parametrize("value", [["wave"], "wave", 5])
def test_a_document_whose_field_holds_something_else_is_named(value, store):
    retriever = SparseRetriever(store)
    expected = search(retriever, {"wave": 1.0})
    store.write_documents([Document(id="odd", meta={"key_tokens": value})])
    for _ in range(2):
        with pytest.raises(TypeError, match=rf"'odd'.*{type(value).__name__}"):
            search(retriever, {"wave": 1.0})
    store.delete_documents(["odd"])
    assert search(retriever, {"wave": 1.0}) == expected


@pytest.mark.parametrize("weight", [-1.0, 0.0, float("nan"), float("inf"), 1e-40, None])
def test_a_document_with_a_weight_that_no_engine_stores_is_named(weight, store):
    retriever = SparseRetriever(store)
    expected = search(retriever, {"wave": 1.0})
    bad = Document(id="bad", meta={"key_tokens": {"wave": 1.0, "odd": weight}})
    store.write_documents([Document(id="new", meta={"key_tokens": {"heat": 1.0}}), bad])
    for _ in range(2):
        with pytest.raises(ValueError, match="'bad'"):
            search(retriever, {"wave": 1.0})
    store.update_by_filter({"field": "id", "operator": "==", "value": "bad"}, {"key_tokens": None})
    assert search(retriever, {"wave": 1.0}) == expected
    assert search(retriever, {"heat": 1.0}) == brute_force(store, {"heat": 1.0})


async def test_run_async(small_store, small_model_folder, small_embeddings):
    retriever = SparseRetriever(small_store, model=small_model_folder, bm25_weight=0.1)
    inputs = [{"query_embedding": embedding, "query": "wing"} for embedding in small_embeddings.tolist()]
    results = await asyncio.gather(*(retriever.run_async(**arguments) for arguments in inputs))
    assert results == [retriever.run(**arguments) for arguments in inputs]
    with pytest.raises(ValueError, match="exactly one"):
        await retriever.run_async()
    with pytest.raises(ValueError, match="top_k"):
        await retriever.run_async(key_tokens={"wing": 1.0}, query="wing", top_k=-1)


async def test_retrievers_side_by_side_in_an_async_pipeline(small_store, small_model_folder, small_embeddings):
    pipeline = Pipeline()
    for i in range(4):
        pipeline.add_component(str(i), SparseRetriever(small_store, model=small_model_folder, top_k=i + 1))
    data = {str(i): {"query_embedding": small_embeddings[i].tolist()} for i in range(4)}
    assert await pipeline.run_async(data, concurrency_limit=4) == pipeline.run(data)


def test_threads_searching_while_documents_are_written(store):
    retriever = SparseRetriever(store, top_k=1000)
    query = {"wave": 1.0, "heat": 0.5}
    before = dict(brute_force(store, query))

    def work(number):
        if number % 5 == 0:
            store.write_documents([Document(id=f"new {number}", meta={"key_tokens": {"wave": 1.0}})])
        return search(retriever, query)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(200)))
    for hits in results:
        found = dict(hits)
        assert before.items() <= found.items()
        assert set(found.values()) <= {*before.values(), 1.0}
    assert search(retriever, query) == brute_force(store, query, 1000)


async def test_closing_is_safe_at_any_time_and_the_next_run_warms_up_again(small_store, small_model_folder):
    retriever = SparseRetriever(small_store, model=small_model_folder, bm25_weight=0.1)
    retriever.close()
    await retriever.close_async()
    expected = search(retriever, {"wing": 1.0}, query="lift")
    assert expected
    for _ in range(2):
        retriever.close()
        retriever.close()
        assert search(retriever, {"wing": 1.0}, query="lift") == expected
    await retriever.close_async()
    assert search(retriever, {"wing": 1.0}, query="lift") == expected


def test_close_frees_the_model(small_store, small_model_folder, tmp_path):
    shutil.copytree(small_model_folder, tmp_path / "model")
    retriever = SparseRetriever(small_store, model=tmp_path / "model", bm25_weight=0.1)
    search(retriever, {"wing": 1.0}, query="lift")
    model = weakref.ref(load_model(str(tmp_path / "model")))
    gc.collect()
    assert model() is not None
    retriever.close()
    gc.collect()
    assert model() is None


def test_the_embedder_and_the_retriever_share_a_model(small_store, small_model_folder, tmp_path, monkeypatch):
    shutil.copytree(small_model_folder, tmp_path / "model")
    loads = []
    original = KeyTokenModel.load
    monkeypatch.setattr(KeyTokenModel, "load", lambda path: loads.append(path) or original(path))
    components = [
        KeyTokenSparseEmbedder(tmp_path / "model"),
        SparseRetriever(small_store, model=tmp_path / "model"),
        SparseRetriever(small_store, model=tmp_path / "model"),
    ]
    for each in components:
        each.warm_up()
    assert len(loads) == 1
