# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The pipelines for OpenSearch and Elasticsearch, run on real ones; the hybrid one also behind hayhooks."""

import json
import urllib.request
from dataclasses import replace
from uuid import uuid4

import pytest
from haystack import Document
from helpers.rankings import assert_same_hits
from helpers.servers import chat_server, hayhooks
from nodes.stores import DENSE_STORES, connection_to, engine_of

from keytok_haystack import pipeline_yaml
from keytok_haystack.cli.demo import with_embeddings
from keytok_haystack.evaluation import Collection
from keytok_haystack.evaluation.measures import measure_run

PARTS = ("key_tokens", "dense", "bm25")


@pytest.fixture(scope="module", params=DENSE_STORES)
def filled(request, make_store, cranfield, cranfield_documents, cranfield_model, cranfield_model_folder, embedder):
    """An engine with all of Cranfield, written through the indexing pipeline; the overrides for the other pipelines."""
    kind, index = request.param, f"test-{uuid4().hex}"
    name, url = engine_of(kind), make_store.url(kind)
    definition = make_store.definition(kind, dimension=384, model=cranfield_model, field="key_tokens")
    with connection_to(name, url, index) as connection:
        connection.client.indices.create(index=index, body=definition)
    own = {"model": cranfield_model_folder, "document_store": {"hosts": url, "index": index}}
    own_embedder = {"document_embedder": {"model": embedder}, "key_token_embedder": {"progress_bar": False}}
    definition = pipeline_yaml(f"indexing.{name}", own_embedder, **own)
    texts = list(cranfield.documents.values())
    indexing = with_embeddings(definition, "document_embedder", texts, cranfield_documents.embeddings)
    documents = [Document(id=key, content=text) for key, text in cranfield.documents.items()]
    assert indexing.run({"documents": documents})["writer"]["documents_written"] == 1400
    yield name, own
    make_store.delete(kind, index)


def loaded(name, own, embedder, cranfield, cranfield_queries):
    definition = pipeline_yaml(name, {"text_embedder": {"model": embedder}}, **own)
    return with_embeddings(definition, "text_embedder", list(cranfield.queries.values()), cranfield_queries.embeddings)


def every_tenth(collection: Collection) -> dict[str, str]:
    return dict(list(collection.queries.items())[::10])


def test_the_query_pipeline_finds_and_explains(filled, embedder, cranfield, cranfield_queries):
    name, own = filled
    pipeline = loaded(f"query.{name}", own, embedder, cranfield, cranfield_queries)
    run = {}
    queries = cranfield.queries if name == "opensearch" else every_tenth(cranfield)
    for key, text in queries.items():
        hits = pipeline.run({"text_embedder": {"text": text}, "retriever": {"query": text}})
        hits = hits["explainer"]["documents"]
        run[key] = [(hit.id, hit.score) for hit in hits]
        for hit in hits:
            parts = [match["contribution"] for match in hit.meta["matched_tokens"]]
            assert parts == sorted(parts, reverse=True)
            assert 0 < sum(parts) <= hit.score * (1 + 1e-6)
            assert "key_tokens" not in hit.meta
    if name == "opensearch":
        assert measure_run(cranfield, run)["nDCG@10"] == pytest.approx(0.433, abs=0.001)


def test_the_hybrid_pipeline_tells_what_each_part_gave(filled, embedder, cranfield, cranfield_queries):
    name, own = filled
    pipeline = loaded(f"hybrid.{name}", own, embedder, cranfield, cranfield_queries)
    run = {}
    for key, text in every_tenth(cranfield).items():
        hits = pipeline.run({"text_embedder": {"text": text}, "retriever": {"query": text}})["explainer"]["documents"]
        run[key] = [(hit.id, hit.score) for hit in hits]
        assert len(hits) == 10
        for hit in hits:
            assert hit.meta["matched_tokens"]
            parts = hit.meta["score_parts"]
            assert sum(parts[part]["score"] for part in PARTS) == pytest.approx(hit.score, abs=1e-5)
            explained = sum(match["contribution"] for match in hit.meta["matched_tokens"])
            assert 0 < explained <= parts["key_tokens"]["score"] + 1e-5
        for part in PARTS:
            assert sorted(hit.meta["score_parts"][part]["rank"] for hit in hits) == list(range(1, 11))
    chosen = replace(cranfield, qrels={key: cranfield.qrels[key] for key in run})
    assert measure_run(chosen, run)["nDCG@10"] > 0.4


def test_the_rag_pipeline_answers_with_explained_sources(filled, embedder, cranfield, cranfield_queries, monkeypatch):
    name, own = filled
    text = cranfield.queries["1"]
    with chat_server(lambda _: "By similarity laws [2].") as (url, requests):
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        monkeypatch.setenv("OPENAI_API_KEY", "secret")
        pipeline = loaded(f"rag.{name}", own, embedder, cranfield, cranfield_queries)
        asked = {key: {"query": text} for key in ("retriever", "prompt_builder", "answer_builder")}
        result = pipeline.run({"text_embedder": {"text": text}, **asked}, include_outputs_from={"explainer"})
    hits = result["explainer"]["documents"]
    (answer,) = result["answer_builder"]["answers"]
    (source,) = answer.documents
    assert len(hits) == 5
    assert (source.id, source.meta["source_index"]) == (hits[1].id, 2)
    assert source.meta["matched_tokens"] == hits[1].meta["matched_tokens"] != []
    assert source.meta["why"].startswith("found for")
    assert f"[2] {source.content}" in requests[0]["messages"][1]["content"]


async def test_the_hybrid_pipeline_runs_asynchronously(filled, embedder, cranfield, cranfield_queries):
    name, own = filled
    pipeline = loaded(f"hybrid.{name}", own, embedder, cranfield, cranfield_queries)
    text = cranfield.queries["1"]
    data = {"text_embedder": {"text": text}, "retriever": {"query": text}}
    concurrently = await pipeline.run_async(data)
    assert_same_hits(concurrently["explainer"]["documents"], pipeline.run(data)["explainer"]["documents"])
    pipeline.get_component("retriever").close()
    await pipeline.get_component("retriever").close_async()


@pytest.mark.parametrize("filled", ["opensearch-knn"], indirect=True)
def test_three_retrievers_are_joined_by_reciprocal_rank_fusion(filled, embedder, cranfield, cranfield_queries):
    _, own = filled
    pipeline = loaded("rrf.opensearch", own, embedder, cranfield, cranfield_queries)
    text = cranfield.queries["1"]
    data = {
        "text_embedder": {"text": text},
        "key_token_embedder": {"text": text},
        "bm25_retriever": {"query": text},
    }
    retrievers = ("key_token_retriever", "dense_retriever", "bm25_retriever")
    result = pipeline.run(data, include_outputs_from=set(retrievers))
    fused = {}
    for retriever in retrievers:
        for rank, document in enumerate(result[retriever]["documents"], start=1):
            fused[document.id] = fused.get(document.id, 0.0) + 1 / (60 + rank)
    hits = result["explainer"]["documents"]
    assert [fused[hit.id] for hit in hits] == pytest.approx(sorted(fused.values(), reverse=True)[:10])
    assert all(hit.meta["matched_tokens"] for hit in hits)


def answer(url: str, data: dict | None = None) -> dict:
    body = None if data is None else json.dumps(data).encode()
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


@pytest.mark.slow
@pytest.mark.parametrize("filled", ["opensearch-knn", "elasticsearch-9"], indirect=True)
def test_hayhooks_serves_every_query_pipeline(filled, embedder, tmp_path):
    name, own = filled
    overrides = {"text_embedder": {"model": embedder}, "retriever": {"top_k": 3}}
    served = [f"query.{name}", f"hybrid.{name}", "query.in_memory", "hybrid.in_memory"]
    for each in served:
        parameters = own if each.endswith(name) else {"model": own["model"]}
        definition = pipeline_yaml(each, overrides, **parameters)
        (tmp_path / f"{each.replace('.', '_')}.yml").write_text(definition, encoding="utf-8")
    if name == "opensearch":
        served.append("rrf.opensearch")
        joined = {"text_embedder": {"model": embedder}, "joiner": {"top_k": 3}}
        (tmp_path / "rrf_opensearch.yml").write_text(pipeline_yaml("rrf.opensearch", joined, **own), encoding="utf-8")
    with hayhooks(["run", "--pipelines-dir", str(tmp_path)], tmp_path / "log") as address:
        for each in served:
            url = f"{address}/{each.replace('.', '_')}/run"
            result = answer(url, {"query": "shock waves"})["result"]
            documents = result["documents"] if "documents" in result else result["explainer"]["documents"]
            # the store in memory of the server's process is empty
            assert len(documents) == (0 if each.endswith("in_memory") else 3), each
            assert all("shock" in {match["token"] for match in hit["meta"]["matched_tokens"]} for hit in documents)
