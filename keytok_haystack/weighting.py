# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""How logits and literal tokens become the weights of documents and queries."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from operator import index
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from keytok_haystack.sparse_vectors.rows import SparseRow, row_maxima, scale_rows
from keytok_haystack.sparse_vectors.token_rows import TokenRows

IDF_EXPONENT = 1.15  # rare words weigh a little more than by their idf
QUERY_LITERALS = 1.5  # norm of a query's literal tokens, in units of the norm of its aligned ones

DENSE_WEIGHT = 1.5
"""Default factor of cosines that are added to key-token scores."""
BM25_WEIGHT = 0.05
"""Default factor of BM25 scores that are added to them."""
RESCORED = 50
"""Default number of documents that are found by the strongest tokens of a query and scored by all parts."""
FIRST_PHASE = 0.6
"""Default share of a query's weight that its strongest tokens have, by which documents are found."""
_FEWEST = 8  # tokens by which documents are found


def rescore_window(rescored: int, top_k: int) -> int:
    """
    Return the number of candidates that are scored by all parts.

    :param rescored: Number that is asked for.
    :param top_k: Number of documents to return, twice which is the least.
    """
    return max(rescored, 2 * top_k)


@dataclass(frozen=True)
class Weighting:
    """
    The rules by which logits become the weights of documents and queries.

    A document's weights are `(logit / m ** normalization) ** exponent / weight_scale`, where `m` is its largest logit.

    :param k_document: Maximum number of tokens that a document keeps (`K`).
    :param m_query: Maximum number of aligned tokens in a query, beside its literal ones (`M`).
    :param exponent: Exponent of document weights; less than 1 dampens a document's strongest tokens.
    :param normalization: Degree of normalization by the largest logit: at 1 the strongest token of every document
        weighs the same, at 0 those of documents that decode strongly weigh more.
    :param weight_scale: Divisor that makes the mean over documents of the largest weight 1.
    :param literal_share: Share of a document's logits that comes from its literal tokens, if its text is known: 0
        leaves them out, at 0.5 they count as much as the aligned ones.
    :param gain_share: Share of a query's expected score that its tokens keep, those of the best gain first
        (`drop_poor_gain`); 1 keeps all tokens.
    :param literal_scale: Factor that makes literal tokens comparable with logits: the mean over documents of the
        largest logit, divided by that of the largest `idf * sqrt(tf / length)`; 0 if it has not been fitted.
    :raises ValueError: A setting is out of its range.
    """

    k_document: int = 64
    m_query: int = 64
    exponent: float = 0.5
    normalization: float = 0.25
    weight_scale: float = 1.0
    literal_share: float = 0.4
    gain_share: float = 0.7
    literal_scale: float = 0.0

    def __post_init__(self) -> None:
        """Check the settings, and turn numpy's numbers into Python's, which JSON knows."""
        for field in fields(self):
            kind = index if field.type is int else float
            object.__setattr__(self, field.name, kind(getattr(self, field.name)))
        if self.k_document < 1 or self.m_query < 0:
            msg = (
                f"k_document must be at least 1 and m_query at least 0, but they are {self.k_document}, {self.m_query}."
            )
            raise ValueError(msg)
        if max(self.k_document, self.m_query) > np.iinfo(np.int32).max:
            msg = f"k_document and m_query must be less than 2**31, but they are {self.k_document}, {self.m_query}."
            raise ValueError(msg)
        if not (0 < self.exponent < np.inf and 0 < self.weight_scale < np.inf):
            msg = "exponent and weight_scale must be positive and finite."
            raise ValueError(msg)
        if not 0 <= self.normalization <= 1:
            msg = f"normalization must be between 0 and 1, but it is {self.normalization}."
            raise ValueError(msg)
        if not 0 <= self.literal_share < 1:
            msg = f"literal_share must be at least 0 and less than 1, but it is {self.literal_share}."
            raise ValueError(msg)
        if not 0 <= self.literal_scale < np.inf:
            msg = f"literal_scale must be at least 0 and finite, but it is {self.literal_scale}."
            raise ValueError(msg)
        if not 0 < self.gain_share <= 1:
            msg = f"gain_share must be greater than 0 and at most 1, but it is {self.gain_share}."
            raise ValueError(msg)

    @property
    def literal_factor(self) -> float:
        """Factor of a literal token's `idf * sqrt(tf / length)` in the logit of its feature."""
        return self.literal_share / (1 - self.literal_share) * self.literal_scale

    def document_weights(self, logits: csr_array) -> csr_array:
        """Turn positive logits, shape `(n, V)`, into document weights."""
        largest = row_maxima(logits)
        level = np.where(largest > 0, largest, 1) ** self.normalization
        relative = scale_rows(logits, 1 / level)
        data = (relative.data**self.exponent / self.weight_scale).astype(np.float32)
        return csr_array((data, logits.indices, logits.indptr), shape=logits.shape)


def inverse_document_frequency(frequency: NDArray[np.number], count: int) -> NDArray[np.float32]:
    """
    Return Lucene's idf, `ln(1 + (N - df + 0.5) / (df + 0.5))`.

    :param frequency: Shape `(V,)`, number of texts with each feature; 0 counts as 1, so that a feature that has not
        been seen weighs as much as the rarest one that has.
    :param count: Number of texts, `N`.
    """
    at_least_one = np.maximum(frequency, 1)
    idf: NDArray[np.float32] = np.log1p((count - at_least_one + 0.5) / (at_least_one + 0.5)).astype(np.float32)
    return idf


def feature_idf(frequency: NDArray[np.number], count: int) -> NDArray[np.float32]:
    """
    Return the idf by which features are weighted, `inverse_document_frequency ** 1.15`.

    :param frequency: Shape `(V,)`, number of texts with each feature.
    :param count: Number of texts.
    :returns: Shape `(V + 1,)`; the last is that of all words that the vocabulary has not seen.
    """
    idf: NDArray[np.float32] = inverse_document_frequency(np.append(frequency, 0), count) ** np.float32(IDF_EXPONENT)
    return idf


def idf_of(counts: TokenRows) -> NDArray[np.float32]:
    """Return the `feature_idf`, shape `(V + 1,)`, of the `V` features in texts from their literal counts."""
    known = counts.known
    return feature_idf(np.bincount(known.indices, minlength=known.shape[1]), len(counts))


@dataclass(frozen=True, eq=False)
class DocumentStatistics:
    """
    What the key tokens of documents are like, as far as a sample tells.

    :param share: Shape `(V + 1,)`, share of documents that have each feature among their key tokens; the last entry
        serves all words that the vocabulary has not seen.
    :param mean_weight: Shape `(V + 1,)`, mean weight of each feature in the documents that have it.
    """

    share: NDArray[np.float32]
    mean_weight: NDArray[np.float32]

    @classmethod
    def of(cls, weights: csr_array, features: int) -> Self:
        """
        Count and average document weights, shape `(n, V + u)`, of the first `V` features.

        A feature that no document has counts as in one of them, and weighs as much as those that are in one.
        """
        n = weights.shape[0]
        known = weights.indices < features
        frequency = np.bincount(weights.indices[known], minlength=features + 1)
        total = np.bincount(weights.indices[known], weights.data[known], minlength=features + 1)
        rare = frequency == 1
        weight_of_rare = total[rare].mean() if rare.any() else total.sum() / max(frequency.sum(), 1)
        mean_weight = np.where(frequency > 0, total / np.maximum(frequency, 1), weight_of_rare)
        share = np.maximum(frequency, 1) / max(n, 1)
        return cls(share.astype(np.float32), mean_weight.astype(np.float32))


def drop_poor_gain(query: SparseRow, statistics: DocumentStatistics, gain_share: float) -> SparseRow:
    """
    Leave out tokens of a query that cost more postings than they are worth.

    What a token is expected to add to a document's score is its weight times its mean weight in documents; what it
    costs is reading its postings. Tokens are taken in the order of the first over the square root of the second, until
    they account for a share of the sum of the first. At least one is kept.

    :param query: Features and weights of the query.
    :param statistics: Statistics of the documents' key tokens.
    :param gain_share: Share to keep; 1 keeps all.
    """
    columns, weights = query
    if gain_share >= 1 or len(columns) == 0:
        return query
    known = np.minimum(columns, len(statistics.share) - 1)
    expected = weights * statistics.mean_weight[known].astype(np.float64)
    order = np.argsort(-expected / np.sqrt(statistics.share[known]), kind="stable")
    accounted = np.cumsum(expected[order])
    kept = np.sort(order[: np.searchsorted(accounted, gain_share * accounted[-1]) + 1])
    return columns[kept], weights[kept]


def strongest_tokens(tokens: Mapping[str, float], share: float) -> dict[str, float]:
    """
    Return the tokens of a query by which documents are found, before the best of them are scored by all tokens.

    They are the fewest, the strongest first, whose weights sum to a share of all, and at least eight: fewer would save
    nothing.

    :param tokens: Key tokens of the query, `{key: weight}` with positive weights.
    :param share: Share of the sum of all weights; 1 returns all tokens.
    """
    if share >= 1 or len(tokens) <= _FEWEST:
        return dict(tokens)
    ordered = sorted(tokens, key=lambda key: -tokens[key])
    sums = np.cumsum([tokens[key] for key in ordered])
    count = int(np.searchsorted(sums, share * sums[-1])) + 1
    return {key: tokens[key] for key in ordered[: max(count, _FEWEST)]}


def root_frequencies(counts: csr_array) -> csr_array:
    """
    Return the square root of each text's unigram distribution, `sqrt(tf / length)`: rows of unit length.

    :param counts: Shape `(n, V)`, literal counts; an empty row stays empty.
    """
    lengths = np.asarray(counts.sum(axis=1)).ravel()
    per_entry = np.repeat(np.where(lengths > 0, lengths, 1).astype(np.float32), np.diff(counts.indptr))
    return csr_array((np.sqrt(counts.data / per_entry), counts.indices, counts.indptr), shape=counts.shape)


def add_literals(aligned: SparseRow, literals: SparseRow, idf: NDArray[np.float32] | None) -> SparseRow:
    """
    Join a query's aligned tokens with its literal tokens (section 5 of the paper takes the union of the two sets).

    Literal tokens weigh `sqrt(tf) * idf`, and together, as a vector, 1.5 times as much as the aligned ones (Euclidean
    norms): so those of a long query do not drown what its embedding says, and those of a short one do not vanish. A
    query without aligned tokens is its literals alone.

    :param aligned: Features and logits, positive.
    :param literals: Features and counts.
    :param idf: Shape `(V + 1,)`; None weighs all features alike.
    """
    columns, counts = literals
    if len(columns) == 0:
        return aligned
    weights = np.sqrt(counts)
    if idf is not None:
        weights = weights * idf[np.minimum(columns, len(idf) - 1)]
    norm = float(np.linalg.norm(aligned[1])) or 1.0
    weights = weights * (QUERY_LITERALS * norm / (float(np.linalg.norm(weights)) or 1.0))
    joined, position = np.unique(np.concatenate([aligned[0], columns]), return_inverse=True)
    summed = np.bincount(position, np.concatenate([aligned[1], weights]))
    return joined.astype(np.int32), summed.astype(np.float32)
