# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Targets of embeddings: a distribution over tokens for each text, as sparse rows of sum 1."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from keytok_haystack.decoder import TokenDecoder
from keytok_haystack.embedding_space import Spectrum
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.sparse_vectors.rows import row_maxima, scale_columns, scale_rows, top_k
from keytok_haystack.training.errors import NoTargetsError
from keytok_haystack.training.settings import TargetRule
from keytok_haystack.weighting import inverse_document_frequency

_MODEL_TOKENS = 20
_ALIGNED_TOKENS = 100  # per text, before filters leave some out


def make_targets(
    rule: TargetRule,
    head: KeyTokenModel,
    texts: Sequence[str],
    pool: Callable[[Sequence[str]], NDArray[np.float32]],
) -> csr_array:
    """
    Make the targets of texts.

    :param rule: Rule by which targets are made.
    :param head: Head that reads the embeddings, as `head_of` gives it.
    :param texts: The `n` texts.
    :param pool: Function from texts to the pooled hidden states of the embedder before training, shape `(n, d)`, not
        scaled to unit length, since their length expresses how certain the head is; not called for `kind="data"`.
    :returns: Shape `(n, V)`, rows of sum 1; the row of a text of whose tokens the filters leave none is empty.
    :raises NoTargetsError: The filters leave targets of fewer than 2 texts.
    """
    features = head.vocabulary.features[: len(head.decoder)]  # features without a row in the head come last

    def kept(occurrences: csr_array) -> NDArray[np.bool_]:
        return informative(occurrences, features, min_df=rule.min_df, max_df=rule.max_df, stop_words=rule.stop_words)

    made = []
    if rule.kind != "model":
        counts = csr_array(head.vocabulary.literal_counts(texts).known[:, : len(features)])
        made.append(data_driven(counts, kept(counts)))
    if rule.kind != "data":
        aligned = _without_pc1(head.decoder, states := pool(texts)).top_k(states, _ALIGNED_TOKENS)
        made.append(model_derived(aligned, kept(aligned)))
    targets = made[0] if len(made) == 1 else mixture(made[0], made[1], rule.share)
    if np.count_nonzero(np.diff(targets.indptr)) < 2:
        msg = (
            f"The filters leave hardly any target of {len(texts):,} texts: a token has to be in at least {rule.min_df} "
            f"of them (min-df) and in at most {rule.max_df:.0%} of them (max-df), and must not be a stop word. Use "
            "longer or more texts, or loosen the filters."
        )
        raise NoTargetsError(msg)
    return targets


def informative(
    counts: csr_array,
    features: Sequence[str],
    *,
    min_df: int,
    max_df: float,
    stop_words: Collection[str] = (),
) -> NDArray[np.bool_]:
    """
    Return which features tell texts apart: not too rare, not too frequent, and not stop words.

    :param counts: Shape `(n, V)`, the count of each feature in each text; for aligned tokens, any positive numbers.
    :param features: The `V` features.
    :param min_df: Minimum number of texts with the feature.
    :param max_df: Maximum share of the texts with the feature; features of exactly `min_df` texts are kept regardless.
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
    Return targets made of texts' literal tokens, weighted `sqrt(tf) * idf`.

    :param counts: Shape `(n, V)`, the count of each feature in each text.
    :param kept: Shape `(V,)`, whether a feature may be a target (`informative`).
    :returns: Shape `(n, V)`; the row of a text without a kept feature is empty.
    """
    damped = csr_array((np.sqrt(counts.data), counts.indices, counts.indptr), shape=counts.shape)
    frequency = np.bincount(counts.indices, minlength=counts.shape[1])
    return _distributions(scale_columns(damped, inverse_document_frequency(frequency, counts.shape[0]) * kept))


def model_derived(aligned: csr_array, kept: NDArray[np.bool_], k: int = _MODEL_TOKENS) -> csr_array:
    """
    Return targets made of what embeddings express already: the softmax of the logits of their `k` strongest tokens.

    :param aligned: Shape `(n, V)`, the logits of each text's aligned tokens (`TokenDecoder.top_k`), more than `k`.
    :param kept: Shape `(V,)`, whether a feature may be a target (`informative`).
    :returns: Shape `(n, V)`; the row of a text without a kept feature is empty.
    """
    chosen = top_k(_without_zeros(scale_columns(aligned, kept.astype(np.float32))), k)
    raised = np.exp(chosen.data - np.repeat(row_maxima(chosen), np.diff(chosen.indptr)))
    return _distributions(csr_array((raised, chosen.indices, chosen.indptr), shape=chosen.shape))


def mixture(first: csr_array, second: csr_array, share: float = 0.5) -> csr_array:
    """
    Mix two kinds of targets; a text that has a target of one kind only keeps that.

    :param first: Shape `(n, V)`.
    :param second: Shape `(n, V)`.
    :param share: Share of the first targets in the mixture.
    """
    factors = np.float32(share), np.float32(1 - share)
    return _distributions(csr_array(first * factors[0] + second * factors[1]))


def _distributions(weights: csr_array) -> csr_array:
    """Scale the rows of non-negative weights, shape `(n, V)`, to a sum of 1."""
    weights = _without_zeros(weights)
    sums = np.asarray(weights.sum(axis=1)).ravel()
    return scale_rows(weights, 1 / np.where(sums > 0, sums, 1))


def _without_zeros(rows: csr_array) -> csr_array:
    rows = csr_array(rows, copy=True)  # other rows may share the indices
    rows.eliminate_zeros()
    rows.sort_indices()
    return rows


def _without_pc1(decoder: TokenDecoder, states: NDArray[np.float32]) -> TokenDecoder:
    """Return the decoder that reads hidden states, shape `(n, d)`, without their first principal component."""
    removal = Spectrum.from_embeddings(states).removal()
    transform = decoder.preparation.transform
    return TokenDecoder(decoder.weight, replace(removal, normalize=False, transform=transform))
