# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""SparseRetriever over stores that keep sparse embeddings, Qdrant and Milvus, embedded: what it promises elsewhere."""

import asyncio
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from haystack import Document, Pipeline
from haystack.components.embedders import MockTextEmbedder
from haystack.dataclasses import SparseEmbedding
from haystack.document_stores.errors import DocumentStoreError
from haystack.document_stores.types import DuplicatePolicy
from haystack_integrations.components.retrievers.qdrant import QdrantEmbeddingRetriever, QdrantSparseEmbeddingRetriever
from haystack_integrations.document_stores.qdrant import QdrantDocumentStore
from helpers.filters import any_filters
from helpers.rankings import assert_same_hits
from helpers.retrieval import assert_matched, assert_ranking, dot_products, own_meta, pairs
from helpers.servers import chat_server
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from milvus_haystack import MilvusDocumentStore, MilvusSparseEmbeddingRetriever

from haystack_integrations.components.embedders.keytok import KeyTokenSparseEmbedder
from haystack_integrations.components.retrievers.keytok import (
    KeyTokenExplainer,
    KeyTokenHybridRetriever,
    SparseRetriever,
)
from keytok_haystack import pipeline_yaml
from keytok_haystack.engines import MappingError
from keytok_haystack.utils.resources import resource

STORES = ("qdrant", "milvus")
OWN = {"qdrant": QdrantSparseEmbeddingRetriever, "milvus": MilvusSparseEmbeddingRetriever}


def new_store(kind: str, folder: Path, dimension: int, **options):
    if kind == "qdrant":
        return QdrantDocumentStore(
            **{"location": ":memory:", "use_sparse_embeddings": True, "embedding_dim": dimension} | options,
            progress_bar=False,
        )
    return MilvusDocumentStore(
        connection_args={"uri": str(folder / "milvus.db")}, sparse_vector_field="sparse_embedding", **options
    )


@pytest.fixture(scope="module", params=STORES)
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def written(cranfield, cranfield_documents, cranfield_model_folder) -> list[Document]:
    """Some documents of Cranfield; the last one has a word that is new to the model, and keys with dots."""
    documents = [
        Document(id=key, content=text, embedding=embedding.tolist(), meta={"year": 1950 + int(key) % 7, "odd": "yes"})
        for (key, text), embedding in zip(cranfield.documents.items(), cranfield_documents.embeddings, strict=True)
    ][::5]
    documents[-1] = replace(documents[-1], content="Turbopumps at mach 7.25, c++ and 100%", meta={"deep": {"n": 1}})
    embedder = KeyTokenSparseEmbedder(cranfield_model_folder, return_sparse_embedding=True, progress_bar=False)
    return embedder.run(documents=documents)["documents"]


@pytest.fixture(scope="module")
def store(kind, written, tmp_path_factory):
    """A store that tests only read."""
    store = new_store(kind, tmp_path_factory.mktemp(kind), 384)
    store.write_documents(deepcopy(written))
    return store


@pytest.fixture(scope="module")
def retriever(store, cranfield_model_folder) -> SparseRetriever:
    return SparseRetriever(store, model=cranfield_model_folder, top_k=50)


@pytest.fixture(scope="module")
def queries(cranfield, cranfield_queries) -> list[dict]:
    texts = [*list(cranfield.queries.values())[::10], "turbopumps at 7.25 in c++, 100%"]
    embeddings = [*cranfield_queries.embeddings[::10].tolist(), cranfield_queries.embeddings[0].tolist()]
    return [{"query_embedding": embedding, "query": text} for embedding, text in zip(embeddings, texts, strict=True)]


def assert_is_the_best(hits: list[Document], expected: dict[str, float], rel: float = 1e-5) -> None:
    """The hits have these scores, the best of all; equal ones are in any order."""
    best = sorted(expected.values(), reverse=True)[: len(hits)]
    assert [hit.score for hit in hits] == pytest.approx(best, rel=rel)
    assert [expected[hit.id] for hit in hits] == pytest.approx(best, rel=rel)


def test_scores_are_dot_products_explained_by_the_tokens(retriever, queries, written):
    by_id = {document.id: document for document in written}
    for query in queries:
        result = retriever.run(**query)
        hits, tokens = result["documents"], result["key_tokens"]
        expected = dot_products(tokens, written)
        assert len(hits) == min(50, len(expected))
        assert_is_the_best(hits, expected)
        for hit in hits:
            assert_matched(hit, tokens, by_id[hit.id].meta["key_tokens"])
    assert {"turbopump", "7.25", "c++"} <= {match["token"] for match in hits[0].meta["matched_tokens"]}


def test_the_store_s_own_retriever_finds_the_same_and_can_be_explained(
    kind, store, retriever, queries, cranfield_model_folder
):
    own = OWN[kind](document_store=store, top_k=10)
    for query in queries[::5]:
        encoded = KeyTokenSparseEmbedder(cranfield_model_folder).run(
            embedding=query["query_embedding"], text=query["query"]
        )
        hits = own.run(query_sparse_embedding=encoded["sparse_embedding"])["documents"]
        expected = retriever.run(**query, top_k=10)
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in expected["documents"]])
        explained = KeyTokenExplainer().run(hits, encoded["key_tokens"], encoded["meta"])["documents"]
        same = {hit.id: hit for hit in KeyTokenExplainer().run(**expected)["documents"]}
        for hit in explained:
            assert [match["token"] for match in hit.meta["matched_tokens"]]
            assert "key_tokens" not in hit.meta
            if hit.id in same:
                assert hit.meta["missing"] == same[hit.id].meta["missing"]


def test_hits_are_the_documents_that_were_written(kind, store, written, queries, cranfield_model_folder):
    by_id = {document.id: document for document in written}
    whole, lean = (
        SparseRetriever(store, model=cranfield_model_folder, return_key_tokens=answer).run(**queries[-1])["documents"]
        for answer in (True, False)
    )
    assert len(whole) == len(lean) == 10
    for hit, short in zip(whole, lean, strict=True):
        document = by_id[hit.id]
        assert (hit.content, own_meta(hit)) == (document.content, document.meta)
        assert own_meta(short) == {key: value for key, value in document.meta.items() if key != "key_tokens"}
        assert (short.embedding is None) == (short.sparse_embedding is None) == (kind == "qdrant")
    assert {"7%2E25", "c++"} <= whole[0].meta["key_tokens"].keys()


def test_required_tokens_are_refused(retriever):
    with pytest.raises(ValueError, match="leave `required_tokens` out"):
        retriever.run(key_tokens={"shock": 1.0}, required_tokens=["shock"])


def test_top_k(retriever, queries):
    everything = pairs(retriever.run(**queries[0])["documents"])
    assert [score for _, score in pairs(retriever.run(**queries[0], top_k=3)["documents"])] == [
        score for _, score in everything[:3]
    ]
    assert retriever.run(**queries[0], top_k=0)["documents"] == []


@pytest.mark.parametrize("tokens", [{}, {"nowhere-else": 1.0}, {"": 1.0}])
def test_a_query_that_shares_no_token_finds_nothing(tokens, retriever):
    assert retriever.run(key_tokens=tokens)["documents"] == []
    filters = {"field": "meta.year", "operator": ">", "value": 0}
    assert retriever.run(key_tokens=tokens, filters=filters)["documents"] == []


VALUES = {
    "meta.year": st.sampled_from([1949, 1952, 1955]),
    "meta.odd": st.sampled_from(["yes", "no"]),
    "meta.deep.n": st.sampled_from([1, 2]),
    "id": st.sampled_from(["1", "4", "none"]),
}


@pytest.fixture(scope="module")
def few(kind, written, tmp_path_factory):
    """A store of forty documents."""
    store = new_store(kind, tmp_path_factory.mktemp(kind), 384)
    store.write_documents(deepcopy([*written[:39], written[-1]]))
    return store


@given(filters=any_filters(VALUES))
@settings(max_examples=30, suppress_health_check=[HealthCheck.filter_too_much])
def test_any_filter_means_what_it_means_to_the_store(few, cranfield_model_folder, filters):
    # a query and a search of milvus-lite take negations, of fields that a document lacks, and empty lists differently
    differs = any(word in repr(filters) for word in ("not in", "!=", "NOT", "[]"))
    assume(isinstance(few, QdrantDocumentStore) or not differs)
    retriever = SparseRetriever(few, model=cranfield_model_folder, top_k=40)
    query = {"key_tokens": {"flow": 1.0, "wing": 0.5, "pressure": 0.25, "c++": 1.0}}
    try:
        allowed = {document.id for document in few.filter_documents(filters)}
    except Exception:  # whatever the store raises
        with pytest.raises(Exception, match=r"."):
            retriever.run(**query, filters=filters)
        return
    expected = [hit for hit in retriever.run(**query)["documents"] if hit.id in allowed]
    assert_ranking(pairs(retriever.run(**query, filters=filters)["documents"]), dict(pairs(expected)))


def test_run_batch_and_run_async_are_run(retriever, queries):
    queries = queries[::6]
    answers = [retriever.run(**query, top_k=5) for query in queries]
    batch = retriever.run_batch([answer["key_tokens"] for answer in answers], top_k=5)["documents"]
    for answer, hits in zip(answers, batch, strict=True):
        assert_same_hits(hits, answer["documents"])

    async def many():
        return await asyncio.gather(*(retriever.run_async(**query, top_k=5) for query in queries))

    for answer, asynchronous in zip(answers, asyncio.run(many()), strict=True):
        assert_same_hits(asynchronous["documents"], answer["documents"])
        assert asynchronous["meta"] == answer["meta"]


def test_a_query_sparse_embedding_is_a_form_of_the_query(retriever, queries, cranfield_model_folder):
    query = queries[-1]
    vector = KeyTokenSparseEmbedder(cranfield_model_folder).run(
        embedding=query["query_embedding"], text=query["query"]
    )["sparse_embedding"]
    found = retriever.run(query_sparse_embedding=vector, query=query["query"])
    expected = retriever.run(**query)
    assert found["key_tokens"] == pytest.approx(expected["key_tokens"], abs=1e-6)
    assert dict(pairs(found["documents"])) == pytest.approx(dict(pairs(expected["documents"])), rel=1e-5)


def test_overwriting_replaces_tokens_and_deleting_removes_the_document(
    kind, tmp_path, small_model_folder, small_texts, small_embeddings
):
    store = new_store(kind, tmp_path, 8)
    embedder = KeyTokenSparseEmbedder(small_model_folder, return_sparse_embedding=True)

    def write(texts: dict[str, str], policy: DuplicatePolicy) -> None:
        documents = [
            Document(id=key, content=text, embedding=small_embeddings[small_texts.index(text)].tolist())
            for key, text in texts.items()
        ]
        store.write_documents(embedder.run(documents=documents)["documents"], policy)

    retriever = SparseRetriever(store, model=small_model_folder)
    write({"a": small_texts[0], "b": small_texts[1]}, DuplicatePolicy.NONE)
    query = {"query_embedding": small_embeddings[0].tolist(), "query": small_texts[0]}
    before = dict(pairs(retriever.run(**query)["documents"]))
    assert before["a"] > before["b"]
    write({"a": small_texts[1], "b": small_texts[0]}, DuplicatePolicy.OVERWRITE)
    after = dict(pairs(retriever.run(**query)["documents"]))
    assert after == pytest.approx({"a": before["b"], "b": before["a"]})
    store.delete_documents(["b"])
    assert dict(pairs(retriever.run(**query)["documents"])).keys() == {"a"}


def test_another_model_s_documents_are_refused(store, queries, small_model_folder, cranfield_model_folder, written):
    """Features of one model are others of another: without the check a search would find what nobody asked for."""
    common = max(written[0].meta["key_tokens"], key=written[0].meta["key_tokens"].get)
    assert SparseRetriever(store, model=cranfield_model_folder).run(key_tokens={common: 1.0})["documents"]
    retriever = SparseRetriever(store, model=small_model_folder)
    with pytest.raises(MappingError, match="model that the documents are written with"):
        retriever.run(key_tokens=dict.fromkeys(("shock", "wave", "heat", "wing", "lift"), 1.0))


def test_a_model_is_needed_and_there_is_no_bm25(store, cranfield_model_folder):
    with pytest.raises(ValueError, match="set `model`"):
        SparseRetriever(store).run(key_tokens={"wing": 1.0})
    with pytest.raises(ValueError, match="`bm25_weight` to 0"):
        SparseRetriever(store, model=cranfield_model_folder, bm25_weight=0.1).warm_up()


def test_a_pipeline_with_the_store_comes_back_from_yaml(kind, tmp_path, small_model_folder, monkeypatch):
    monkeypatch.setenv("HAYSTACK_DESERIALIZATION_ALLOWLIST", "milvus_haystack.*" if kind == "milvus" else "")
    pipeline = Pipeline()
    pipeline.add_component("retriever", SparseRetriever(new_store(kind, tmp_path, 8), model=small_model_folder))
    stored = pipeline.dumps()
    assert Pipeline.loads(stored).dumps() == stored


@pytest.mark.parametrize("search", ["query", "hybrid", "rag"])
def test_the_pipelines_index_find_and_explain(
    kind, search, tmp_path, monkeypatch, cranfield, embedder, cranfield_model_folder
):
    monkeypatch.setenv("HAYSTACK_DESERIALIZATION_ALLOWLIST", "milvus_haystack.*" if kind == "milvus" else "")
    monkeypatch.chdir(tmp_path)
    where = {"url": None, "path": "qdrant"} if kind == "qdrant" else {}
    options = {"model": cranfield_model_folder, "document_store": where}
    definition = pipeline_yaml(
        f"indexing.{kind}", {"document_embedder": {"model": embedder, "progress_bar": False}}, **options
    )
    indexing = Pipeline.loads(definition)
    documents = [Document(id=key, content=text) for key, text in list(cranfield.documents.items())[:30]]
    written = indexing.run({"document_embedder": {"documents": documents}})
    assert written["writer"]["documents_written"] == 30
    if kind == "qdrant":  # a folder is open once
        indexing.get_component("writer").document_store.close()

    text = documents[7].content
    asked = [name.split(".") for name in yaml.safe_load(definition_of(search, kind))["inputs"]["query"]]
    with chat_server(lambda _: "It is known [1].") as (url, _):
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        monkeypatch.setenv("OPENAI_API_KEY", "a key")
        pipeline = Pipeline.loads(pipeline_yaml(f"{search}.{kind}", {"text_embedder": {"model": embedder}}, **options))
        data = {component: {socket: text} for component, socket in asked}
        result = pipeline.run(data, include_outputs_from={"explainer"})
    hits = result["explainer"]["documents"]
    assert hits[0].id == documents[7].id
    assert len(hits) == (5 if search == "rag" else 10)
    for hit in hits[:5]:
        assert hit.meta["matched_tokens"]
        assert hit.meta["why"]
        assert "key_tokens" not in hit.meta
    assert ("score_parts" in hits[0].meta) is (kind == "qdrant" and search != "query")
    if search == "rag":
        (answer,) = result["answer_builder"]["answers"]
        assert [(source.id, source.meta["why"]) for source in answer.documents] == [(hits[0].id, hits[0].meta["why"])]


def definition_of(search: str, kind: str) -> str:
    return (resource("pipelines") / f"{search}.{kind}.yml").read_text()


# --- dense vectors beside key tokens: Qdrant


@pytest.fixture(scope="module")
def qdrant(written) -> QdrantDocumentStore:
    """All documents, of which every tenth has no dense vector and one no key tokens."""
    store = new_store("qdrant", Path(), 384)
    documents = [replace(d, embedding=None) if i % 10 == 0 else d for i, d in enumerate(deepcopy(written))]
    documents[5] = replace(documents[5], sparse_embedding=None, meta={"without": True})
    store.write_documents(documents)
    return store


def cosines(store: QdrantDocumentStore, embedding: list[float]) -> dict[str, float]:
    unit = np.array(embedding) / np.linalg.norm(embedding)
    return {
        d.id: float(unit @ np.array(d.embedding)) / float(np.linalg.norm(d.embedding)) if d.embedding else 0.0
        for d in store.filter_documents()
    }


@pytest.mark.parametrize("filters", [None, {"field": "meta.year", "operator": ">=", "value": 1953}])
@pytest.mark.parametrize("nearest", [0, 40])
def test_a_hybrid_search_is_the_weighted_sum_of_exact_parts(
    nearest, filters, qdrant, queries, written, cranfield_model_folder
):
    retriever = SparseRetriever(
        qdrant, model=cranfield_model_folder, dense_weight=1.5, rescored=30, nearest=nearest, filters=filters
    )
    allowed = {document.id for document in qdrant.filter_documents(filters)}
    without = written[5].id
    for query in queries[:-1:4]:
        result = retriever.run(**query, top_k=15)
        hits, tokens = result["documents"], result["key_tokens"]
        among = [document for document in written if document.id in allowed and document.id != without]
        keyed = dot_products(tokens, among)
        dense = cosines(qdrant, query["query_embedding"])
        found = sorted(keyed, key=lambda key, keyed=keyed: -keyed[key])[:30]
        near = sorted(allowed, key=lambda key, dense=dense: -dense[key])[:nearest]
        expected = {key: keyed.get(key, 0.0) + 1.5 * dense[key] for key in {*found, *near}}
        assert len(hits) == 15
        assert_is_the_best(hits, expected)
        for hit in hits:
            parts = {name: part["score"] for name, part in hit.meta["score_parts"].items()}
            expected_parts = {"key_tokens": keyed.get(hit.id, 0.0), "dense": 1.5 * dense[hit.id]}
            assert parts == pytest.approx(expected_parts, rel=1e-4, abs=1e-5)


def test_the_nearest_are_found_by_a_query_without_words(qdrant, queries, cranfield_model_folder):
    options = {"model": cranfield_model_folder, "dense_weight": 2.0, "top_k": 3}
    query = {"query_embedding": queries[0]["query_embedding"], "query": "of the"}
    assert SparseRetriever(qdrant, **options).run(**query)["documents"] == []
    hits = SparseRetriever(qdrant, **options, nearest=10).run(**query)["documents"]
    own = QdrantEmbeddingRetriever(document_store=qdrant, top_k=3).run(query_embedding=query["query_embedding"])
    expected = {hit.id: 2 * hit.score for hit in own["documents"]}
    assert dict(pairs(hits)) == pytest.approx(expected, rel=1e-6)


def test_the_hybrid_retriever_runs_over_qdrant(qdrant, queries, cranfield_model_folder):
    embedder = MockTextEmbedder(embedding=queries[0]["query_embedding"])
    hybrid = KeyTokenHybridRetriever(qdrant, embedder=embedder, model=cranfield_model_folder, bm25_weight=0.0)
    hits = hybrid.run(query=queries[0]["query"])["documents"]
    assert len(hits) == 10
    assert all(hit.meta["score_parts"].keys() == {"key_tokens", "dense"} and hit.meta["why"] for hit in hits)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_sparse_embeddings": False}, "`use_sparse_embeddings` to True"),
        ({"sparse_idf": True}, "`sparse_idf` to False"),
        ({"similarity": "dot_product"}, "`dense_weight` to 0"),
    ],
)
def test_a_store_whose_scores_would_be_others_is_refused(options, message, small_model_folder):
    store = new_store("qdrant", Path(), 8, **options)
    with pytest.raises(MappingError, match=message):
        SparseRetriever(store, model=small_model_folder, dense_weight=1.0).warm_up()


def test_hits_have_vectors_where_the_store_s_own_hits_have_them(written, queries, cranfield_model_folder):
    store = new_store("qdrant", Path(), 384, return_embedding=True)
    store.write_documents(deepcopy(written[:50]))
    (hit, *_) = SparseRetriever(store, model=cranfield_model_folder).run(**queries[0])["documents"]
    document = next(document for document in written if document.id == hit.id)
    unit = np.array(document.embedding) / np.linalg.norm(document.embedding)  # as Qdrant keeps it
    assert hit.embedding == pytest.approx(unit.tolist(), abs=1e-6)
    found = dict(zip(hit.sparse_embedding.indices, hit.sparse_embedding.values, strict=True))
    vector = document.sparse_embedding
    assert found == pytest.approx(dict(zip(vector.indices, vector.values, strict=True)))


def test_qdrant_in_a_folder_is_there_after_a_close(tmp_path, written, queries, cranfield_model_folder):
    store = new_store("qdrant", tmp_path, 384, location=None, path=str(tmp_path / "qdrant"))
    store.write_documents(deepcopy(written[:50]))
    retriever = SparseRetriever(store, model=cranfield_model_folder)
    expected = retriever.run(**queries[0])
    retriever.close()
    asyncio.run(retriever.close_async())
    assert retriever.run(**queries[0]) == expected
    store.close()


def test_a_server_that_is_away_is_named(small_model_folder):
    store = QdrantDocumentStore(
        url="http://localhost:1",
        use_sparse_embeddings=True,
        embedding_dim=8,
        client_kwargs={"check_compatibility": False},
    )
    with pytest.raises(DocumentStoreError, match="Qdrant cannot answer"):
        SparseRetriever(store, model=small_model_folder).run(key_tokens={"wing": 1.0})


# --- Milvus


def test_milvus_does_not_return_documents_without_key_tokens(tmp_path, small_model_folder, small_model):
    """milvus-haystack gives them a vector of its own making, whose feature is the model's first."""
    store = new_store("milvus", tmp_path, 8)
    with_token = SparseEmbedding(indices=[0], values=[0.5])
    store.write_documents([Document(id="without"), Document(id="with", sparse_embedding=with_token)])
    hits = SparseRetriever(store, model=small_model_folder).run(key_tokens={small_model.vocabulary.keys[0]: 1.0})
    assert pairs(hits["documents"]) == [("with", 0.5)]


def test_milvus_cannot_add_cosines(tmp_path, small_model_folder):
    retriever = SparseRetriever(new_store("milvus", tmp_path, 8), model=small_model_folder, dense_weight=1.0)
    with pytest.raises(ValueError, match="`dense_weight` to 0"):
        retriever.warm_up()
