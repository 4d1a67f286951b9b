# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Vectors of other sparse embedders, in every store."""

from copy import deepcopy

import numpy as np
import pytest
from haystack import Document, Pipeline
from haystack.components.writers import DocumentWriter
from haystack.dataclasses import SparseEmbedding
from haystack_integrations.components.retrievers.elasticsearch import ElasticsearchSparseEmbeddingRetriever
from helpers.rankings import stored
from helpers.retrieval import assert_ranking, dot_product, pairs
from nodes.stores import STORES

from haystack_integrations.components.embedders.keytok import SparseEmbeddingConverter
from haystack_integrations.components.retrievers.keytok import SparseRetriever


def sparse_vectors(number: int, seed: int) -> list[SparseEmbedding]:
    random = np.random.default_rng(seed)
    chosen = [random.choice(30522, size=20, replace=False) % 200 * 151 for _ in range(number)]
    return [SparseEmbedding(np.unique(c).tolist(), random.gamma(1, size=len(np.unique(c))).tolist()) for c in chosen]


def sparse_scores(documents: list[SparseEmbedding], query: SparseEmbedding) -> dict[str, float]:
    weights = dict(zip(map(str, query.indices), query.values, strict=True))
    tokens = [dict(zip(map(str, d.indices), d.values, strict=True)) for d in documents]
    scores = {f"{i:02}": dot_product(found, weights) for i, found in enumerate(tokens)}
    return {key: score for key, score in scores.items() if score > 0}


@pytest.mark.parametrize("kind", STORES)
def test_any_sparse_embedders_vectors_go_through_the_converter_into_every_store(make_store, kind):
    store = make_store(kind, field="splade")
    vectors = sparse_vectors(30, seed=1)
    indexing = Pipeline()
    indexing.add_component("converter", SparseEmbeddingConverter(field="splade"))
    indexing.add_component("writer", DocumentWriter(store))
    indexing.connect("converter", "writer")
    documents = [
        Document(id=f"{i:02}", content="x", sparse_embedding=vector, meta={"n": i}) for i, vector in enumerate(vectors)
    ]
    indexing.run({"converter": {"documents": documents}})
    retriever = SparseRetriever(store, field="splade", top_k=100)
    for query in sparse_vectors(5, seed=2):
        hits = retriever.run(query_sparse_embedding=query)["documents"]
        assert_ranking(pairs(hits), sparse_scores(vectors, query))
        assert {hit.meta["n"] for hit in hits} == {int(hit.id) for hit in hits}
    assert retriever.run(query_sparse_embedding=SparseEmbedding([], []))["documents"] == []


def test_the_converter_leaves_its_input_alone_and_zero_weights_out():
    vector = SparseEmbedding([7, 3, 12, 9], [0.5, 0.0, 1.0, 0.3])
    document = Document(content="x", sparse_embedding=vector, embedding=[1.0], meta={"year": 1})
    before = deepcopy(document)
    (converted,) = SparseEmbeddingConverter(field="splade").run([document])["documents"]
    assert document == before
    assert converted.id == document.id
    assert converted.sparse_embedding is None
    assert (converted.content, converted.embedding, converted.meta["year"]) == ("x", [1.0], 1)
    assert list(converted.meta["splade"]) == ["12", "7", "9"]
    assert {key: stored(w) for key, w in converted.meta["splade"].items()} == {"12": 1.0, "7": 0.5, "9": stored(0.3)}
    assert SparseEmbeddingConverter().run([])["documents"] == []
    empty = Document(id="e", sparse_embedding=SparseEmbedding([], []))
    assert SparseEmbeddingConverter().run([empty])["documents"][0].meta == {"key_tokens": {}}


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        (None, r"'bad'.*no sparse embedding"),
        (SparseEmbedding([1, 2], [0.5, -0.1]), r"'bad'.*-0\.1"),
        (SparseEmbedding([1], [float("nan")]), r"'bad'.*nan"),
        (SparseEmbedding([1], [float("inf")]), r"'bad'.*inf"),
        (SparseEmbedding([1], [1e300]), r"'bad'.*inf"),
        (SparseEmbedding([1], [1e-40]), r"'bad'"),
    ],
)
def test_a_vector_that_engines_cannot_store_is_named_by_the_converter(vector, message):
    good = Document(id="good", sparse_embedding=SparseEmbedding([1], [0.5]))
    with pytest.raises(ValueError, match=message):
        SparseEmbeddingConverter().run([good, Document(id="bad", sparse_embedding=vector)])


def test_the_converter_is_serialized(monkeypatch):
    monkeypatch.delenv("HAYSTACK_DESERIALIZATION_ALLOWLIST", raising=False)
    pipeline = Pipeline()
    pipeline.add_component("converter", SparseEmbeddingConverter(field="splade"))
    assert Pipeline.loads(pipeline.dumps()).get_component("converter").field == "splade"


@pytest.mark.parametrize("kind", ["elasticsearch-8", "elasticsearch-9"])
@pytest.mark.parametrize("keeps_source", [True, False])
def test_elasticsearchs_own_sparse_vector_field_is_searched_too(kind, keeps_source, make_store):
    definition = make_store.definition(kind, dimension=None, model=None, field="splade")
    if not keeps_source:
        definition["settings"].pop("index.mapping.exclude_source_vectors", None)
    store = make_store(kind, definition=definition, sparse_vector_field="splade")
    vectors = sparse_vectors(30, seed=5)
    # every index in all documents equally often, and weights above .4 of the largest: nothing to prune
    random = np.random.default_rng(6)
    vectors = [SparseEmbedding(v.indices, random.uniform(0.5, 1, len(v.indices)).tolist()) for v in vectors]
    store.write_documents(
        [Document(id=f"{i:02}", content="x", sparse_embedding=vector) for i, vector in enumerate(vectors)]
    )
    retriever = SparseRetriever(store, field="splade", top_k=100, return_key_tokens=True)
    own = ElasticsearchSparseEmbeddingRetriever(document_store=store, top_k=100)
    for asked in sparse_vectors(5, seed=7):
        query = SparseEmbedding(asked.indices, random.uniform(0.5, 1, len(asked.indices)).tolist())
        hits = retriever.run(query_sparse_embedding=query)["documents"]
        own_hits = own.run(query_sparse_embedding=query)["documents"]
        assert_ranking(pairs(hits), sparse_scores(vectors, query))
        assert dict(pairs(own_hits)) == pytest.approx(dict(pairs(hits)), rel=1e-6)
        assert hits
        for hit in hits:
            vector = vectors[int(hit.id)]
            assert hit.sparse_embedding is not None
            assert hit.sparse_embedding.indices == vector.indices
            assert hit.sparse_embedding.values == pytest.approx(vector.values, rel=1e-2)
