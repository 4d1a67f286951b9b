# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""How surely an embedding decodes to tokens: its strength, compared with that of random embeddings."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from keytok_haystack.decoder import TokenDecoder

_SAMPLES = 1000
_FEWEST_DOCUMENTS = 20  # that say something about where their embeddings come from

UNSURE = 0.5
"""Confidence below which an embedding is no clearer than a random one; for many documents, the median counts."""


@dataclass(frozen=True, eq=False)
class Chance:
    """
    Strengths of random embeddings: what decodes to tokens by chance.

    The strength of an embedding is its largest logit. An embedding that says something about the words of the fitting
    corpus has a logit that stands out; that of an empty text, of stop words, of another subject, or of another embedder
    has none. Random embeddings have the mean and the covariance of the corpus, and so say nothing in particular.

    :param strengths: Shape `(r,)`, ascending, `r > 0`.
    :raises ValueError: The strengths are empty, not finite or not ascending.
    """

    strengths: NDArray[np.float32]

    def __post_init__(self) -> None:
        """Check the strengths."""
        given = self.strengths
        if given.ndim != 1 or given.size == 0 or not np.isfinite(given).all() or (np.diff(given) < 0).any():
            msg = "The strengths of chance must be finite numbers in ascending order."
            raise ValueError(msg)

    @classmethod
    def of(cls, decoder: TokenDecoder, embeddings: NDArray[np.float32]) -> Self:
        """
        Decode random embeddings.

        :param decoder: Decoder of the embeddings.
        :param embeddings: Shape `(n, d)`, checked: a sample of the fitting corpus, `n > 0`.
        """
        mean = embeddings.mean(axis=0)
        factors = np.random.default_rng(0).standard_normal((_SAMPLES, len(embeddings)), dtype=np.float32)
        random = mean + factors @ (embeddings - mean) / np.float32(np.sqrt(len(embeddings)))
        return cls(np.sort(decoder.decode(random, 1, check_input=False).strengths))

    def confidences(self, strengths: NDArray[np.float32]) -> NDArray[np.float32]:
        """
        Return the share of random embeddings that are weaker than each of some embeddings.

        :param strengths: Shape `(n,)`, their largest logits.
        :returns: Shape `(n,)`, from 0 to 1: about 0.5 for what says nothing, about 1 for what says something.
        """
        weaker = np.searchsorted(self.strengths, strengths) / len(self.strengths)
        return weaker.astype(np.float32)


def as_floats(confidences: NDArray[np.float32] | None, n: int) -> list[float | None]:
    """Return `n` confidences, rounded to thousandths, as JSON has them; None if they are not known."""
    return [None] * n if confidences is None else [round(each, 3) for each in confidences.astype(float).tolist()]


def note_of(confidence: float | None) -> str:
    """Return a confidence for people, with what a low one means; empty if it is not known."""
    if confidence is None:
        return ""
    weak = ": it says hardly anything that the model was fitted to" if confidence < UNSURE else ""
    return f"confidence {confidence:.2f}{weak}"


def warning_of(confidences: NDArray[np.float32] | None) -> str | None:
    """
    Return a warning if the embeddings of documents seem wrong, with the remedy, or None.

    :param confidences: Shape `(n,)`, those of documents.
    """
    if confidences is None or len(confidences) < _FEWEST_DOCUMENTS:
        return None
    median = float(np.median(confidences))
    if median >= UNSURE:
        return None
    return (
        f"The embeddings of these documents decode to tokens as weakly as random ones (median confidence {median:.2f}; "
        "0.99 is usual): check that they come from the embedder that the key-token model was fitted to, or fit a model "
        "to texts on their subject."
    )
