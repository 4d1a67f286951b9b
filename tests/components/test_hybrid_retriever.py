# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""A hybrid search in one component."""

import pytest
from haystack import Document, Pipeline, component
from haystack.components.embedders import MockTextEmbedder
from helpers.rankings import assert_same_hits
from nodes.stores import DENSE_STORES

from haystack_integrations.components.embedders.keytok import KeyTokenSparseEmbedder
from haystack_integrations.components.retrievers.keytok import (
    KeyTokenExplainer,
    KeyTokenHybridRetriever,
    SparseRetriever,
)


@pytest.mark.parametrize("kind", ["in-memory", *DENSE_STORES])
async def test_the_hybrid_retriever_embeds_asks_once_and_explains(
    kind, make_store, small_model, small_model_folder, small_texts, small_embeddings, monkeypatch
):
    monkeypatch.delenv("HAYSTACK_DESERIALIZATION_ALLOWLIST", raising=False)
    store = make_store(kind, dimension=8, model=small_model)
    documents = [
        Document(id=f"{i:02}", content=text, embedding=embedding.tolist(), meta={"part": i % 2})
        for i, (text, embedding) in enumerate(zip(small_texts, small_embeddings, strict=True))
    ]
    store.write_documents(KeyTokenSparseEmbedder(small_model_folder).run(documents=documents)["documents"])
    text_embedder = MockTextEmbedder(embedding=small_embeddings[17].tolist())
    text = small_texts[17]
    hybrid = KeyTokenHybridRetriever(store, embedder=text_embedder, model=small_model_folder, top_k=5)
    hits = hybrid.run(query=text)["documents"]

    embedding = text_embedder.run(text)["embedding"]
    retriever = SparseRetriever(store, model=small_model_folder, dense_weight=1.5, bm25_weight=0.05, top_k=5)
    expected = retriever.run(query_embedding=embedding, query=text)
    explained = KeyTokenExplainer().run(**expected)
    assert_same_hits(hits, explained["documents"])
    for hit in hits:
        assert "key_tokens" not in hit.meta
        parts = {name: part["score"] for name, part in hit.meta["score_parts"].items()}
        assert sum(parts.values()) == pytest.approx(hit.score, rel=1e-6)
        assert parts.keys() == {"key_tokens", "bm25", "dense"}
        assert 0 < sum(match["contribution"] for match in hit.meta["matched_tokens"]) <= parts["key_tokens"] + 1e-6
    assert {match["token"] for hit in hits for match in hit.meta["matched_tokens"]} <= {*expected["key_tokens"]}

    filters = {"field": "meta.part", "operator": "==", "value": 1}
    some = hybrid.run(query=text, filters=filters, top_k=3)["documents"]
    assert len(some) == 3
    assert {hit.meta["part"] for hit in some} == {1}
    embedder = MockTextEmbedder(embedding=small_embeddings[17].tolist())
    always = KeyTokenHybridRetriever(store, embedder=embedder, model=small_model_folder, filters=filters, top_k=3)
    assert_same_hits(always.run(query=text)["documents"], some)
    pipeline = Pipeline()
    pipeline.add_component("retriever", hybrid)
    loaded = Pipeline.loads(pipeline.dumps())
    assert loaded.run({"retriever": {"query": text}})["retriever"]["documents"] == hits
    assert_same_hits((await hybrid.run_async(query=text))["documents"], hits)
    if kind != "in-memory":
        await store.close_async()


def test_a_part_is_left_out_by_a_weight_of_0(make_store, small_model_folder, small_texts, small_embeddings):
    store = make_store("in-memory")
    documents = [
        Document(id=str(i), content=text, embedding=embedding.tolist())
        for i, (text, embedding) in enumerate(zip(small_texts, small_embeddings, strict=True))
    ]
    store.write_documents(KeyTokenSparseEmbedder(small_model_folder).run(documents=documents)["documents"])
    for left_out, parts in (
        ({"dense_weight": 0.0}, {"key_tokens", "bm25"}),
        ({"bm25_weight": 0.0}, {"key_tokens", "dense"}),
        ({"dense_weight": 0.0, "bm25_weight": 0.0}, set()),
    ):
        embedder = MockTextEmbedder(embedding=small_embeddings[3].tolist())
        hybrid = KeyTokenHybridRetriever(store, embedder=embedder, model=small_model_folder, **left_out)
        hits = hybrid.run(query="wing")["documents"]
        assert len(hits) == 10
        assert all(hit.meta.get("score_parts", {}).keys() == parts for hit in hits)


@component
class OnlyRuns:
    """A text embedder that has nothing but `run`."""

    def __init__(self, embedding: list[float]) -> None:
        self.embedding = embedding

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, list[float]]:
        return {"embedding": self.embedding}


async def test_an_embedder_without_asynchronous_methods_serves_asynchronous_runs(
    make_store, small_model_folder, small_texts, small_embeddings
):
    store = make_store("in-memory")
    store.write_documents([Document(id="0", content=small_texts[0], meta={"key_tokens": {"wing": 1.0}})])
    embedder = OnlyRuns(small_embeddings[0].tolist())
    hybrid = KeyTokenHybridRetriever(store, embedder=embedder, model=small_model_folder, dense_weight=0.0)
    hits = (await hybrid.run_async(query="wing"))["documents"]
    assert [hit.id for hit in hits] == ["0"]
    await hybrid.close_async()
    hybrid.close()
    assert hybrid.run(query="wing")["documents"] == hits
