# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""How well embeddings align with the tokens of their own texts: the measures of section 3 of the paper."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keytok_haystack.decoder import TokenDecoder
from keytok_haystack.vocabulary import Vocabulary


@dataclass(frozen=True)
class Alignment:
    """
    Alignment of embeddings with their texts; `T` is the set of a text's literal features that the decoder knows.

    :param hit_at_k: The share of texts with at least one of `T` among the top `k` aligned tokens.
    :param local_alignment_rate: The mean share of `T` that is among the top `|T|` aligned tokens.
    :param global_alignment_rate: Of the union of all `T`, the share that is so aligned in at least one text.
    :param literal_auc: How likely a feature of `T` has a larger logit than one that is not of `T`, the mean over texts
        (the area under the ROC curve).
    """

    hit_at_k: float
    local_alignment_rate: float
    global_alignment_rate: float
    literal_auc: float


def alignment(
    decoder: TokenDecoder, vocabulary: Vocabulary, embeddings: ArrayLike, texts: Iterable[str], k: int = 10
) -> Alignment:
    """
    Measure the alignment of embeddings with their texts.

    :param embeddings: Shape `(n, d)`.
    :param texts: The `n` texts; those without a feature are left out.
    :param k: The `k` of Hit@K.
    :raises ValueError: There are not as many texts as embeddings, or no text has a feature.
    """
    (among_all,) = alignments_among(decoder, vocabulary, embeddings, texts, [np.arange(len(decoder))], k)
    return among_all


def alignments_among(
    decoder: TokenDecoder,
    vocabulary: Vocabulary,
    embeddings: ArrayLike,
    texts: Iterable[str],
    subsets: Sequence[NDArray[np.integer[Any]]],
    k: int = 10,
) -> list[Alignment]:
    """
    Measure the alignment of embeddings with their texts among some of the features, as if there were no others.

    :param embeddings: Shape `(n, d)`.
    :param texts: The `n` texts; those without one of the features are left out.
    :param subsets: Features that the decoder knows; for each subset there is an alignment.
    :param k: The `k` of Hit@K.
    :raises ValueError: There are not as many texts as embeddings, or no text has one of the features.
    """
    counts = vocabulary.literal_counts(texts)
    if counts.shape[0] != len(np.asarray(embeddings)):
        msg = f"There are {len(np.asarray(embeddings))} embeddings, but {counts.shape[0]} texts."
        raise ValueError(msg)
    tallies = [(subset, counts[:, subset], _Tally(len(subset), k)) for subset in subsets]
    row = 0
    for logits in decoder.chunks(embeddings):
        for values in logits:
            for subset, own, tally in tallies:
                tally.add(values[subset], own.indices[own.indptr[row] : own.indptr[row + 1]])
            row += 1
    return [tally.alignment for _, _, tally in tallies]


class _Tally:
    """What has been counted over texts; `size` features."""

    def __init__(self, size: int, k: int) -> None:
        self._k = k
        self._hits: list[bool] = []
        self._local: list[float] = []
        self._areas: list[float] = []
        self._existing, self._matched = np.zeros((2, size), dtype=bool)

    def add(self, logits: NDArray[np.float32], literals: NDArray[np.integer[Any]]) -> None:
        """Add a text: its logits, shape `(size,)`, and its own features, distinct."""
        own = len(literals)
        if own == 0:
            return
        ascending = np.sort(logits)
        # sorting all positions takes ten times as long as sorting the values, and only the strongest are asked for
        strong = np.flatnonzero(logits >= ascending[-min(max(self._k, own), len(logits))])
        ranking = strong[np.argsort(-logits[strong], kind="stable")]
        found = np.intersect1d(ranking[:own], literals)
        self._hits.append(bool(np.isin(ranking[: self._k], literals).any()))
        self._local.append(len(found) / own)
        if others := len(logits) - own:
            below, up_to = (np.searchsorted(ascending, logits[literals], side) for side in ("left", "right"))
            ranks = (below + 1 + up_to) / 2  # from 1, equal logits share the mean of theirs
            self._areas.append(float(ranks.sum() - own * (own + 1) / 2) / (own * others))
        self._existing[literals] = True
        self._matched[found] = True

    @property
    def alignment(self) -> Alignment:
        if not self._hits:
            msg = "None of the texts has a feature of the vocabulary, so there is nothing to align with."
            raise ValueError(msg)
        return Alignment(
            float(np.mean(self._hits)),
            float(np.mean(self._local)),
            float(self._matched.sum() / self._existing.sum()),
            float(np.mean(self._areas)) if self._areas else 1.0,
        )


def tokens_kept(before: TokenDecoder, after: TokenDecoder, embeddings: ArrayLike, k: int = 10) -> float:
    """
    Return the share of embeddings' top `k` aligned tokens that are still among them after a decoder has changed.

    :param before: A decoder of `V` features.
    :param after: Another decoder of the same features.
    :param embeddings: Shape `(n, d)`.
    :raises ValueError: The decoders differ in their number of features.
    """
    if len(before) != len(after):
        msg = f"Only decoders of the same features can be compared, but they have {len(before)} and {len(after)}."
        raise ValueError(msg)
    old, new = before.top_k(embeddings, k), after.top_k(embeddings, k)
    old.data[:], new.data[:] = 1, 1
    return float(old.multiply(new).sum() / max(old.nnz, 1))
