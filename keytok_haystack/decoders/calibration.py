# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Fit what a decoder that was read from a checkpoint lacks."""

from collections.abc import Iterable
from dataclasses import replace

from numpy.typing import ArrayLike

from keytok_haystack.decoder import TokenDecoder
from keytok_haystack.embedding_space import Preparation, Spectrum
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.utils.checks import EmbeddingError, check_embeddings
from keytok_haystack.weighting import idf_of


def calibrate(
    model: KeyTokenModel,
    embeddings: "ArrayLike",
    texts: Iterable[str] | None = None,
    *,
    preparation: Preparation | None = None,
    embedder: str | None = None,
) -> KeyTokenModel:
    """
    Fit what a decoder read from a checkpoint lacks: the spectrum, the mean, the weight scale, and the idf.

    :param model: The model to complete; its decoder's matrix stays as it is.
    :param embeddings: Shape `(n, d)`, a sample of the corpus, a few thousand at most.
    :param texts: The `n` texts, for the idf of literal tokens; without them all literal tokens of a query weigh alike,
        and documents have none.
    :param preparation: What to do with embeddings; its mean is replaced by the one fitted, its transform by the head's.
        By default the first principal component is removed (section 4 of the paper); `Preparation()` leaves it.
    :param embedder: The name of the embedding model, kept in the model.
    :raises EmbeddingError: The embeddings are unusable, or of another dimension than the head.
    :raises ValueError: There are not as many texts as embeddings.
    """
    checked = check_embeddings(embeddings)
    if checked.shape[1] != model.dimension:
        msg = (
            f"The head has {model.dimension} dimensions, but the embeddings {checked.shape[1]}: it is not of their "
            "model's backbone, or they were projected. Name the embedder's own backbone, or fit a decoder instead."
        )
        raise EmbeddingError(msg)
    spectrum = Spectrum.from_embeddings(checked)
    uncentred = replace(preparation or spectrum.removal(), mean=None, transform=model.decoder.preparation.transform)
    centred = replace(uncentred, mean=uncentred(checked).mean(axis=0))
    idf, counts = model.idf, None
    if texts is not None:
        counts = model.vocabulary.literal_counts(texts)
        if counts.shape[0] != len(checked):
            msg = f"There are {len(checked)} embeddings, but {counts.shape[0]} texts."
            raise ValueError(msg)
        idf = idf_of(counts)
    calibrated = replace(
        model,
        decoder=TokenDecoder(model.decoder.weight, centred),
        spectrum=spectrum,
        idf=idf,
        embedder=embedder,
    )
    return calibrated.scaled_to(checked, counts)
