# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Retrieval systems, as functions from a query to the scores of all documents, and combinations of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import bm25s
import numpy as np
import Stemmer
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array

from keytok_haystack.embedding_space import Preparation
from keytok_haystack.evaluation.measures import ranking
from keytok_haystack.inverted_index import BM25_B, BM25_K1, Bm25, Postings
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.sparse_vectors.rank_features import rounded_weights, truncate_weights
from keytok_haystack.sparse_vectors.rows import dicts_to_rows, scale_columns, top_k
from keytok_haystack.sparse_vectors.token_rows import TokenRows
from keytok_haystack.weighting import BM25_WEIGHT, DENSE_WEIGHT, RESCORED

_RRF_K = 60


@dataclass(frozen=True)
class System:
    """
    Retrieval system that ranks the documents of a collection.

    :param scores: Function from the position of a query to the scores of all documents, shape `(n,)`; 0 means not
        found.
    :param nbytes: Memory of its index, in bytes.
    :param tokens_per_document: Mean number of a document's tokens; None for a system that does not search for tokens.
    :param postings_per_document: Number of postings that a query reads, the sum of its tokens' document frequencies,
        divided by the number of documents; mean over the queries. None for a system that does not search for tokens.
    """

    scores: Callable[[int], NDArray[np.floating]]
    nbytes: int
    tokens_per_document: float | None = None
    postings_per_document: float | None = None


def dense(documents: NDArray[np.float32], queries: NDArray[np.float32]) -> System:
    """Rank by cosine similarity; embeddings have the shapes `(n, d)` and `(queries, d)`."""
    rows, query_rows = Preparation()(documents), Preparation()(queries)

    def scores(i: int) -> NDArray[np.floating]:
        similarities: NDArray[np.floating] = rows @ query_rows[i]
        return similarities

    return System(scores, rows.nbytes)


def stemmed_bm25(texts: Sequence[str], query_texts: Sequence[str]) -> System:
    """Rank by BM25 with English stop words removed, Porter2 stemming, and Lucene's formula and parameters."""
    stemmer = Stemmer.Stemmer("english")

    def tokens(batch: Sequence[str]) -> Any:
        return bm25s.tokenize(list(batch), stopwords="en", stemmer=stemmer, show_progress=False, return_ids=False)

    return _bm25(tokens(texts), tokens(query_texts))


def default_bm25(texts: Sequence[str], query_texts: Sequence[str]) -> System:
    """Rank by BM25 as OpenSearch and Elasticsearch do in a `text` field, unless told otherwise (`Bm25`)."""
    index = Bm25()
    index.add(texts)
    index.score("")  # the first query weights the postings
    return _token_system(
        lambda i: index.score(query_texts[i]), index.nbytes, index.counts, index.query_counts(query_texts)
    )


def _bm25(documents: list[list[str]], queries: list[list[str]]) -> System:
    """Rank by BM25 over tokens, by Lucene's formula and parameters."""
    index = bm25s.BM25(method="lucene", k1=BM25_K1, b=BM25_B)
    index.index(documents, show_progress=False)
    weights, rows, indptr = parts = [index.scores[name] for name in ("data", "indices", "indptr")]

    def scores(i: int) -> NDArray[np.floating]:
        found: NDArray[np.floating] = index.get_scores(queries[i]) if queries[i] else np.zeros(len(documents))
        return found

    known = [{token: 1.0 for token in query if token in index.vocab_dict} for query in queries]
    weighted = csr_array(csc_array((weights, rows, indptr), shape=(len(documents), len(indptr) - 1)))
    return _token_system(scores, sum(part.nbytes for part in parts), weighted, dicts_to_rows(known, index.vocab_dict))


def sparse_vectors(documents: csr_array, queries: csr_array) -> System:
    """Rank by the dot product of sparse vectors over the same tokens, shapes `(n, V)` and `(queries, V)`."""
    postings = Postings()
    postings.add(documents)

    def scores(i: int) -> NDArray[np.floating]:
        tokens = slice(queries.indptr[i], queries.indptr[i + 1])
        return postings.score(queries.indices[tokens], queries.data[tokens])

    return _token_system(scores, postings.nbytes, documents, queries)


def key_tokens(
    model: KeyTokenModel,
    documents: TokenRows,
    queries: NDArray[np.float32],
    query_texts: Sequence[str] | None,
    m_query: int | None = None,
) -> System:
    """
    Rank by key tokens, projecting each query when it is scored.

    :param documents: Key tokens of the documents.
    :param queries: Embeddings of the queries, shape `(queries, d)`.
    :param query_texts: Texts of the queries; None leaves their literal tokens out.
    :param m_query: Number of aligned tokens of a query; by default that of the model.
    """
    rows, postings = documents.rows, Postings()
    columns = {word: len(model.vocabulary) + i for i, word in enumerate(documents.unseen)}
    postings.add(csr_array((truncate_weights(rounded_weights(rows.data)), rows.indices, rows.indptr), shape=rows.shape))

    def encode(part: slice) -> csr_array:
        texts = None if query_texts is None else query_texts[part]
        return model.encode_queries(queries[part], texts, m_query).onto(columns, rows.shape[1])

    def scores(i: int) -> NDArray[np.floating]:
        query = encode(slice(i, i + 1))
        return postings.score(query.indices, query.data)

    return _token_system(scores, postings.nbytes, rows, encode(slice(None)))


def literal_tokens(model: KeyTokenModel, texts: Sequence[str]) -> TokenRows:
    """
    Weight documents' literal tokens by tf-idf and keep as many as a document has key tokens.

    :raises ValueError: The model has no idf.
    """
    if model.idf is None:
        msg = "Literal tokens are weighted by the idf, but this model has none: fit it, or `calibrate` it with texts."
        raise ValueError(msg)
    literals = model.vocabulary.literal_counts(texts)
    counts = literals.rows
    frequencies = csr_array((1 + np.log(counts.data), counts.indices, counts.indptr), shape=counts.shape)
    tf_idf = top_k(scale_columns(frequencies, model.idf), model.weighting.k_document)
    return literals.with_rows(model.weighting.document_weights(tf_idf))


def key_tokens_with_bm25(key_token_system: System, lexical: System) -> System:
    """Add a share of BM25 to key tokens, as one request to one index does."""
    return _combination(
        lambda i: key_token_system.scores(i) + BM25_WEIGHT * lexical.scores(i), (key_token_system, lexical)
    )


def hybrid(key_token_system: System, lexical: System, dense_system: System) -> System:
    """Add BM25 and the cosine to the scores of the best 50 documents by key tokens, as one request does."""

    def scores(i: int) -> NDArray[np.floating]:
        found = key_token_system.scores(i)
        best = np.argpartition(-found, min(RESCORED, len(found)) - 1)[:RESCORED]
        best = best[found[best] > 0]
        # 1 + cos is not negative, so that the best stay ahead of all others
        summed = found.astype(np.float64)
        summed[best] += BM25_WEIGHT * lexical.scores(i)[best] + DENSE_WEIGHT * (1 + dense_system.scores(i)[best])
        return summed

    nbytes = key_token_system.nbytes + lexical.nbytes + dense_system.nbytes
    return System(scores, nbytes, key_token_system.tokens_per_document, key_token_system.postings_per_document)


def min_max(*systems: System) -> System:
    """Combine systems by the sum of their scores, each system's scaled to between 0 and 1 for the query."""

    def scaled(scores: NDArray[np.floating]) -> NDArray[np.floating]:
        low, high = scores.min(), scores.max()
        return (scores - low) / (high - low) if high > low else np.zeros_like(scores)

    return _combination(lambda i: sum((scaled(system.scores(i)) for system in systems), np.zeros(1)), systems)


def reciprocal_rank_fusion(*systems: System) -> System:
    """
    Combine systems by the ranks of their best 100 documents, as Haystack's `DocumentJoiner` in the hybrid pipelines.

    A document's score is the sum of `1 / (60 + rank)` over the systems that find it; ranks start at 1.
    """

    def scores(i: int) -> NDArray[np.floating]:
        scores_of_systems = [system.scores(i) for system in systems]
        fused: NDArray[np.floating] = np.zeros(len(scores_of_systems[0]))
        for ranked in map(ranking, scores_of_systems):
            fused[ranked] += 1 / (_RRF_K + np.arange(1, len(ranked) + 1))
        return fused

    return _combination(scores, systems)


def _token_system(
    scores: Callable[[int], NDArray[np.floating]], nbytes: int, documents: csr_array, queries: csr_array
) -> System:
    """Return a system that searches for tokens; its documents and queries have a column for each."""
    n, width = documents.shape
    frequencies = np.bincount(documents.indices, minlength=width)
    read = float(frequencies[queries.indices].sum()) / queries.shape[0]
    return System(scores, nbytes, documents.nnz / n, read / n)


def _combination(scores: Callable[[int], NDArray[np.floating]], systems: Sequence[System]) -> System:
    """Return a system that searches the indices of others, whose sizes add up."""
    return System(
        scores,
        sum(system.nbytes for system in systems),
        _sum([system.tokens_per_document for system in systems]),
        _sum([system.postings_per_document for system in systems]),
    )


def _sum(values: Sequence[float | None]) -> float | None:
    """Return the sum of values, None if one is missing."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
