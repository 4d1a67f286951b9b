# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""How well embeddings align with the tokens of their own texts: the measures of section 3 of the paper."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

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
    from scipy.stats import rankdata  # noqa: PLC0415  # most of a second to import

    counts = vocabulary.literal_counts(texts)
    if counts.shape[0] != len(np.asarray(embeddings)):
        msg = f"There are {len(np.asarray(embeddings))} embeddings, but {counts.shape[0]} texts."
        raise ValueError(msg)
    counts = counts[:, : len(decoder)]
    hits, local, areas = [], [], []
    existing = np.zeros(len(decoder), dtype=bool)
    matched = np.zeros(len(decoder), dtype=bool)
    row = 0
    for logits in decoder.chunks(embeddings):
        for values in logits:
            literals = counts.indices[counts.indptr[row] : counts.indptr[row + 1]]
            row += 1
            if len(literals) == 0:
                continue
            ranking = np.argsort(-values, kind="stable")
            found = np.intersect1d(ranking[: len(literals)], literals)
            hits.append(np.isin(ranking[:k], literals).any())
            local.append(len(found) / len(literals))
            others = len(values) - len(literals)
            if others:
                beaten = rankdata(values)[literals].sum() - len(literals) * (len(literals) + 1) / 2
                areas.append(beaten / (len(literals) * others))
            existing[literals] = True
            matched[found] = True
    if not hits:
        msg = "None of the texts has a feature of the vocabulary, so there is nothing to align with."
        raise ValueError(msg)
    return Alignment(
        float(np.mean(hits)),
        float(np.mean(local)),
        float(matched.sum() / existing.sum()),
        float(np.mean(areas)) if areas else 1.0,
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
