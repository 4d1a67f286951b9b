# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Calibration: what a decoder that was read from a checkpoint lacks is fitted to a sample of the corpus."""

import time
from collections.abc import Iterable
from dataclasses import replace

from numpy.typing import ArrayLike

from keytok_haystack.decoder import TokenDecoder
from keytok_haystack.embedding_space import BATCH_SIZE, Moments, Preparation, Spectrum, embed_filter
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.utils.checks import EmbeddingError, check_embeddings, check_same_number
from keytok_haystack.weighting import idf_of


def calibrate(
    model: KeyTokenModel,
    embeddings: ArrayLike,
    texts: Iterable[str] | None = None,
    *,
    preparation: Preparation | None = None,
    kept_spectrum: float | None = None,
    embedder: str | None = None,
) -> KeyTokenModel:
    """
    Fit what a decoder read from a checkpoint lacks: the spectrum, the mean, the weight scale, and the idf.

    :param model: Model to complete; its decoder's matrix stays as it is.
    :param embeddings: Shape `(n, d)`, a sample of the corpus, a few thousand at most.
    :param texts: The `n` texts, for the idf of literal tokens; without them all literal tokens of a query weigh alike,
        and documents have none.
    :param preparation: Preparation of embeddings in place of the removal of the first principal component (section 4 of
        the paper); `Preparation()` leaves it. Its mean is replaced by the one fitted, its transform by the head's.
    :param kept_spectrum: Share of the head's spectrum to keep, its bulk (`embed_filter`), in addition to the
        preparation; None keeps it whole.
    :param embedder: Name of the embedding model, kept in the model.
    :returns: The model, with the duration in `fit_seconds`.
    :raises EmbeddingError: The embeddings are unusable, or of another dimension than the head.
    :raises ValueError: There are not as many texts as embeddings, or `kept_spectrum` is not between 0 and 1, or given
        for a head that is not linear.
    """
    started = time.perf_counter()
    checked = check_embeddings(embeddings)
    if checked.shape[1] != model.dimension:
        msg = (
            f"The head has {model.dimension} dimensions, but the embeddings {checked.shape[1]}: it does not belong to "
            "their model's backbone, or they were projected. Name the embedder's own backbone, or fit a decoder."
        )
        raise EmbeddingError(msg)
    transform = model.decoder.preparation.transform
    batches = (checked[start : start + BATCH_SIZE] for start in range(0, len(checked), BATCH_SIZE))
    spectrum = Spectrum.from_moments(Moments.of(batches))
    preparation = preparation or spectrum.removal()
    if kept_spectrum is not None:
        if transform is not None:
            msg = "A masked-language-model head transforms embeddings before its matrix: its spectrum is not theirs."
            raise ValueError(msg)
        preparation = embed_filter(model.decoder.weight, kept_spectrum, preparation)
    uncentred = replace(preparation, mean=None, transform=transform)
    centred = replace(uncentred, mean=uncentred(checked).mean(axis=0))
    idf, counts = model.idf, None
    if texts is not None:
        literals = model.vocabulary.literal_counts(texts)
        check_same_number(len(checked), len(literals))
        idf, counts = idf_of(literals), literals.known
    calibrated = replace(
        model,
        decoder=TokenDecoder(model.decoder.weight, centred),
        spectrum=spectrum,
        idf=idf,
        embedder=embedder,
    )
    return replace(calibrated.scaled_to(checked, counts, check_input=False), fit_seconds=time.perf_counter() - started)
