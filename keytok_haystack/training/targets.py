# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""What the embedding of a text should say: a distribution over tokens, one sparse row of sum 1 for each text."""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from keytok_haystack.sparse_vectors.rows import row_maxima, scale_columns, scale_rows, strongest
from keytok_haystack.weighting import idf_of

_MODEL_TOKENS = 20


def informative(
    counts: csr_array,
    features: Sequence[str],
    *,
    min_df: int,
    max_df: float,
    stop_words: Collection[str] = (),
) -> NDArray[np.bool_]:
    """
    Return which features can tell texts apart: not too rare, not too frequent, and no stop words.

    :param counts: Shape `(n, V)`, how often each text has each feature; or, of aligned tokens, any positive numbers.
    :param features: The `V` features.
    :param min_df: Features of fewer texts are left out.
    :param max_df: Features of more than this share of the texts are left out, unless `min_df` texts have them
        and no more.
    :param stop_words: Features to leave out, in lower case.
    :returns: Shape `(V,)`.
    """
    frequency = np.bincount(counts.indices, minlength=len(features))
    most = max(max_df * counts.shape[0], min_df)
    stopped = np.fromiter((feature in stop_words for feature in features), dtype=bool, count=len(features))
    kept: NDArray[np.bool_] = (frequency >= min_df) & (frequency <= most) & ~stopped
    return kept


def data_driven(counts: csr_array, kept: NDArray[np.bool_]) -> csr_array:
    """
    Return targets made of texts' own tokens, weighted `sqrt(tf) * idf`.

    :param counts: Shape `(n, V)`, how often each text has each feature.
    :param kept: Shape `(V,)`, the features that may be targets (`informative`).
    :returns: Shape `(n, V)`; the row of a text of which nothing is left is empty.
    """
    damped = csr_array((np.sqrt(counts.data), counts.indices, counts.indptr), shape=counts.shape)
    return _distributions(scale_columns(damped, idf_of(counts) * kept))


def model_derived(aligned: csr_array, kept: NDArray[np.bool_], k: int = _MODEL_TOKENS) -> csr_array:
    """
    Return targets made of what a backbone's embeddings say already: the softmax of their `k` strongest tokens' logits.

    :param aligned: Shape `(n, V)`, the logits of each text's aligned tokens (`TokenDecoder.top_k`), more than `k`.
    :param kept: Shape `(V,)`, the features that may be targets (`informative`).
    :returns: Shape `(n, V)`; the row of a text of which nothing is left is empty.
    """
    chosen = strongest(_without_zeros(scale_columns(aligned, kept.astype(np.float32))), k)
    raised = np.exp(chosen.data - np.repeat(row_maxima(chosen), np.diff(chosen.indptr)))
    return _distributions(csr_array((raised, chosen.indices, chosen.indptr), shape=chosen.shape))


def mixture(first: csr_array, second: csr_array, share: float = 0.5) -> csr_array:
    """
    Return `share` times the first targets plus the rest of the second; a text that has one of them only keeps that.

    :param first: Shape `(n, V)`.
    :param second: Shape `(n, V)`.
    """
    factors = np.float32(share), np.float32(1 - share)
    return _distributions(csr_array(first * factors[0] + second * factors[1]))


def _distributions(weights: csr_array) -> csr_array:
    """Scale the rows of non-negative weights, shape `(n, V)`, to a sum of 1."""
    weights = _without_zeros(weights)
    sums = np.asarray(weights.sum(axis=1)).ravel()
    return scale_rows(weights, 1 / np.where(sums > 0, sums, 1))


def _without_zeros(rows: csr_array) -> csr_array:
    rows = csr_array(rows, copy=True)  # rows of other weights may share the indices
    rows.eliminate_zeros()
    rows.sort_indices()
    return rows
