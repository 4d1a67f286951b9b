# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Moments of a stream of vectors."""

from collections.abc import Iterable
from typing import Self

import numpy as np
from numpy.typing import NDArray

from keytok_haystack.utils.checks import EmbeddingError


class Moments:
    """Count, mean and second moment of a stream of vectors; `O(d^2)` memory, accumulated in float64."""

    def __init__(self, dimension: int) -> None:
        self.count = 0
        self._sum = np.zeros(dimension)
        self._products = np.zeros((dimension, dimension))

    @classmethod
    def of(cls, batches: Iterable[NDArray[np.floating]]) -> Self:
        """
        Accumulate the moments of batches, shape `(n, d)` each.

        :raises EmbeddingError: There are no vectors.
        """
        moments = None
        for batch in batches:
            moments = moments or cls(batch.shape[1])
            moments.add(batch)
        if moments is None or moments.count == 0:
            msg = "There are no embeddings to compute principal components from."
            raise EmbeddingError(msg)
        return moments

    def add(self, vectors: NDArray[np.floating]) -> None:
        """Add a batch, shape `(n, d)`."""
        batch = vectors.astype(np.float64)
        self.count += len(batch)
        self._sum += batch.sum(axis=0)
        self._products += batch.T @ batch

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean vector, shape `(d,)`."""
        return self._sum / self.count

    @property
    def second_moment(self) -> NDArray[np.float64]:
        """Sum of `x x'` over the vectors, not centred; shape `(d, d)`."""
        return self._products

    @property
    def scatter(self) -> NDArray[np.float64]:
        """Sum of `(x - mean)(x - mean)'` over the vectors; shape `(d, d)`."""
        return self._products - self.count * np.outer(self.mean, self.mean)
