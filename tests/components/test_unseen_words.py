# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Words that fitting has not seen are found in every store: documents and queries call them the same."""

import logging
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from haystack import Document
from haystack.dataclasses import SparseEmbedding
from haystack.document_stores.in_memory import InMemoryDocumentStore
from helpers.models import saved
from helpers.rankings import stored
from helpers.retrieval import assert_ranking, dot_products, pairs, search
from nodes.stores import STORES

from haystack_integrations.components.embedders.keytok import KeyTokenSparseEmbedder
from haystack_integrations.components.embedders.keytok.conversion import named_tokens, sparse_embeddings
from haystack_integrations.components.retrievers.keytok import KeyTokenExplainer, SparseRetriever
from keytok_haystack import KeyTokenModel, Preparation, TokenRows, fit

NEW = {
    "pump": "a turbopump beside the wing and the flow",
    "pumps": "Turbopumps, turbopumps and lift",
    "number": "the flow at 7.25, in C++ and foo_bar",
    "plain": "the flow of heat",
    "東京": "衝撃波 and lift",
}


@pytest.fixture(scope="module")
def words_model(small_texts: list[str], small_embeddings: np.ndarray) -> KeyTokenModel:
    """Fitted to the words of the texts, in English, none of which is one of the new ones."""
    return fit(small_embeddings, small_texts, language="english", preparation=Preparation())


@pytest.fixture(scope="module")
def words_folder(words_model: KeyTokenModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(words_model, tmp_path_factory, "words")


@pytest.fixture(scope="module")
def documents(words_folder: Path, small_embeddings: np.ndarray) -> list[Document]:
    plain = [
        Document(id=key, content=text, embedding=embedding.tolist())
        for (key, text), embedding in zip(NEW.items(), small_embeddings, strict=False)
    ]
    embedder = KeyTokenSparseEmbedder(words_folder, return_sparse_embedding=True, progress_bar=False)
    return embedder.run(documents=plain)["documents"]


@pytest.fixture(scope="module")
def literal(words_folder: Path, small_embeddings: np.ndarray):
    """`literal("text")`: the key tokens of a query of its words alone, made by another component, one at a time."""
    embedder = KeyTokenSparseEmbedder(words_folder, query_top_k=0)
    return lambda text: embedder.run(embedding=small_embeddings[9].tolist(), text=text)["key_tokens"]


def test_documents_have_their_new_words_by_the_formula(words_model: KeyTokenModel, documents, small_embeddings):
    vocabulary, setting = words_model.vocabulary, words_model.weighting
    for document, embedding in zip(documents, small_embeddings, strict=False):
        words = Counter(map(vocabulary.name, vocabulary.analysis.words(document.content)))
        logits = dict(zip(vocabulary.features, words_model.decoder.logits([embedding])[0].tolist(), strict=False))
        idf = dict(zip(vocabulary.features, words_model.idf.tolist(), strict=False))
        for word, tf in words.items():
            literal = idf.get(word, float(words_model.idf[-1])) * math.sqrt(tf / words.total())
            logits[word] = logits.get(word, 0.0) + setting.literal_factor * literal
        level = max(logits.values()) ** setting.normalization
        weights = {w: (v / level) ** setting.exponent / setting.weight_scale for w, v in logits.items() if v > 0}
        assert len(weights) <= setting.k_document
        expected = {word.replace(".", "%2E"): round(50 * weight) / 50 for word, weight in weights.items()}
        assert document.meta["key_tokens"] == pytest.approx(expected, rel=5e-3, abs=1e-4)
    assert {"turbopump", "7%2E25", "c++", "foo_bar", "衝撃", "撃波"} <= {
        k for d in documents for k in d.meta["key_tokens"]
    }


@pytest.mark.parametrize("kind", STORES)
def test_new_words_are_found_in_every_store(kind, make_store, words_model, documents, literal):
    store = make_store(kind, model=words_model)
    store.write_documents([Document.from_dict(document.to_dict()) for document in documents])
    retriever = SparseRetriever(store)
    for text, found in {
        "turbopump": {"pump", "pumps"},
        "What of TURBOPUMPS?": {"pump", "pumps"},
        "7.25": {"number"},
        "c++": {"number"},
        "foo_bar": {"number"},
        "衝撃": {"東京"},
        "ramjet": set(),
    }.items():
        tokens = literal(text)
        hits = search(retriever, tokens)
        assert_ranking(hits, dot_products(tokens, documents))
        assert {key for key, _ in hits} == found
    retriever.close()


def test_new_words_are_found_by_an_embedding_and_a_text(words_model, words_folder, documents, small_embeddings):
    store = InMemoryDocumentStore()
    store.write_documents(documents)
    retriever = SparseRetriever(store, model=words_folder)
    embedding = small_embeddings[9].tolist()
    hits = pairs(retriever.run(query_embedding=embedding, query="turbopumps")["documents"])
    tokens = KeyTokenSparseEmbedder(words_folder).run(embedding=embedding, text="turbopumps")["key_tokens"]
    assert tokens["turbopump"] > 0
    assert_ranking(hits, dot_products(tokens, documents))


@pytest.fixture
def vectors(documents: list[Document]) -> dict[str, SparseEmbedding]:
    return {document.id: document.sparse_embedding for document in documents}


def test_sparse_embeddings_have_hashes_of_new_words_and_are_found(words_model, words_folder, documents, vectors):
    vocabulary = words_model.vocabulary
    for document in documents:
        index = {key: i for i, key in enumerate(vocabulary.keys)}
        for word in vocabulary.literal_counts([document.content]).unseen:
            index[word.replace(".", "%2E")] = vocabulary.unseen_index(word)
        named = {index[key]: weight for key, weight in document.meta["key_tokens"].items()}
        vector = vectors[document.id]
        expected = {index: stored(weight) for index, weight in named.items()}
        assert dict(zip(vector.indices, vector.values, strict=True)) == expected
        assert all(0 <= i < 2**31 - 1 for i in vector.indices)
    common = set(vectors["pump"].indices) & set(vectors["pumps"].indices)
    assert vocabulary.unseen_index("turbopump") in common


def test_a_sparse_query_is_named_by_its_text(words_model, words_folder, documents, small_embeddings):
    store = InMemoryDocumentStore()
    store.write_documents(documents)
    embedding, text = small_embeddings[9].tolist(), "turbopumps at 7.25 in the flow"
    result = KeyTokenSparseEmbedder(words_folder).run(embedding=embedding, text=text)
    assert {"turbopump", "7%2E25"} & result["key_tokens"].keys()
    assert named_tokens(result["sparse_embedding"], words_model, text) == pytest.approx(result["key_tokens"], abs=1e-6)
    retriever = SparseRetriever(store, model=words_folder)
    hits = pairs(retriever.run(query_sparse_embedding=result["sparse_embedding"], query=text)["documents"])
    assert_ranking(hits, dot_products(result["key_tokens"], documents), rel=1e-5)


def test_without_its_text_a_sparse_query_is_its_known_words_and_says_so(words_model, caplog):
    index = words_model.vocabulary.unseen_index("turbopump")
    with caplog.at_level(logging.WARNING):
        found = named_tokens(SparseEmbedding([0, index], [1.0, 0.5]), words_model)
    assert found == {words_model.vocabulary.keys[0]: 1.0}
    assert caplog.text.count("1 words of the query are left out") == 1
    assert "pass `query`" in caplog.text


@pytest.mark.parametrize("text", ["", "turbopump", "the flow"])
def test_an_index_that_is_neither_a_feature_nor_a_word_of_the_text_is_refused(words_model, text):
    index = words_model.vocabulary.unseen_index("ramjet")
    with pytest.raises(ValueError, match=rf"index {index}, which is neither one of the \d+ features .* nor a word"):
        named_tokens(SparseEmbedding([0, index], [1.0, 0.5]), words_model, text)


@pytest.mark.parametrize("index", [-1, 2**31 - 1, 2**40])
def test_an_index_that_no_word_can_have_is_refused_without_a_text_too(words_model, index):
    with pytest.raises(ValueError, match=rf"index {index}, which is neither"):
        named_tokens(SparseEmbedding([0, index], [1.0, 0.5]), words_model)


def test_each_row_becomes_a_sparse_embedding(words_model):
    vocabulary = words_model.vocabulary
    counts = vocabulary.literal_counts(["lift ramjet ramjet", "", "turbopump"])
    found = sparse_embeddings(counts, vocabulary)
    index = vocabulary.unseen_index
    assert [dict(zip(row.indices, row.values, strict=True)) for row in found] == [
        {vocabulary.features.index("lift"): 1, index("ramjet"): 2},
        {},
        {index("turbopump"): 1},
    ]
    assert sparse_embeddings(TokenRows(counts.rows[:0], counts.unseen), vocabulary) == []


def test_new_words_are_explained_as_they_are_spelled(documents, literal):
    (hit,) = (document for document in documents if document.id == "number")
    tokens = literal("7.25") | literal("foo_bar") | literal("turbopump")
    (explained,) = KeyTokenExplainer().run(documents=[hit], key_tokens=tokens)["documents"]
    matched = {entry["token"]: entry["contribution"] for entry in explained.meta["matched_tokens"]}
    assert matched.keys() == {"7.25", "foo_bar", "foo", "bar"}
    assert sum(matched.values()) == pytest.approx(dot_products(tokens, [hit])["number"])


def lucene_bm25(texts: dict[str, str], query: str) -> dict[str, float]:
    words = {key: text.split() for key, text in texts.items()}
    average = sum(map(len, words.values())) / len(words)
    scores: Counter[str] = Counter()
    for word in query.split():
        frequency = sum(word in text for text in words.values())
        idf = math.log(1 + (len(words) - frequency + 0.5) / (frequency + 0.5))
        for key, text in words.items():
            tf = text.count(word)
            scores[key] += idf * tf / (tf + 1.2 * (0.25 + 0.75 * len(text) / average))
    return {key: score for key, score in scores.items() if score > 0}


def test_bm25_of_a_store_counts_new_words_also_those_of_documents_that_come_later(words_folder):
    texts = {"a": "turbopump flow", "b": "flow heat flow", "c": "wing"}
    store = InMemoryDocumentStore()
    store.write_documents([Document(id=key, content=text) for key, text in texts.items()])
    retriever = SparseRetriever(store, model=words_folder, bm25_weight=1.0)
    queries = ("turbopump", "ramjet turbopump flow", "scramjet")
    for later in ({}, {"d": "ramjet turbopump"}, {"e": "scramjet scramjet wing"}):
        texts |= later
        store.write_documents([Document(id=key, content=text) for key, text in later.items()])
        for query in queries:
            hits = pairs(retriever.run(key_tokens={}, query=query)["documents"])
            assert_ranking(hits, lucene_bm25(texts, query), rel=1e-5)
    store.delete_documents(["a"])
    del texts["a"]
    for query in queries:
        hits = pairs(retriever.run(key_tokens={}, query=query)["documents"])
        assert_ranking(hits, lucene_bm25(texts, query), rel=1e-5)
