# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Why this document: as data, as a sentence, without and with an index."""

from contextlib import contextmanager

import numpy as np
import pytest
from haystack import Document
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.tracing import Tracer, disable_tracing, enable_tracing, tracer
from haystack.tracing.logging_tracer import LoggingSpan

from haystack_integrations.components.embedders.keytok import KeyTokenSparseEmbedder
from haystack_integrations.components.retrievers.keytok import KeyTokenExplainer, SparseRetriever
from keytok_haystack import EmbeddingError, KeyTokenModel, explain
from keytok_haystack.encoders import embed
from keytok_haystack.explanation import sentence_of
from keytok_haystack.sparse_vectors.rank_features import unescape_feature

QUERY = "shock-sound wave interaction"


@pytest.fixture(scope="module")
def pair(cranfield, cranfield_documents) -> tuple[str, np.ndarray]:
    """Cranfield's document 64, and its embedding."""
    position = list(cranfield.documents).index("64")
    return cranfield.documents["64"], cranfield_documents.embeddings[position]


def test_two_texts_are_explained_as_a_retriever_explains_a_hit(pair, cranfield_model, cranfield_model_folder, embedder):
    text, embedding = pair
    explanation = explain(cranfield_model, QUERY, text)
    store = InMemoryDocumentStore()
    documents = [Document(content=text, embedding=embedding.tolist())]
    written = KeyTokenSparseEmbedder(cranfield_model_folder).run(documents)["documents"]
    store.write_documents(written)
    query_embedding = embed([QUERY], embedder, role="query", progress_bar=False).embeddings[0]
    found = SparseRetriever(store, model=cranfield_model_folder, first_phase=1.0).run(
        query_embedding=query_embedding.tolist(), query=QUERY
    )
    (hit,) = KeyTokenExplainer(top_k=None).run(**found)["documents"]

    assert explanation.score == pytest.approx(hit.score, rel=1e-5)
    assert [each.token for each in explanation.shared] == [each["token"] for each in hit.meta["matched_tokens"]]
    contributions = [each["contribution"] for each in hit.meta["matched_tokens"]]
    assert [each.contribution for each in explanation.shared] == pytest.approx(contributions, rel=1e-5)
    assert {each.token for each in explanation.shared if each.is_literal} == {"shock", "sound", "wave", "interaction"}
    assert hit.meta["added_by_meaning"] == [each.token for each in explanation.shared if not each.is_literal]
    assert {each["token"]: each["query_weight"] for each in hit.meta["missing"]} == explanation.missing
    assert hit.meta["why"] == explanation.sentence
    assert explanation.confidence == pytest.approx(hit.meta["query_confidence"], abs=0.0005)

    # nothing is lost between the two texts: what they share, and what they do not, is all they have
    asked = set(map(unescape_feature, found["key_tokens"]))
    told = set(map(unescape_feature, written[0].meta["key_tokens"]))
    shared = {each.token for each in explanation.shared}
    assert shared | explanation.missing.keys() == asked
    assert shared | explanation.unasked.keys() == told
    cosine = query_embedding @ embedding / np.linalg.norm(query_embedding) / np.linalg.norm(embedding)
    assert explanation.cosine == pytest.approx(float(cosine), rel=1e-5)


def test_the_sentence_names_words_and_meaning(pair, cranfield_model):
    sentence = explain(cranfield_model, QUERY, pair[0]).sentence
    assert sentence.startswith("found for ")
    assert "(your words) and " in sentence
    assert sentence.endswith(" (its meaning)")
    assert sentence_of(["a", "b", "c", "d", "e"], ["b", "d"]) == "found for b, d (your words) and a, c, e (its meaning)"
    assert sentence_of(["a"], []) == "found for a (its meaning)"
    assert sentence_of(["a"], ["a"]) == "found for a (your words)"
    assert sentence_of([], ["a"]) == "shares no token with the query"


def test_ready_made_embeddings_are_used(small_model, small_embeddings, small_texts):
    explanation = explain(small_model, small_texts[0], small_texts[1], embeddings=small_embeddings[:2])
    queries = small_model.encode_queries(small_embeddings[:1], small_texts[:1]).rows
    documents = small_model.encode_documents(small_embeddings[1:2], small_texts[1:2]).rows
    assert explanation.score == pytest.approx((queries @ documents.T).toarray()[0, 0], rel=0.02)  # weights are rounded


def test_what_cannot_be_explained_says_why(small_model, small_embeddings):
    nameless = KeyTokenModel(small_model.vocabulary, small_model.decoder)
    with pytest.raises(ValueError, match="pass `embedder`, or the `embeddings`"):
        explain(nameless, "shock", "wave")
    with pytest.raises(EmbeddingError, match="dimensions"):
        explain(small_model, "shock", "wave", embeddings=small_embeddings[:2, :4])
    with pytest.raises(ValueError, match="3"):
        explain(small_model, "shock", "wave", embeddings=small_embeddings[:3])


@pytest.mark.asyncio
async def test_an_empty_result_says_why(store):
    retriever = SparseRetriever(store)
    nowhere = {"field": "meta.year", "operator": "==", "value": 1}
    for tokens, filters, reason in (
        ({"unknown": 1.0}, None, "No document has a token"),
        ({"shock": 1.0}, nowhere, "filters leave out"),
        ({"unknown": 1.0}, nowhere, "No document has a token"),
        ({}, None, "The query has no key tokens."),
    ):
        result = retriever.run(key_tokens=tokens, filters=filters)
        assert result["documents"] == []
        assert reason in result["meta"]["empty"]
        assert await retriever.run_async(key_tokens=tokens, filters=filters) == result
    by_words = SparseRetriever(store, bm25_weight=1.0).run(key_tokens={}, query="qwertz")
    assert by_words["meta"]["empty"] == "No document has a word of the query."
    for filters, required, reason in (
        (None, "absent", "No document that the query finds has all required tokens: absent."),
        (nowhere, "shock", "filters leave out"),
    ):
        result = retriever.run(key_tokens={"shock": 1.0}, required_tokens=[required], filters=filters)
        assert reason in result["meta"]["empty"]
    assert "empty" not in retriever.run(key_tokens={"shock": 1.0})["meta"]
    assert "empty" not in retriever.run(key_tokens={"shock": 1.0}, top_k=0)["meta"]


class OneSpan(Tracer):
    """Tracer whose only span is always the current one."""

    def __init__(self) -> None:
        self.span = LoggingSpan("component", tags={})

    @contextmanager
    def trace(self, operation_name, tags=None, parent_span=None):
        yield self.span

    def current_span(self):
        return self.span


def test_spans_carry_tokens_and_parts(store):
    one = OneSpan()
    enable_tracing(one)
    content, tracer.is_content_tracing_enabled = tracer.is_content_tracing_enabled, True
    try:
        SparseRetriever(store, bm25_weight=0.1).run(key_tokens={"shock": 1.0, "wave": 0.5}, query="shock wave")
    finally:
        tracer.is_content_tracing_enabled = content
        disable_tracing()
    assert one.span.tags["keytok.key_tokens"] == {"shock": 1.0, "wave": 0.5}
    first = one.span.tags["keytok.hits"][0]
    assert first["id"] == "shocking"
    assert first["matched_tokens"][0]["token"] == "shock"
    assert first["score_parts"]["key_tokens"]["score"] == pytest.approx(1.15, abs=0.01)
