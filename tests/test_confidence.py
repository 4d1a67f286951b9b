# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Good and broken embeddings are told apart: measured on Cranfield with all-MiniLM-L6-v2."""

import logging
from dataclasses import replace

import numpy as np
import pytest
from haystack import Document
from haystack.document_stores.in_memory import InMemoryDocumentStore

from haystack_integrations.components.embedders.keytok import KeyTokenSparseEmbedder
from haystack_integrations.components.retrievers.keytok import KeyTokenExplainer, SparseRetriever
from keytok_haystack import KeyTokenModel, fit
from keytok_haystack.confidence import Chance, warning_of
from keytok_haystack.encoders import embed

NOTHING = ["", " ", "?!", "because", "the", "what is it about", "of and to the"]
ELSEWHERE = [
    "how do I cancel my subscription",
    "chocolate cake recipe",
    "the parliament voted on the budget",
    "my cat sleeps all day",
    "javascript async functions",
    "cheap hotels in rome",
    "who won the football match",
    "a poem about autumn",
    "vaccination of children against measles",
]


@pytest.fixture(scope="module")
def halves(cranfield, cranfield_documents) -> tuple[KeyTokenModel, np.ndarray, list[str]]:
    """A model of one half of Cranfield, and the embeddings and texts of the other."""
    texts = list(cranfield.documents.values())
    order = np.random.default_rng(1).permutation(len(texts))
    fitted, other = order[: len(order) // 2], order[len(order) // 2 :]
    embeddings = cranfield_documents.embeddings
    model = fit(embeddings[fitted], [texts[i] for i in fitted])
    return model, embeddings[other], [texts[i] for i in other]


def shuffled(embeddings: np.ndarray) -> np.ndarray:
    """Vectors as another embedder's: the same numbers, whose dimensions mean something else."""
    return embeddings[:, np.random.default_rng(2).permutation(embeddings.shape[1])]


def test_new_documents_and_queries_are_read_surely(halves, cranfield, cranfield_queries):
    model, embeddings, texts = halves
    assert np.median(model.encode_documents(embeddings, texts).confidences) > 0.97
    queries = model.encode_queries(cranfield_queries.embeddings, list(cranfield.queries.values()))
    assert np.median(queries.confidences) > 0.97
    assert np.mean(queries.confidences > 0.5) > 0.95


def test_vectors_that_say_nothing_are_not(halves, embedder):
    model, embeddings, texts = halves
    assert np.median(model.encode_documents(shuffled(embeddings), texts).confidences) < 0.3
    noise = np.random.default_rng(3).normal(size=embeddings.shape)
    assert np.median(model.encode_documents(noise).confidences) < 0.3
    elsewhere = embed(ELSEWHERE, embedder, role="query", progress_bar=False)
    assert np.median(model.encode_queries(elsewhere.embeddings, ELSEWHERE).confidences) < 0.7


def test_a_confidence_is_the_share_of_random_embeddings_that_are_weaker(cranfield_model, cranfield_documents):
    embeddings = cranfield_documents.embeddings
    random = np.random.default_rng(4).multivariate_normal(embeddings.mean(axis=0), np.cov(embeddings.T), 2000)
    shares = np.sort(cranfield_model.encode_queries(random).confidences)
    assert np.abs(shares - np.linspace(0, 1, len(shares))).max() < 0.06  # uniform: Kolmogorov-Smirnov


def test_it_depends_on_the_embedding_alone(halves):
    model, embeddings, texts = halves
    with_texts = model.encode_documents(embeddings[:50], texts[:50])
    assert with_texts.confidences == pytest.approx(model.encode_documents(embeddings[:50], top_k=1).confidences)
    assert with_texts.confidences == pytest.approx(model.encode_queries(embeddings[:50]).confidences, abs=0.0011)


def test_a_query_without_words_asks_for_nothing(cranfield_model, cranfield_model_folder, embedder, cranfield):
    embeddings = embed(NOTHING, embedder, role="query", progress_bar=False).embeddings
    encoded = cranfield_model.encode_queries(embeddings, NOTHING)
    assert encoded.rows.nnz == 0
    assert encoded.confidences.tolist() == [0.0] * len(NOTHING)

    store = InMemoryDocumentStore()
    texts = list(cranfield.documents.values())[:30]
    documents = [
        Document(content=text, embedding=embedding.tolist())
        for text, embedding in zip(texts, embed(texts, embedder, progress_bar=False).embeddings, strict=True)
    ]
    store.write_documents(KeyTokenSparseEmbedder(cranfield_model_folder).run(documents)["documents"])
    retriever = SparseRetriever(store, model=cranfield_model_folder)
    hybrid = SparseRetriever(store, model=cranfield_model_folder, dense_weight=1.5, bm25_weight=0.05)
    for text, embedding in zip(NOTHING, embeddings.tolist(), strict=True):
        found = retriever.run(query_embedding=embedding, query=text)
        assert (found["documents"], found["key_tokens"], found["meta"]["confidence"]) == ([], {}, 0.0)
        assert "no words but stop words" in found["meta"]["empty"]
        assert hybrid.run(query_embedding=embedding, query=text) == found
    assert retriever.run(query_embedding=embeddings[0].tolist())["documents"]  # no text is known: the vector is all


def test_a_tokenizer_that_lacks_a_script_does_not_make_its_words_nothing(small_model, small_embeddings):
    texts = ["\ud55c\uad6d\uc5b4", "?!", "unknown"]
    encoded = small_model.encode_queries(small_embeddings[:3], texts)
    assert np.diff(encoded.rows.indptr).astype(bool).tolist() == [True, False, True]


def test_it_survives_saving(small_model, small_model_folder, small_embeddings):
    loaded = KeyTokenModel.load(small_model_folder)
    expected = small_model.encode_documents(small_embeddings).confidences
    assert loaded.encode_documents(small_embeddings).confidences.tolist() == expected.tolist()


def test_components_tell_it(halves, tmp_path, caplog):
    model, embeddings, texts = halves
    model.save(tmp_path / "model")
    embedder = KeyTokenSparseEmbedder(tmp_path / "model", batch_size=64, raise_on_failure=False)
    documents = [
        Document(content=text, embedding=embedding.tolist())
        for text, embedding in zip(texts[:100], embeddings[:100], strict=True)
    ]
    documents.insert(70, Document(content="without embedding"))
    with caplog.at_level(logging.WARNING):
        result = embedder.run(documents)
    expected = model.encode_documents(embeddings[:100], texts[:100]).confidences.astype(float).round(3).tolist()
    assert result["meta"]["confidences"] == [*expected[:70], None, *expected[70:]]
    assert "weakly" not in caplog.text

    query = embedder.run(embedding=embeddings[0].tolist(), text=texts[0])
    retriever = SparseRetriever(InMemoryDocumentStore(), model=tmp_path / "model")
    told = retriever.run(query_embedding=embeddings[0].tolist(), query=texts[0])["meta"]
    assert told["confidence"] == query["meta"]["confidence"]
    assert "confidence" not in retriever.run(key_tokens={"shock": 1.0})["meta"]
    (hit,) = KeyTokenExplainer().run(result["documents"][:1], query["key_tokens"], query["meta"])["documents"]
    assert hit.meta["query_confidence"] == query["meta"]["confidence"]
    words = query["meta"]["literal_tokens"]
    for confidence, literals, expected in ((0.1, [], True), (0.1, words, False), (0.9, [], False)):
        about = {"confidence": confidence, "literal_tokens": literals}
        (doubtful,) = KeyTokenExplainer().run(result["documents"][:1], query["key_tokens"], about)["documents"]
        assert doubtful.meta["may_be_chance"] is expected
    (hit,) = KeyTokenExplainer().run(result["documents"][:1], query["key_tokens"], {"confidence": None})["documents"]
    assert "query_confidence" not in hit.meta


def test_another_embedders_vectors_are_warned_of(halves, tmp_path, caplog):
    model, embeddings, texts = halves
    model.save(tmp_path / "model")
    documents = [
        Document(content=text, embedding=embedding.tolist())
        for text, embedding in zip(texts[:50], shuffled(embeddings[:50]), strict=True)
    ]
    with caplog.at_level(logging.WARNING):
        KeyTokenSparseEmbedder(tmp_path / "model").run(documents)
    assert "decode to tokens as weakly as random ones" in caplog.text
    assert warning_of(np.zeros(5, dtype=np.float32)) is None  # too few to tell


def test_a_model_without_chance_knows_no_confidence(small_model, small_embeddings, tmp_path):
    replace(small_model, chance=None).save(tmp_path / "model")
    embedder = KeyTokenSparseEmbedder(tmp_path / "model")
    document = Document(content="shock", embedding=small_embeddings[0].tolist())
    assert embedder.run([document])["meta"] == {"confidences": [None]}
    assert embedder.run(embedding=document.embedding, text="shock")["meta"]["confidence"] is None


def test_strengths_are_compared_with_those_of_chance():
    chance = Chance(np.arange(1, 11, dtype=np.float32))
    assert chance.confidences(np.array([0, 1, 5.5, 99], dtype=np.float32)).tolist() == pytest.approx([0, 0, 0.5, 1])
