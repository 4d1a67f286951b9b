# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Refine a decoder on a corpus, by self-distillation. Needs torch."""

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from keytok_haystack.confidence import Chance
from keytok_haystack.decoder import TokenDecoder
from keytok_haystack.embedding_space import Preparation
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.sparse_vectors.rows import row_maxima
from keytok_haystack.utils.checks import check_embeddings, check_not_one_string, check_same_number
from keytok_haystack.utils.extras import needs
from keytok_haystack.utils.sampling import random_rows
from keytok_haystack.weighting import Weighting

MINIMUM_TEXTS = 16
_MAXIMUM_TEXTS = 8192


def refine(
    model: KeyTokenModel,
    embeddings: ArrayLike,
    texts: Sequence[str] | None = None,
    *,
    seed: int = 0,
    device: str | None = None,
    progress_bar: bool = False,
) -> KeyTokenModel:
    """
    Refine a model's decoder by self-distillation: sparse scores between texts learn to follow the dense ones.

    Each text of a batch is in turn the query. Its sparse scores of the others, and of a near neighbour of each, become
    a distribution (softmax) that learns to follow a teacher's (Kullback-Leibler divergence, Adam); gradients pass
    straight through the choice of the top tokens. The teacher is 0.3 of the dense similarity and 0.7 of the decoder's
    own first sparse score with twice as many tokens, each in units of its standard deviation: dense scores alone would
    pull a decoder that retrieves better than they do down to them, and its tokens away from their meaning.

    A tenth of the texts is held out: refinement ends after 150 steps, or when these have stopped improving, and keeps
    the best decoder seen. It learns from at most 8,192 texts, so its time does not grow with the corpus.

    :param model: Model to refine.
    :param embeddings: Shape `(n, d)`, of the texts that the model was fitted to, or some of them.
    :param texts: The `n` texts; with them the decoder learns to say what a document's literal tokens do not.
    :param seed: Seed of the choice of texts, of those held out, and of batches. On a CPU the same seed gives the same
        model.
    :param device: Device to compute on, as torch names it; by default a GPU if there is one.
    :param progress_bar: Whether to show a progress bar.
    :returns: The refined model, with the duration in `refine_seconds`.
    :raises EmbeddingError: The embeddings are unusable: wrong dimension, zero or not finite.
    :raises ValueError: There are not as many texts as embeddings, fewer than 16, or the device cannot be used.
    :raises TypeError: `texts` is one string, or a text is not a string.
    :raises ModuleNotFoundError: torch is not installed.
    """
    started = time.perf_counter()
    check_not_one_string(texts)
    checked = check_embeddings(embeddings, model.dimension)
    if texts is not None:
        check_same_number(len(checked), len(texts))
    rows = random_rows(len(checked), _MAXIMUM_TEXTS, seed)
    chosen = checked[rows]
    counts = None if texts is None else model.vocabulary.literal_counts([texts[row] for row in rows]).known
    literals = None if counts is None else model.literal_logits(counts)
    weight = _distilled(
        model.decoder, chosen, literals, model.weighting, seed=seed, device=device, progress_bar=progress_bar
    )
    decoder = TokenDecoder(weight, model.decoder.preparation)
    refined = replace(model, decoder=decoder)
    if counts is None and model.weighting.literal_factor > 0:  # fitted with texts: scales follow the logits' size
        refined = _rescaled(refined, model.decoder, chosen)
    else:
        refined = refined.scaled_to(chosen, counts, check_input=False)
    return replace(refined, refined=True, refine_seconds=time.perf_counter() - started)


def check_enough_texts(n: int) -> None:
    """
    Require texts to learn from, and to hold out.

    :param n: Number of texts.
    :raises ValueError: There are fewer than 16.
    """
    if n < MINIMUM_TEXTS:
        msg = f"Refining needs at least {MINIMUM_TEXTS} texts, but there are {n}."
        raise ValueError(msg)


def _distilled(
    decoder: TokenDecoder,
    embeddings: NDArray[np.float32],
    literals: csr_array | None,
    weighting: Weighting,
    *,
    seed: int,
    device: str | None,
    progress_bar: bool,
) -> NDArray[np.float32]:
    """Return the refined matrix of a decoder of `v` features; literals have the shape `(n, V)`, `V >= v`."""
    with needs("refine", "Refining needs torch"):
        from keytok_haystack.decoders import distillation  # noqa: PLC0415  # torch takes seconds to import

    check_enough_texts(len(embeddings))
    if literals is None:
        literals = csr_array((len(embeddings), len(decoder)), dtype=np.float32)
    data = distillation.TrainingData(
        decoder.preparation(embeddings), Preparation()(embeddings), csr_array(literals[:, : len(decoder)])
    )
    return distillation.distill(decoder.weight, data, weighting, seed=seed, device=device, progress_bar=progress_bar)


def _rescaled(refined: KeyTokenModel, before: TokenDecoder, embeddings: NDArray[np.float32]) -> KeyTokenModel:
    """Return a refined model whose scales have changed with the size of its logits."""
    sizes = [
        float(row_maxima(decoder.top_k(embeddings, 1, check_input=False)).mean())
        for decoder in (before, refined.decoder)
    ]
    ratio = sizes[1] / sizes[0] if min(sizes) > 0 else 1.0
    weighting = refined.weighting
    rescaled = refined.with_weighting(
        literal_scale=weighting.literal_scale * ratio,
        weight_scale=weighting.weight_scale * ratio ** ((1 - weighting.normalization) * weighting.exponent),
    )
    return replace(rescaled, chance=Chance.of(refined.decoder, embeddings))
