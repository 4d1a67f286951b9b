# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Key tokens, dense vectors and BM25 in one request: the same sums, part by part, in every store."""

import asyncio
import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest
from haystack import Document
from haystack.document_stores.errors import DocumentStoreError
from haystack_integrations.components.retrievers.elasticsearch import ElasticsearchEmbeddingRetriever
from helpers.rankings import stored
from helpers.retrieval import dot_product, own_bm25_retriever
from nodes.gate import Gate
from nodes.stores import DENSE_STORES, connection_to, engine_of

from haystack_integrations.components.embedders.keytok import KeyTokenSparseEmbedder
from haystack_integrations.components.retrievers.keytok import SparseRetriever
from keytok_haystack.engines import MappingError
from keytok_haystack.engines.opensearch import OpenSearchServer
from keytok_haystack.engines.server import NamedScores, Server
from keytok_haystack.evaluation.measures import mean_ndcg

WITH_DENSE = ("in-memory", *DENSE_STORES)


@pytest.fixture(scope="module")
def written(cranfield, cranfield_documents, cranfield_model_folder) -> list[Document]:
    """All of Cranfield; every hundredth document has no vector."""
    documents = [
        Document(id=key, content=text, embedding=embedding.tolist(), meta={"odd": int(key) % 2})
        for (key, text), embedding in zip(cranfield.documents.items(), cranfield_documents.embeddings, strict=True)
    ]
    return KeyTokenSparseEmbedder(cranfield_model_folder, progress_bar=False).run(documents=documents)["documents"]


@pytest.fixture(scope="module", params=WITH_DENSE)
def store(request, make_store, cranfield_model, written):
    store = make_store(request.param, dimension=384, model=cranfield_model)
    store.write_documents([*written])
    return store


@pytest.fixture(scope="module")
def in_memory(make_store, written):
    store = make_store("in-memory")
    store.write_documents([*written])
    return store


def parts_of(hits: list[Document]) -> dict[str, dict[str, float]]:
    return {hit.id: {name: part["score"] for name, part in hit.meta["score_parts"].items()} for hit in hits}


def test_the_sums_and_their_parts_are_the_same_in_every_store(
    store, in_memory, written, cranfield, cranfield_documents, cranfield_queries, cranfield_model_folder
):
    options = {"model": cranfield_model_folder, "dense_weight": 1.5, "bm25_weight": 0.05, "rescored": 100}
    retriever, reference = SparseRetriever(store, **options), SparseRetriever(in_memory, **options)
    by_id = {document.id: document for document in written}
    normalized = cranfield_documents.embeddings / np.linalg.norm(cranfield_documents.embeddings, axis=1, keepdims=True)
    cosines_of = dict(zip(by_id, normalized, strict=True))
    own_bm25 = own_bm25_retriever(store)
    for position, text in [*enumerate(cranfield.queries.values())][::25]:
        embedding = cranfield_queries.embeddings[position]
        query = {"query_embedding": embedding.tolist(), "query": text, "top_k": 100}
        result = retriever.run(**query)
        hits, tokens = result["documents"], result["key_tokens"]
        assert len(hits) == 100
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        expected = {hit.id: hit for hit in reference.run(**query)["documents"]}
        # the last may change places
        assert len(expected.keys() & {hit.id for hit in hits}) >= 99
        parts = parts_of(hits)
        for hit in hits:
            cosine = float(cosines_of[hit.id] @ embedding) / float(np.linalg.norm(embedding))
            assert parts[hit.id]["dense"] == pytest.approx(1.5 * cosine, rel=1e-5, abs=1e-5)
            keyed = dot_product(by_id[hit.id].meta["key_tokens"], tokens)
            assert parts[hit.id]["key_tokens"] == pytest.approx(keyed, rel=1e-5, abs=1e-5)
            assert sum(parts[hit.id].values()) == pytest.approx(hit.score, rel=1e-5, abs=1e-5)
            if hit.id in expected:
                assert hit.score == pytest.approx(expected[hit.id].score, rel=1e-5, abs=1e-5)
                assert parts[hit.id] == pytest.approx(parts_of([expected[hit.id]])[hit.id], rel=1e-5, abs=1e-5)
        if "Elasticsearch" in type(store).__name__ or "OpenSearch" in type(store).__name__:
            factor = 0.05 / (2.2 if "Elasticsearch" in type(store).__name__ else 1)
            for hit in own_bm25.run(query=text, top_k=20)["documents"]:
                if hit.id in parts:
                    assert parts[hit.id]["bm25"] == pytest.approx(factor * hit.score, rel=1e-5)
        for name in ("key_tokens", "bm25", "dense"):
            by_rank = sorted(hits, key=lambda hit, name=name: hit.meta["score_parts"][name]["rank"])
            assert [hit.meta["score_parts"][name]["rank"] for hit in by_rank] == list(range(1, 101))
            scores = [hit.meta["score_parts"][name]["score"] for hit in by_rank]
            assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("store", ["in-memory", "opensearch-knn", "elasticsearch-9"], indirect=True)
def test_the_defaults_beat_dense_vectors_and_key_tokens(
    store, cranfield, cranfield_documents, cranfield_queries, cranfield_model_folder
):
    key_tokens = KeyTokenSparseEmbedder(cranfield_model_folder)
    texts, embeddings = list(cranfield.queries.values()), cranfield_queries.embeddings.tolist()
    tokens = [
        key_tokens.run(embedding=embedding, text=text)["key_tokens"]
        for embedding, text in zip(embeddings, texts, strict=True)
    ]
    retriever = SparseRetriever(store, dense_weight=1.5, bm25_weight=0.05)
    found = retriever.run_batch(tokens, texts, query_embeddings=embeddings)["documents"]
    position = {key: i for i, key in enumerate(cranfield.documents)}
    scores = np.zeros((len(texts), len(position)))
    for row, hits in zip(scores, found, strict=True):
        for hit in hits:
            row[position[hit.id]] = hit.score
    assert mean_ndcg(cranfield, scores) == pytest.approx(0.434, abs=0.002)


def small_documents(dimension: int = 4) -> list[Document]:
    """Twenty documents with random vectors; the first three have none, the last three no word of the queries."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(20, dimension))
    return [
        Document(
            id=f"d{i:02}",
            content="rest" if i > 16 else f"wing word{i % 3}",
            embedding=vector.tolist() if i > 2 else None,
            meta={"kind": i % 2, "key_tokens": {"rest": 1.0} if i > 16 else {"a": 1 + i / 64, "b": 0.5}},
        )
        for i, vector in enumerate(vectors)
    ]


QUERY = {"key_tokens": {"a": 1.0}, "query": "word1", "query_embedding": [0.3, -0.2, 0.5, 1.0]}


def expected_scores(documents: list[Document], dense_weight: float) -> dict[str, float]:
    query = np.array(QUERY["query_embedding"])
    scores = {}
    for document in documents:
        score = dot_product(document.meta["key_tokens"], QUERY["key_tokens"])
        if document.embedding is not None:
            vector = np.array(document.embedding)
            score += dense_weight * float(vector @ query / np.linalg.norm(vector) / np.linalg.norm(query))
        scores[document.id] = score
    return scores


@pytest.fixture(scope="module", params=WITH_DENSE)
def small(request, make_store):
    store = make_store(request.param, dimension=4)
    store.write_documents(small_documents())
    return store


def test_a_document_without_a_vector_has_a_cosine_of_0(small):
    retriever = SparseRetriever(small, dense_weight=3.0, top_k=20)
    hits = retriever.run(key_tokens=QUERY["key_tokens"], query_embedding=QUERY["query_embedding"])["documents"]
    expected = expected_scores(small_documents()[:17], 3.0)
    assert {hit.id: hit.score for hit in hits} == pytest.approx(expected, abs=1e-5)
    without = [hit for hit in hits if hit.id < "d03"]
    assert [hit.meta["score_parts"]["dense"]["score"] for hit in without] == pytest.approx([0, 0, 0], abs=1e-5)


@pytest.mark.parametrize("bm25_weight", [0.0, 0.5])
def test_the_nearest_are_found_too_and_no_score_depends_on_their_number(bm25_weight, small):
    everything = {}
    for nearest in (0, 1, 4, 16):
        retriever = SparseRetriever(
            small, dense_weight=3.0, bm25_weight=bm25_weight, top_k=20, rescored=20, nearest=nearest
        )
        hits = retriever.run(**QUERY)["documents"]
        for hit in hits:
            everything.setdefault(hit.id, []).append(hit.score)
        assert {f"d{i:02}" for i in range(17)} <= {hit.id for hit in hits}, "all have the token a"
    assert everything.keys() == {f"d{i:02}" for i in range(20)}, "all of them are among the 16 nearest"
    for scores in everything.values():
        assert scores == pytest.approx([scores[0]] * len(scores), abs=1e-5)
    if not bm25_weight:
        expected = expected_scores(small_documents(), 3.0)
        assert {key: scores[0] for key, scores in everything.items()} == pytest.approx(expected, abs=1e-5)


def test_vectors_without_a_graph_are_searched_by_all_on_elasticsearch_9(make_store):
    """And kept once, beside the documents that are read."""
    kind = "elasticsearch-9"
    definition = make_store.definition(kind, dimension=4, model=None, field="key_tokens", graph=False, lean=True)
    store = make_store(kind, definition=definition)
    store.write_documents(small_documents())
    assert all(document.embedding is None for document in store.filter_documents())
    embedding = QUERY["query_embedding"]
    hits = ElasticsearchEmbeddingRetriever(document_store=store, top_k=5).run(query_embedding=embedding)["documents"]
    vectors = {document.id: np.array(document.embedding) for document in small_documents() if document.embedding}
    cosines = {key: v @ embedding / np.linalg.norm(v) / np.linalg.norm(embedding) for key, v in vectors.items()}
    assert [hit.id for hit in hits] == sorted(cosines, key=lambda key: -cosines[key])[:5]


@pytest.mark.parametrize("kind", DENSE_STORES)
def test_no_graph_is_needed(kind, make_store):
    """The same scores from an index in which vectors lie without one."""
    query = {"key_tokens": QUERY["key_tokens"], "query_embedding": QUERY["query_embedding"]}
    definition = make_store.definition(kind, dimension=4, model=None, field="key_tokens", graph=False)
    store = make_store(kind, definition=definition)
    store.write_documents(small_documents())
    hits = SparseRetriever(store, dense_weight=3.0, top_k=20).run(**query)["documents"]
    expected = expected_scores(small_documents()[:17], 3.0)
    assert {hit.id: hit.score for hit in hits} == pytest.approx(expected, abs=1e-5)


def test_only_as_many_as_are_rescored_can_be_hits(small):
    retriever = SparseRetriever(small, dense_weight=100.0, top_k=2, rescored=5)
    best = sorted(small_documents()[:17], key=lambda d: -stored(d.meta["key_tokens"]["a"]))[:5]
    expected = sorted(expected_scores(best, 100.0).items(), key=lambda item: -item[1])[:2]
    hits = retriever.run(key_tokens=QUERY["key_tokens"], query_embedding=QUERY["query_embedding"])["documents"]
    assert [(hit.id, pytest.approx(hit.score, abs=1e-4)) for hit in hits] == expected


@pytest.mark.parametrize("nearest", [0, 10])
def test_filters_are_for_all_parts(nearest, small):
    retriever = SparseRetriever(small, dense_weight=3.0, bm25_weight=0.5, top_k=20, nearest=nearest)
    filters = {"field": "meta.kind", "operator": "==", "value": 1}
    every = {hit.id: hit.score for hit in retriever.run(**QUERY)["documents"]}
    some = {hit.id: hit.score for hit in retriever.run(**QUERY, filters=filters)["documents"]}
    assert {int(key[1:]) % 2 for key in some} == {1}
    assert some == pytest.approx({key: every[key] for key in some if key in every} | some, abs=1e-5)


async def test_run_async_and_run_batch_are_run(small):
    retriever = SparseRetriever(small, dense_weight=3.0, bm25_weight=0.5, nearest=3)
    expected = retriever.run(**QUERY)
    assert await retriever.run_async(**QUERY) == expected
    batch = retriever.run_batch(
        [QUERY["key_tokens"]] * 2, [QUERY["query"]] * 2, query_embeddings=[QUERY["query_embedding"]] * 2
    )
    assert batch["documents"] == [expected["documents"]] * 2
    with pytest.raises(ValueError, match="2 queries, but 1 embeddings"):
        retriever.run_batch([{}, {}], ["", ""], query_embeddings=[[1.0, 0.0, 0.0, 0.0]])
    await retriever.close_async()
    retriever.close()


def test_a_vector_of_another_dimension_is_refused(small):
    retriever = SparseRetriever(small, dense_weight=1.0)
    with pytest.raises((ValueError, DocumentStoreError), match=r"dimension|length"):
        retriever.run(key_tokens={"a": 1.0}, query_embedding=[1.0, 2.0])


@pytest.mark.parametrize("kind", ["opensearch-knn", "elasticsearch-9"])
def test_an_index_without_vectors_is_refused_in_one_sentence(kind, make_store):
    retriever = SparseRetriever(make_store(kind), dense_weight=1.0)
    with pytest.raises(MappingError, match=r"no dense vectors.*set it to 0.*keytok mapping --create"):
        retriever.warm_up()


def test_an_opensearch_that_scores_cosines_in_another_way_is_refused():
    class Client:
        def __init__(self, version: str) -> None:
            self.version = version

        def info(self) -> dict:
            return {"version": {"number": self.version}}

    server = OpenSearchServer(None)

    def version(number: str) -> tuple[int, int]:
        return server.version(Client(number))

    with pytest.raises(MappingError, match="does not tell its version"):  # 2.19, say, that answers as Elasticsearch
        server.check_cosines(version("7.10.2"))
    assert server.named_scores(version("7.10.2")) == NamedScores(tokens=False, rescoring=False)
    assert server.named_scores(version("2.19.1")) == NamedScores(tokens=True, rescoring=False)
    assert server.named_scores(version("3.2.0")) == NamedScores(tokens=True, rescoring=True)
    for number in ("2.19.0", "3.5.0", "10.0.0-SNAPSHOT"):
        server.check_cosines(version(number))
    for number in ("1.3.20", "2.9.0", "2.18.0"):
        with pytest.raises(MappingError, match=rf"2\.19 or later.*{re.escape(number.rpartition('.')[0])}"):
            server.check_cosines(version(number))


@pytest.mark.parametrize("kind", ["opensearch-knn", "elasticsearch-9"])
def test_bm25_searches_the_content_field(kind, make_store):
    definition = make_store.definition(kind, dimension=None, model=None, field="key_tokens")
    definition["mappings"]["properties"]["body"] = {"type": "text"}
    store = make_store(kind, definition=definition)
    store.write_documents(
        [
            Document(id="a", content="lift", meta={"body": "wing", "key_tokens": {"x": 1.0}}),
            Document(id="b", content="wing", meta={"body": "lift", "key_tokens": {"x": 1.0}}),
        ]
    )
    for field, expected in (("content", "b"), ("body", "a")):
        retriever = SparseRetriever(store, bm25_weight=1.0, content_field=field)
        (hit,) = retriever.run(key_tokens={}, query="wing")["documents"]
        assert hit.id == expected


@pytest.mark.parametrize("kind", ["opensearch-knn", "elasticsearch-9"])
def test_a_question_of_more_words_than_an_engine_allows_is_answered(kind, make_store, caplog):
    store = make_store(kind)
    store.write_documents([Document(id="a", content="wing", meta={"key_tokens": {"x": 0.5}})])
    retriever = SparseRetriever(store, bm25_weight=1.0)
    long = "wing " + " ".join(f"word{i}" for i in range(40_000))
    (hit,) = retriever.run(key_tokens={"x": 1.0}, query=long)["documents"]
    parts = parts_of([hit])["a"]
    assert parts["key_tokens"] == pytest.approx(0.5)
    assert parts["bm25"] > 0
    first, second = retriever.run_batch([{"x": 1.0}] * 2, ["wing", long])["documents"]
    assert [hit.id for hit in (*first, *second)] == ["a", "a"]
    assert sum("words are searched for" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize("kind", ["opensearch-knn", "elasticsearch-9"])
def test_an_alias_that_is_moved_to_the_index_of_another_model_is_noticed(
    kind, make_store, small_model_folder, other_model, small_model
):
    right, wrong = make_store(kind, model=small_model), make_store(kind, model=other_model)
    alias = f"{right._index}-alias"
    for store in (right, wrong):
        store.write_documents([Document(id="a", content="x", meta={"key_tokens": {"wing": 1.0}})])
    with connection_to(engine_of(kind), make_store.url(kind), alias) as connection:
        indices = connection.client.indices
        indices.put_alias(index=right._index, name=alias)
        store = type(right).from_dict(
            {**right.to_dict(), "init_parameters": {**right.to_dict()["init_parameters"], "index": alias}}
        )
        retriever = SparseRetriever(store, model=small_model_folder)
        assert len(retriever.run(key_tokens={"wing": 1.0})["documents"]) == 1
        actions = [
            {"remove": {"index": right._index, "alias": alias}},
            {"add": {"index": wrong._index, "alias": alias}},
        ]
        indices.update_aliases(body={"actions": actions})
        for tokens in ({"wing": 1.0}, {"nothing": 1.0}):
            with pytest.raises(MappingError, match="is written with the key-token model"):
                retriever.run(key_tokens=tokens)


@pytest.mark.parametrize("kind", ["opensearch-knn", "elasticsearch-9"])
async def test_an_engine_that_never_answers_is_given_up(kind, make_store):
    store = make_store(kind)
    store.write_documents([Document(id="a", content="x", meta={"key_tokens": {"wing": 1.0}})])
    waiting = 3.0

    def wait(path: str, body: bytes) -> None:
        if "_search" in path or "_msearch" in path:
            time.sleep(waiting)

    with closing(Gate(make_store.url(kind))) as gate:
        parameters = store.to_dict()["init_parameters"]
        behind = type(store).from_dict({**store.to_dict(), "init_parameters": {**parameters, "hosts": gate.url}})
        retriever = SparseRetriever(behind, timeout=0.3)
        assert len(retriever.run(key_tokens={"wing": 1.0})["documents"]) == 1
        gate.asked = wait
        started = time.monotonic()
        with pytest.raises(DocumentStoreError):
            retriever.run(key_tokens={"wing": 1.0})
        with pytest.raises(DocumentStoreError):
            retriever.run_batch([{"wing": 1.0}])
        with pytest.raises(DocumentStoreError):
            await retriever.run_async(key_tokens={"wing": 1.0})
        assert time.monotonic() - started < 2 * waiting
        await retriever.close_async()


def test_documents_are_found_by_bm25_where_a_query_has_no_key_tokens(small):
    """Beside cosines, BM25 is added to the scores of documents that key tokens have found, and finds none itself."""
    retriever = SparseRetriever(small, dense_weight=3.0, bm25_weight=0.5, top_k=20)
    by_tokens = retriever.run(**(QUERY | {"key_tokens": {"b": 1.0}, "query": "rest"}))["documents"]
    assert {hit.id for hit in by_tokens} == {f"d{i:02}" for i in range(17)}
    by_words = retriever.run(**(QUERY | {"key_tokens": {}, "query": "rest"}))["documents"]
    assert {hit.id for hit in by_words} == {"d17", "d18", "d19"}
    assert all(hit.meta["score_parts"]["bm25"]["score"] > 0 for hit in by_words)


@pytest.mark.parametrize("kind", ["opensearch-knn", "elasticsearch-9"])
def test_run_async_in_several_event_loops(kind, make_store):
    store = make_store(kind)
    store.write_documents([Document(id=key, content="x", meta={"key_tokens": {"wing": 1.0}}) for key in "abc"])
    retriever = SparseRetriever(store)

    async def find(*, ends: bool) -> set[str]:
        found = await asyncio.gather(*(retriever.run_async(key_tokens={"wing": 1.0}) for _ in range(3)))
        if ends:
            await retriever.close_async()
        return {hit.id for answer in found for hit in answer["documents"]}

    for ends in (False, False, True, True):  # one loop after the other
        assert asyncio.run(find(ends=ends)) == {*"abc"}
    with ThreadPoolExecutor(4) as pool:  # and several at once
        running = [pool.submit(lambda ends: asyncio.run(find(ends=ends)), i % 2 == 0) for i in range(12)]
        assert all(each.result() == {*"abc"} for each in running)
    retriever.close()
    assert retriever._adapter._stores == {}


@pytest.mark.parametrize("kind", ["opensearch-knn", "elasticsearch-9"])
@pytest.mark.parametrize(
    "told", [NamedScores(tokens=False, rescoring=False), NamedScores(tokens=True, rescoring=False)]
)
def test_an_engine_that_tells_less_finds_and_explains_the_same(kind, told, make_store, monkeypatch):
    store = make_store(kind, dimension=4)
    random = np.random.default_rng(3)
    words = [f"w{i}" for i in range(20)]
    store.write_documents(
        [
            Document(
                id=f"{i:02}",
                content=" ".join(random.choice(words, 5)),
                embedding=random.normal(size=4).tolist(),
                meta={"key_tokens": {word: float(random.random()) + 0.1 for word in random.choice(words, 6)}},
            )
            for i in range(40)
        ]
    )
    query = {
        "key_tokens": {word: float(random.random()) + 0.01 for word in words},
        "query": "w1 w2 w3",
        "query_embedding": random.normal(size=4).tolist(),
        "top_k": 30,
    }
    for weights in ({}, {"bm25_weight": 0.3}, {"dense_weight": 2.0}, {"dense_weight": 2.0, "bm25_weight": 0.3}):
        asked = {key: value for key, value in query.items() if key != "query_embedding" or "dense_weight" in weights}
        expected = SparseRetriever(store, first_phase=1.0, **weights).run(**asked)["documents"]
        with monkeypatch.context() as patch:
            patch.setattr(Server, "named_scores", lambda *_: told)
            hits = SparseRetriever(store, **weights).run(**asked)["documents"]
        assert [hit.id for hit in hits] == [hit.id for hit in expected]
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in expected], rel=1e-5)
        assert [hit.meta["matched_tokens"] for hit in hits] == [hit.meta["matched_tokens"] for hit in expected]
        for hit, other in zip(hits, expected, strict=True):
            parts, known = hit.meta.get("score_parts", {}), other.meta.get("score_parts", {})
            if "bm25_and_dense" in parts:
                together = known["bm25"]["score"] + known["dense"]["score"]
                assert parts["bm25_and_dense"]["score"] == pytest.approx(together, abs=1e-4)
            else:
                assert {name: part["score"] for name, part in parts.items()} == pytest.approx(
                    {name: part["score"] for name, part in known.items()}, abs=1e-4
                )


@pytest.mark.parametrize("kind", ["opensearch-knn", "elasticsearch-9"])
def test_as_many_hits_as_an_engine_allows(kind, make_store):
    store = make_store(kind)
    tokens = {f"w{i}": 1.0 for i in range(20)}
    store.write_documents([Document(id=key, content="x", meta={"key_tokens": tokens}) for key in "abc"])
    for top_k in (5000, 5001, 10_000):
        assert len(SparseRetriever(store, top_k=top_k).run(key_tokens=tokens)["documents"]) == 3
