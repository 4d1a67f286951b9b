# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""What retrievers find, beside what they should find."""

import math
from collections import Counter
from collections.abc import Iterable
from pkgutil import resolve_name
from typing import Any

import pytest
from haystack import Document
from haystack.document_stores.in_memory import InMemoryDocumentStore
from helpers.rankings import stored
from helpers.words import WORDS

from haystack_integrations.components.retrievers.keytok import SparseRetriever
from keytok_haystack.sparse_vectors.rank_features import unescape_feature


def dot_product(tokens: dict[str, float], query: dict[str, float]) -> float:
    return math.fsum(weight * stored(tokens[token]) for token, weight in query.items() if token in tokens)


def dot_products(query: dict[str, float], documents: list[Document], field: str = "key_tokens") -> dict[str, float]:
    scores = {document.id: dot_product(document.meta.get(field) or {}, query) for document in documents}
    return {key: score for key, score in scores.items() if score > 0}


def pairs(documents: list[Document]) -> list[tuple[str, float]]:
    return [(document.id, document.score) for document in documents]


def search(retriever: SparseRetriever, key_tokens: dict[str, float], **arguments) -> list[tuple[str, float]]:
    return pairs(retriever.run(key_tokens=key_tokens, **arguments)["documents"])


def own_meta(hit: Document) -> dict[str, Any]:
    """The `meta` that a document was written with, without what a search tells about it."""
    return {key: value for key, value in hit.meta.items() if key not in ("matched_tokens", "score_parts")}


def assert_matched(hit: Document, query: dict[str, float], tokens: dict[str, float]) -> None:
    """A hit tells the very tokens that it shares with the query, the strongest contribution first."""
    shared = {
        unescape_feature(key): (weight, stored(tokens[key]), weight * stored(tokens[key]))
        for key, weight in query.items()
        if key in tokens
    }
    told = hit.meta["matched_tokens"]
    parts = ("query_weight", "document_weight", "contribution")
    assert {match["token"]: tuple(match[part] for part in parts) for match in told} == shared
    assert [match["contribution"] for match in told] == sorted((part for *_, part in shared.values()), reverse=True)


def assert_ranking(hits: list[tuple[str, float]], expected: dict[str, float], rel: float = 1e-6) -> None:
    """The hits are exactly what is expected, with these scores, best first."""
    assert dict(hits) == pytest.approx(expected, rel=rel)
    assert len(hits) == len(expected)
    scores = [score for _, score in hits]
    assert scores == sorted(scores, reverse=True)


def fresh(store):
    """A store over the same index, with clients of its own."""
    return type(store).from_dict(store.to_dict())


def brute_force(store: InMemoryDocumentStore, query: dict[str, float], top_k: int = 10) -> list[tuple[str, float]]:
    scores = dot_products(query, list(store.storage.values()))
    return sorted(scores.items(), key=lambda hit: (-hit[1], hit[0]))[:top_k]


def lucene_bm25(documents: Iterable[Document], text: str) -> dict[str, float]:
    """Okapi BM25 as in Lucene's BM25Similarity, over lower-cased words; documents without a word do not count."""
    words = {d.id: [w for w in (d.content or "").lower().split() if w in WORDS] for d in documents}
    lengths = {identifier: len(found) for identifier, found in words.items() if found}
    scores = Counter()
    for word in text.lower().split():
        frequency = sum(word in found for found in words.values())
        idf = math.log(1 + (len(lengths) - frequency + 0.5) / (frequency + 0.5))
        for identifier, length in lengths.items():
            tf = words[identifier].count(word)
            norm = 1.2 * (1 - 0.75 + 0.75 * length / (sum(lengths.values()) / len(lengths)))
            scores[identifier] += idf * tf / (tf + norm)
    return {identifier: score for identifier, score in scores.items() if score > 0}


def own_bm25_retriever(store):
    """The retriever by BM25 that comes with a document store."""
    name = type(store).__name__.removesuffix("DocumentStore")
    package = "haystack.components.retrievers.in_memory"
    if name != "InMemory":
        package = f"haystack_integrations.components.retrievers.{name.lower()}"
    options = {"fuzziness": "0"} if name == "Elasticsearch" else {}  # its default matches words of other spelling
    return resolve_name(f"{package}:{name}BM25Retriever")(document_store=store, **options)


def store_of(tokens: dict[str, dict[str, float]]) -> InMemoryDocumentStore:
    store = InMemoryDocumentStore()
    store.write_documents([Document(id=key, content=key, meta={"key_tokens": value}) for key, value in tokens.items()])
    return store
