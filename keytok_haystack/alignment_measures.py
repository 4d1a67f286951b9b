# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Alignment of embeddings with the literal tokens of their texts: the measures of section 3 of the paper."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from keytok_haystack.decoder import TokenDecoder
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.utils.checks import check_same_number
from keytok_haystack.utils.sampling import evenly_spaced_rows
from keytok_haystack.vocabulary import Vocabulary


@dataclass(frozen=True)
class Alignment:
    """
    Alignment of embeddings with their texts; `T` is the set of a text's literal features that have a logit.

    :param hit_at_k: Share of texts with at least one of `T` among the top `k` aligned tokens.
    :param local_alignment_rate: Mean share of `T` that is among the top `|T|` aligned tokens.
    :param global_alignment_rate: Share of the union of all `T` that is so aligned in at least one text.
    :param literal_auc: Probability that a feature of `T` has a larger logit than one outside `T`, the mean over texts
        (area under the ROC curve).
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
    :param decoder: Decoder of the embeddings.
    :param vocabulary: Features of the decoder.
    :param texts: The `n` texts; those without a feature are left out.
    :param k: Number of aligned tokens that count for Hit@K.
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
    :param subsets: Subsets of the decoder's features, for each of which an alignment is measured.
    :param k: Number of aligned tokens that count for Hit@K.
    :raises ValueError: There are not as many texts as embeddings, or no text has one of the features.
    """
    counts = vocabulary.literal_counts(texts).known
    check_same_number(len(np.asarray(embeddings)), counts.shape[0])
    tallies = [(subset, counts[:, subset], _Tally(len(subset), k)) for subset in subsets]
    row = 0
    for logits in decoder.chunks(embeddings):
        for values in logits:
            for subset, literals, tally in tallies:
                tally.add(values[subset], literals.indices[literals.indptr[row] : literals.indptr[row + 1]])
            row += 1
    return [tally.alignment for _, _, tally in tallies]


class _Tally:
    """Counts over texts, among `size` features."""

    def __init__(self, size: int, k: int) -> None:
        self._k = k
        self._hits: list[bool] = []
        self._local: list[float] = []
        self._areas: list[float] = []
        self._existing, self._matched = np.zeros((2, size), dtype=bool)

    def add(self, logits: NDArray[np.float32], literals: NDArray[np.integer[Any]]) -> None:
        """Add a text: its logits, shape `(size,)`, and its literal features, distinct."""
        count = len(literals)
        if count == 0:
            return
        ascending = np.sort(logits)
        # sorting all positions takes ten times as long as sorting the values, and only the strongest are asked for
        strong = np.flatnonzero(logits >= ascending[-min(max(self._k, count), len(logits))])
        ranking = strong[np.argsort(-logits[strong], kind="stable")]
        found = np.intersect1d(ranking[:count], literals)
        self._hits.append(bool(np.isin(ranking[: self._k], literals).any()))
        self._local.append(len(found) / count)
        if count < len(logits):
            self._areas.append(_area_under_roc(ascending, logits[literals]))
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


def literal_auc(logits: NDArray[np.floating], literals: csr_array) -> float:
    """
    Return the probability that a literal feature of a text has a larger logit than another: the mean over texts.

    :param logits: Shape `(n, v)`.
    :param literals: Shape `(n, v)`, non-zero where a text has a feature. Texts that have none or all are left out.
    :returns: 0.5 for logits that have nothing to do with the texts, and if no text counts.
    """
    areas = []
    for row, (start, stop) in enumerate(pairwise(literals.indptr.tolist())):
        if 0 < stop - start < literals.shape[1]:
            areas.append(_area_under_roc(np.sort(logits[row]), logits[row, literals.indices[start:stop]]))
    return float(np.mean(areas)) if areas else 0.5


def _area_under_roc(ascending: NDArray[np.floating], positive: NDArray[np.floating]) -> float:
    """Return the probability that one of some values, shape `(p,)`, is larger than one of all others."""
    count = len(positive)
    below, up_to = (np.searchsorted(ascending, positive, side) for side in ("left", "right"))
    ranks = (below + 1 + up_to) / 2  # from 1, equal values share the mean of theirs
    return float(ranks.sum() - count * (count + 1) / 2) / (count * (len(ascending) - count))


def tokens_kept(before: TokenDecoder, after: TokenDecoder, embeddings: ArrayLike, k: int = 10) -> float:
    """
    Return the share of embeddings' top `k` aligned tokens that are still among them after a decoder has changed.

    :param before: Decoder of `V` features.
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


@dataclass(frozen=True)
class RefinementEffect:
    """
    Effect of refinement on the meaning of a model's tokens.

    :param tokens_kept: Share of texts' top 10 aligned tokens that are still among them.
    :param before: Alignment of embeddings with their texts by the decoder before refinement.
    :param after: The same by the refined decoder.
    """

    tokens_kept: float
    before: Alignment
    after: Alignment

    @classmethod
    def measure(
        cls, before: KeyTokenModel, after: KeyTokenModel, embeddings: NDArray[np.float32], texts: Sequence[str]
    ) -> Self:
        """Compare two models of the same features on at most 1,000 texts, evenly spaced; embeddings `(n, d)`."""
        rows = evenly_spaced_rows(len(texts), 1000)
        chosen, chosen_texts = embeddings[rows], [texts[row] for row in rows]
        return cls(
            tokens_kept(before.decoder, after.decoder, chosen),
            *(alignment(model.decoder, model.vocabulary, chosen, chosen_texts) for model in (before, after)),
        )
