# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Checks of shapes and types: what public functions ask of embeddings and texts."""

import re
from collections.abc import Iterable
from contextlib import suppress

import numpy as np
from numpy.typing import ArrayLike, NDArray

_NUMBERS = "fiu"  # kinds of numpy's types: floats, integers, unsigned ones
_SCALARS = {int, float, *(np.dtype(code).type for code in np.typecodes["AllInteger"] + np.typecodes["Float"])}
_LARGEST_NORM = 1e37  # up to which sums of a few such numbers fit in float32
_SURROGATE = re.compile("[\ud800-\udfff]")


class EmbeddingError(ValueError):
    """Embeddings that cannot be used: wrong shape, not finite, or zero."""


def check_embeddings(embeddings: ArrayLike, dimension: int | None = None, first: int = 0) -> NDArray[np.float32]:
    """
    Return embeddings as a float32 array of shape `(n, d)`.

    :param embeddings: `n` embeddings of dimension `d`.
    :param dimension: Expected dimension `d`, if known.
    :param first: Position of the first embedding in the stream that it comes from, for messages.
    :raises EmbeddingError: The array is not two-dimensional, has another `d`, or a row is zero, not finite, or longer
        than 1e37.
    """
    array = _as_numbers(embeddings)
    if dimension is not None and array.shape[1] != dimension:
        msg = (
            f"The embeddings have {array.shape[1]} dimensions, but {dimension} are expected: "
            "use the embedder that the key-token model was made for."
        )
        raise EmbeddingError(msg)
    squared_norms = np.einsum("nd,nd->n", array, array, dtype=np.float64)
    if not np.isfinite(squared_norms).all():
        msg = f"Embedding {first + int(np.argmin(np.isfinite(squared_norms)))} contains NaN or infinity, as float32."
        raise EmbeddingError(msg)
    if (squared_norms > _LARGEST_NORM**2).any():
        msg = (
            f"Embedding {first + int(np.argmax(squared_norms))} has the length {squared_norms.max() ** 0.5:.1g}, but "
            f"embeddings are shorter than {_LARGEST_NORM:.0g}."
        )
        raise EmbeddingError(msg)
    if not squared_norms.all():
        msg = f"Embedding {first + int(np.argmin(squared_norms))} is the zero vector, which has no direction to decode."
        raise EmbeddingError(msg)
    return array


def _as_numbers(embeddings: ArrayLike) -> NDArray[np.float32]:
    """Return embeddings as a float32 array of two dimensions, whose entries may be infinite or NaN."""
    try:
        given = np.asarray(embeddings)
    except (TypeError, ValueError) as error:
        msg = f"Embeddings must be n vectors of one length, made of numbers: {error}"
        raise EmbeddingError(msg) from error
    if given.ndim != 2:
        msg = f"Embeddings must have the shape (n, d), but this one is {given.shape}."
        raise EmbeddingError(msg)
    if given.dtype == object and all(type(entry) in _SCALARS for entry in given.flat):
        with suppress(OverflowError):  # integers that numpy's are too small for
            given = given.astype(np.float64)
    if given.dtype.kind not in _NUMBERS:  # numpy would read numbers off strings, and cut complex ones
        msg = f"Embeddings must be made of numbers, but these are of type {given.dtype}."
        raise EmbeddingError(msg)
    with np.errstate(over="ignore"):  # what is too large becomes infinite
        return given.astype(np.float32, copy=False)


def check_not_one_string(texts: object) -> None:
    """
    Refuse one string where several texts are expected: its characters would be taken for texts.

    :raises TypeError: `texts` is a string.
    """
    if isinstance(texts, str):
        msg = "`texts` must be an iterable of strings, not one string."
        raise TypeError(msg)


def check_texts(texts: Iterable[str], first: int = 0) -> None:
    """
    Refuse texts that are not of whole characters.

    :param first: Position of the first text in the stream that it comes from, for messages.
    :raises TypeError: A text is not a string, or `texts` is one.
    :raises ValueError: A text has half a surrogate pair, as JSON gives for an emoji that was cut in two.
    """
    check_not_one_string(texts)
    for position, text in enumerate(texts, start=first):
        if not isinstance(text, str):
            msg = f"Texts must be strings, but text {position} is of type {type(text).__name__}."
            raise TypeError(msg)
        if not text.isascii() and _SURROGATE.search(text):
            msg = f"Texts must be of whole characters, but text {position} has half a surrogate pair: replace it."
            raise ValueError(msg)


def check_same_number(embeddings: int, texts: int) -> None:
    """
    Require a text for each embedding.

    :param embeddings: Number of embeddings.
    :param texts: Number of texts.
    :raises ValueError: The numbers differ.
    """
    if embeddings != texts:
        msg = f"There are {embeddings} embeddings, but {texts} texts."
        raise ValueError(msg)
