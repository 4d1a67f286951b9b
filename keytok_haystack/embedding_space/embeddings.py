# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Embeddings in batches, from an array or from a stream, and compared."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keytok_haystack.utils.checks import check_embeddings

BATCH_SIZE = 1024


def in_batches(embeddings: ArrayLike | Iterable[ArrayLike]) -> Iterator[NDArray[np.float32]]:
    """
    Yield embeddings in checked batches.

    :param embeddings: An array or a list of vectors, shape `(n, d)`, which is cut into batches, or an iterable of such
        arrays of any sizes.
    :raises EmbeddingError: As `check_embeddings`, or a batch's dimension differs from the first one's.
    """
    batches: Iterable[ArrayLike]
    if isinstance(embeddings, np.ndarray) or (
        isinstance(embeddings, Sequence) and len(embeddings) and np.ndim(embeddings[0]) == 1
    ):
        batches = (embeddings[start : start + BATCH_SIZE] for start in range(0, len(embeddings), BATCH_SIZE))
    else:
        batches = embeddings  # type: ignore[assignment]  # an ArrayLike of another kind is a sequence of batches
    dimension = None
    position = 0
    for batch in batches:
        array = check_embeddings(batch, dimension, position)
        dimension = array.shape[1]
        position += len(array)
        yield array


def cosine(first: ArrayLike, second: ArrayLike) -> float:
    """
    Return the cosine similarity of two vectors, 0 if one of them is zero.

    :param first: Shape `(d,)`.
    :param second: Shape `(d,)`.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) or 1.0))
