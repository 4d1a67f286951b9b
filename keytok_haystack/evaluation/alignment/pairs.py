# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Pairs of similar texts, explained by their key tokens."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from keytok_haystack.embedding_space import Preparation, cosine
from keytok_haystack.evaluation.alignment.report import Pair
from keytok_haystack.evaluation.alignment.token_classes import literal_forms, surface_form, tokens_of
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.utils.sampling import evenly_spaced_rows

_N_PAIRS = 3


def explain_pair(model: KeyTokenModel, texts: tuple[str, str], embeddings: NDArray[np.float32]) -> Pair:
    """
    Explain the similarity of two texts by their key tokens, as documents without literal tokens.

    :param model: A calibrated or fitted model.
    :param texts: The two texts.
    :param embeddings: Their embeddings, shape `(2, d)`.
    """
    a, b = model.encode_documents(embeddings).rows.toarray()
    products = a * b
    score = float(products.sum())
    literals_a, literals_b = (literal_forms(model, text) for text in texts)
    literals = literals_a & literals_b
    in_both = [i for i in np.flatnonzero(products) if surface_form(model.vocabulary.features[i]) in literals]
    adjusted = embeddings if model.spectrum is None else model.spectrum.adjust(embeddings)
    return Pair(
        *texts,
        cosine=cosine(*embeddings),
        adjusted_cosine=cosine(*adjusted),
        key_token_cosine=cosine(a, b),
        shared=tokens_of(model, products / (score or 1.0), literals),
        literal_share=float(products[in_both].sum() / (score or 1.0)),
        only_a=tokens_of(model, np.where(b > 0, 0, a), literals_a),
        only_b=tokens_of(model, np.where(a > 0, 0, b), literals_b),
    )


def similar_pairs(
    texts: Sequence[str], embeddings: NDArray[np.float32]
) -> list[tuple[tuple[str, str], NDArray[np.float32]]]:
    """
    Choose a few texts, evenly spaced, and pair each with the most similar different text.

    :param texts: The `n` texts.
    :param embeddings: Shape `(n, d)`.
    :returns: Pairs of texts with their embeddings, shape `(2, d)`.
    """
    centred = Preparation()(embeddings)
    centred = centred - centred.mean(axis=0)
    chosen: dict[frozenset[int], tuple[int, int]] = {}
    for row in evenly_spaced_rows(len(texts), _N_PAIRS).tolist():
        similarities = centred @ centred[row]
        similarities[[text == texts[row] for text in texts]] = -np.inf
        other = int(similarities.argmax())
        if np.isfinite(similarities[other]):
            chosen.setdefault(frozenset((row, other)), (row, other))
    return [((texts[i], texts[j]), embeddings[[i, j]]) for i, j in chosen.values()]
