# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The moments of a stream of vectors."""

import numpy as np
from numpy.typing import NDArray


class Moments:
    """Count, mean and second moment of a stream of vectors; `O(d^2)` memory, accumulated in float64."""

    def __init__(self, dimension: int) -> None:
        self.count = 0
        self._sum = np.zeros(dimension)
        self._products = np.zeros((dimension, dimension))

    def add(self, vectors: NDArray[np.floating]) -> None:
        """Add a batch, shape `(n, d)`."""
        batch = vectors.astype(np.float64)
        self.count += len(batch)
        self._sum += batch.sum(axis=0)
        self._products += batch.T @ batch

    @property
    def mean(self) -> NDArray[np.float64]:
        """The mean vector, shape `(d,)`."""
        return self._sum / self.count

    @property
    def second_moment(self) -> NDArray[np.float64]:
        """The sum of `x x'` over the vectors, not centred; shape `(d, d)`."""
        return self._products

    @property
    def scatter(self) -> NDArray[np.float64]:
        """The sum of `(x - mean)(x - mean)'` over the vectors; shape `(d, d)`."""
        return self._products - self.count * np.outer(self.mean, self.mean)
