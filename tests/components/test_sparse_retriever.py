# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""SparseRetriever over Haystack's own store: its parameters, inputs and outputs."""

import asyncio
import gc
import re
import shutil
import threading
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
from helpers.rankings import stored
from helpers.retrieval import brute_force, dot_products, lucene_bm25, own_meta, pairs, search, store_of
from helpers.words import WORDS

from haystack_integrations.components.embedders.keytok import KeyTokenSparseEmbedder
from haystack_integrations.components.embedders.keytok.loading import load_model
from haystack_integrations.components.retrievers.keytok import SparseRetriever
from keytok_haystack import KeyTokenModel, ModelFolderError

TYPE = "haystack_integrations.components.retrievers.keytok.sparse_retriever.SparseRetriever"
STORE_TYPE = "haystack.document_stores.in_memory.document_store.InMemoryDocumentStore"


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
    [
        *({name: value} for name in ("top_k", "first_phase", "rescored", "timeout") for value in (0, -1)),
        *(
            {name: value}
            for name in ("bm25_weight", "dense_weight", "nearest")
            for value in (-0.1, float("nan"), float("inf"))
        ),
    ],
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
            "dense_weight": 0.0,
            "bm25_weight": 0.0,
            "first_phase": 0.6,
            "rescored": 50,
            "nearest": 0,
            "field": "key_tokens",
            "content_field": "content",
            "timeout": 30.0,
            "return_key_tokens": False,
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
        dense_weight=2.0,
        bm25_weight=0.1,
        first_phase=0.5,
        rescored=20,
        nearest=7,
        field="t",
        content_field="body",
        timeout=1.5,
        return_key_tokens=True,
    )
    parameters = retriever.to_dict()["init_parameters"]
    assert parameters.pop("document_store")["init_parameters"]["index"] == "mine"
    assert parameters == {
        "filters": filters,
        "top_k": 5,
        "filter_policy": "merge",
        "model": "m",
        "dense_weight": 2.0,
        "bm25_weight": 0.1,
        "first_phase": 0.5,
        "rescored": 20,
        "nearest": 7,
        "field": "t",
        "content_field": "body",
        "timeout": 1.5,
        "return_key_tokens": True,
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
    (hit, *_) = SparseRetriever(store, return_key_tokens=True).run(key_tokens={"wave": 1.0})["documents"]
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
        assert (hit.id, hit.content, own_meta(hit), hit.score) == (document.id, "x", {"year": 1962}, 0.5)
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
    retriever = SparseRetriever(store, top_k=100, first_phase=1.0)
    for query, scores in zip(queries, query_matrix @ document_matrix.T, strict=True):
        best = np.lexsort((ids, -scores.round(12)))[:100]
        hits = retriever.run(key_tokens=query)["documents"]
        assert [hit.id for hit in hits] == ids[best].tolist()
        np.testing.assert_allclose([hit.score for hit in hits], scores[best], rtol=1e-12)


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
        lexical = lucene_bm25(small_store.storage.values(), text)
        keyed = dot_products(query, list(small_store.storage.values()))
        expected = {key: keyed.get(key, 0) + weight * lexical.get(key, 0) for key in keyed | lexical}
        hits = search(retriever, query, query=text)
        assert dict(hits) == pytest.approx({key: score for key, score in expected.items() if score > 0}, rel=1e-5)
        assert hits == sorted(hits, key=lambda hit: (-hit[1], hit[0]))


def test_bm25_needs_no_model(small_store, small_texts):
    frequency = Counter(word for text in small_texts for word in set(text.lower().split()))
    rarest = min(WORDS, key=lambda word: frequency[word])
    retriever = SparseRetriever(small_store, bm25_weight=1.0, top_k=60)
    assert dict(search(retriever, {}, query=rarest)) == pytest.approx(
        lucene_bm25(small_store.storage.values(), rarest), rel=1e-5
    )


@pytest.mark.parametrize("content", [None, "", "...", "—"])
def test_documents_without_a_word_do_not_count_in_bm25(content, small_model_folder):
    store = InMemoryDocumentStore()
    store.write_documents([Document(id="a", content="wing lift"), Document(id="b", content="wing"), Document(id="c")])
    store.write_documents([Document(id=f"empty {i}", content=content) for i in range(5)])
    retriever = SparseRetriever(store, model=small_model_folder, bm25_weight=1.0)
    assert dict(search(retriever, {}, query="lift wing")) == pytest.approx(
        lucene_bm25(store.storage.values(), "lift wing"), rel=1e-5
    )


def test_filters_do_not_change_scores(small_store, small_model_folder):
    retriever = SparseRetriever(small_store, model=small_model_folder, bm25_weight=0.1, top_k=60)
    query = {"shock": 0.5}
    everything = search(retriever, query, query="wing")
    filters = {"field": "id", "operator": "in", "value": ["03", "17", "41", "42", "58"]}
    among = search(retriever, query, query="wing", filters=filters)
    assert among == [hit for hit in everything if hit[0] in filters["value"]]
    assert among


def test_filters_of_earlier_runs_are_forgotten(small_store, small_model_folder, small_embeddings):
    """Haystack before 3.2 merges filters into those of the component."""
    initial = {"operator": "AND", "conditions": [{"field": "id", "operator": "!=", "value": "none"}]}
    retriever = SparseRetriever(
        small_store, model=small_model_folder, filters=initial, filter_policy="merge", top_k=100
    )
    embedding = small_embeddings[0].tolist()
    before = retriever.run(query_embedding=embedding)["documents"]
    some = {"field": "id", "operator": "==", "value": before[0].id}
    assert len(retriever.run(query_embedding=embedding, filters=some)["documents"]) == 1
    assert retriever.run(query_embedding=embedding)["documents"] == before
    assert len(retriever.to_dict()["init_parameters"]["filters"]["conditions"]) == 1


def test_what_a_query_lacks_is_said(store, small_model_folder, small_embeddings):
    with pytest.raises(ValueError, match="exactly one"):
        SparseRetriever(store).run()
    with pytest.raises(ValueError, match="exactly one"):
        SparseRetriever(store).run(query="wing")
    with pytest.raises(ValueError, match="exactly one"):
        SparseRetriever(store).run(key_tokens={}, query_sparse_embedding=SparseEmbedding([], []))
    with pytest.raises(ValueError, match="`model`"):
        SparseRetriever(store).run(query_embedding=small_embeddings[0].tolist())
    with pytest.raises(ValueError, match="`query_embedding`"):
        SparseRetriever(store, dense_weight=1.0).run(key_tokens={"wave": 1.0})
    embedding = small_embeddings[0].tolist()
    for others in ({"key_tokens": {"wave": 1.0}}, {"query_sparse_embedding": SparseEmbedding([0], [1.0])}):
        with pytest.raises(ValueError, match="exactly one"):
            SparseRetriever(store).run(query_embedding=embedding, **others)
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
def test_a_document_whose_field_holds_something_else_is_named_and_stops_nothing(value, store, caplog):
    retriever = SparseRetriever(store, bm25_weight=1.0, return_key_tokens=True)
    expected = search(retriever, {"wave": 1.0}, query="")
    store.write_documents([Document(id="odd", content="zebra", meta={"key_tokens": value})])
    for _ in range(2):
        assert search(retriever, {"wave": 1.0}, query="") == expected
        (hit,) = retriever.run(key_tokens={}, query="zebra")["documents"]
        assert (hit.id, hit.meta["key_tokens"]) == ("odd", value)
    (record,) = (record for record in caplog.records if "key tokens" in record.message)
    assert re.search(rf"'odd'.*{type(value).__name__}", record.message)
    store.write_documents([Document(id="odd", meta={"key_tokens": {"wave": 9.0}})], DuplicatePolicy.OVERWRITE)
    assert search(retriever, {"wave": 1.0}, query="")[0] == ("odd", 9.0)


@pytest.mark.parametrize("weight", [-1.0, 0.0, float("nan"), float("inf"), 1e-40, None])
def test_a_document_with_a_weight_that_no_engine_stores_is_named_and_stops_nothing(weight, store, caplog):
    retriever = SparseRetriever(store)
    expected = search(retriever, {"wave": 1.0})
    bad = Document(id="bad", meta={"key_tokens": {"wave": 1.0, "odd": weight}})
    store.write_documents([Document(id="new", meta={"key_tokens": {"heat": 1.0}}), bad])
    for _ in range(2):
        assert search(retriever, {"wave": 1.0}) == expected
        assert "new" in dict(search(retriever, {"heat": 1.0}))
    (record,) = (record for record in caplog.records if "key tokens" in record.message)
    assert "'bad'" in record.message
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


def test_closing_does_not_disturb_other_threads(small_store, small_model_folder, small_embeddings):
    retriever = SparseRetriever(small_store, model=small_model_folder, dense_weight=1.0, bm25_weight=0.1)
    inputs = [{"query_embedding": embedding, "query": "wing"} for embedding in small_embeddings[:20].tolist()]
    expected = [retriever.run(**arguments) for arguments in inputs]
    done = threading.Event()

    def close() -> None:
        while not done.is_set():
            retriever.close()

    closing = threading.Thread(target=close)
    closing.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            for _ in range(3):
                assert list(pool.map(lambda arguments: retriever.run(**arguments), inputs)) == expected
    finally:
        done.set()
        closing.join()


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
