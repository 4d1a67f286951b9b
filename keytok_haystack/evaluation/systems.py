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
from scipy.sparse import csr_array

from keytok_haystack.embedding_space import Preparation
from keytok_haystack.evaluation.measures import ranking
from keytok_haystack.inverted_index import BM25_B, BM25_K1, Bm25, Postings
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.sparse_vectors.rank_features import truncate_weights, two_decimals
from keytok_haystack.sparse_vectors.rows import scale_columns, top_k
from keytok_haystack.sparse_vectors.token_rows import TokenRows
from keytok_haystack.vocabulary import Vocabulary

BM25_SHARE = 0.1
_RRF_K = 60


@dataclass(frozen=True)
class System:
    """
    Retrieval system that ranks the documents of a collection.

    :param scores: Function from the position of a query to the scores of all documents, shape `(n,)`; 0 means not
        found.
    :param nbytes: Memory of its index, in bytes.
    """

    scores: Callable[[int], NDArray[np.floating]]
    nbytes: int


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

    index = bm25s.BM25(method="lucene", k1=BM25_K1, b=BM25_B)
    index.index(tokens(texts), show_progress=False)
    queries = tokens(query_texts)

    def scores(i: int) -> NDArray[np.floating]:
        found: NDArray[np.floating] = index.get_scores(queries[i]) if queries[i] else np.zeros(len(texts))
        return found

    return System(scores, sum(index.scores[name].nbytes for name in ("data", "indices", "indptr")))


def bm25_of_tokens(vocabulary: Vocabulary, texts: Sequence[str], query_texts: Sequence[str]) -> System:
    """Rank by BM25 over a vocabulary's tokens, as the inverted index scores it beside key tokens."""
    index = Bm25(vocabulary)
    index.add(texts)
    index.score("")  # the first query weights the postings
    return System(lambda i: index.score(query_texts[i]), index.nbytes)


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
    postings.add(csr_array((truncate_weights(two_decimals(rows.data)), rows.indices, rows.indptr), shape=rows.shape))

    def scores(i: int) -> NDArray[np.floating]:
        texts = None if query_texts is None else [query_texts[i]]
        query = model.encode_queries(queries[i : i + 1], texts, m_query).onto(columns, rows.shape[1])
        return postings.score(query.indices, query.data)

    return System(scores, postings.nbytes)


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


def single_query(key_token_system: System, lexical: System) -> System:
    """Combine key tokens with BM25, at a weight of 0.1, as one query over one index does."""
    return System(
        lambda i: key_token_system.scores(i) + BM25_SHARE * lexical.scores(i), key_token_system.nbytes + lexical.nbytes
    )


def min_max(*systems: System) -> System:
    """Combine systems by the sum of their scores, each system's scaled to between 0 and 1 for the query."""

    def scaled(scores: NDArray[np.floating]) -> NDArray[np.floating]:
        low, high = scores.min(), scores.max()
        return (scores - low) / (high - low) if high > low else np.zeros_like(scores)

    return System(lambda i: sum((scaled(system.scores(i)) for system in systems), np.zeros(1)), _nbytes(systems))


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

    return System(scores, _nbytes(systems))


def _nbytes(systems: Sequence[System]) -> int:
    return sum(system.nbytes for system in systems)
