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
    Alignment of embeddings with their texts; `T` is the set of a text's literal features, special tokens excluded.

    :param hit_at_k: The share of texts with at least one of `T` among the top `k` aligned tokens.
    :param local_alignment_rate: The mean share of `T` that is among the top `|T|` aligned tokens.
    :param global_alignment_rate: Of the union of all `T`, the share that is so aligned in at least one text.
    """

    hit_at_k: float
    local_alignment_rate: float
    global_alignment_rate: float


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
    counts = vocabulary.literal_counts(texts)
    if counts.shape[0] != len(np.asarray(embeddings)):
        msg = f"There are {len(np.asarray(embeddings))} embeddings, but {counts.shape[0]} texts."
        raise ValueError(msg)
    hits, local = [], []
    existing = np.zeros(len(vocabulary), dtype=bool)
    matched = np.zeros(len(vocabulary), dtype=bool)
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
            existing[literals] = True
            matched[found] = True
    if not hits:
        msg = "None of the texts has a feature of the vocabulary, so there is nothing to align with."
        raise ValueError(msg)
    return Alignment(float(np.mean(hits)), float(np.mean(local)), float(matched.sum() / existing.sum()))
