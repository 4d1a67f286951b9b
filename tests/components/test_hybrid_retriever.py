# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""All three ways of retrieval in one component."""

from collections import Counter

import pytest
from haystack import Document, Pipeline
from haystack.components.embedders import MockTextEmbedder
from helpers.retrieval import dot_product
from nodes.stores import DENSE_STORES

from haystack_integrations.components.embedders.keytok import KeyTokenSparseEmbedder
from haystack_integrations.components.retrievers.keytok import KeyTokenHybridRetriever, SparseRetriever
from haystack_integrations.components.retrievers.keytok.adapters import store_retrievers


@pytest.mark.parametrize("kind", ["in-memory", *DENSE_STORES])
async def test_the_hybrid_retriever_joins_three_retrievers_and_explains(
    kind, make_store, small_model, small_model_folder, small_texts, small_embeddings, monkeypatch
):
    monkeypatch.delenv("HAYSTACK_DESERIALIZATION_ALLOWLIST", raising=False)
    store = make_store(kind, dimension=8, model=small_model)
    documents = [
        Document(id=f"{i:02}", content=text, embedding=embedding.tolist(), meta={"part": i % 2})
        for i, (text, embedding) in enumerate(zip(small_texts, small_embeddings, strict=True))
    ]
    documents = KeyTokenSparseEmbedder(small_model_folder).run(documents=documents)["documents"]
    store.write_documents(documents)
    text_embedder = MockTextEmbedder(embedding=small_embeddings[17].tolist())
    text = small_texts[17]
    hybrid = KeyTokenHybridRetriever(
        store, embedder=text_embedder, model=small_model_folder, top_k=5, candidates_per_retriever=20
    )
    hits = hybrid.run(query=text)["documents"]

    embedding = text_embedder.run(text)["embedding"]
    dense, bm25 = (retriever(document_store=store, top_k=20) for retriever in store_retrievers(store))
    key_tokens = KeyTokenSparseEmbedder(small_model_folder).run(embedding=embedding, text=text)["key_tokens"]
    rankings = [
        SparseRetriever(store, top_k=20).run(key_tokens=key_tokens)["documents"],
        dense.run(query_embedding=embedding)["documents"],
        bm25.run(query=text)["documents"],
    ]
    fused = Counter()
    for ranking in rankings:
        for rank, document in enumerate(ranking, start=1):
            fused[document.id] += 1 / (60 + rank)
    best = sorted(fused.values(), reverse=True)[:5]
    assert [fused[hit.id] for hit in hits] == pytest.approx(best)
    written = {document.id: document for document in documents}
    for hit in hits:
        assert "key_tokens" not in hit.meta
        explained = sum(match["contribution"] for match in hit.meta["matched_tokens"])
        assert explained == pytest.approx(dot_product(written[hit.id].meta["key_tokens"], key_tokens), rel=1e-2)

    filters = {"field": "meta.part", "operator": "==", "value": 1}
    some = hybrid.run(query=text, filters=filters, top_k=3)["documents"]
    assert len(some) == 3
    assert {hit.meta["part"] for hit in some} == {1}
    pipeline = Pipeline()
    pipeline.add_component("retriever", hybrid)
    loaded = Pipeline.loads(pipeline.dumps())
    assert loaded.run({"retriever": {"query": text}})["retriever"]["documents"] == hits
    concurrently = (await hybrid.run_async(query=text))["documents"]  # equal scores may change places
    assert [fused[hit.id] for hit in concurrently] == pytest.approx(best)
    if kind != "in-memory":
        await store.close_async()
