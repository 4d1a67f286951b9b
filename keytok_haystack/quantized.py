# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""A matrix in 8 bits, by which the largest of its products with a vector are found without computing all."""

from collections.abc import Iterator

import numkong
import numpy as np
from numpy.typing import NDArray

from keytok_haystack.sparse_vectors.rows import SparseRow, lower_bound_of_kth
from keytok_haystack.utils.blocks import row_blocks

_LARGEST = 127  # of 8 bits, symmetric
_ROUNDING = 1e-6  # of products in float32, relative to the norms
_LARGEST_ERROR = 1 / 64  # of a vector, relative to its norm
_VECTORS = 32  # multiplied at a time


class QuantizedMatrix:
    """
    A matrix `M`, shape `(V, d)`, each row in 8 bits a number and one scale.

    Its products with vectors are exact sums of integers, from which each product of `M` itself is known up to a bound:
    that of the two rounding errors, by Cauchy and Schwarz. So a few hundredths of the rows can have the largest
    products, and the others need no other look. It reads a quarter of what floats take, and what it finds is the same
    for a vector alone and in any batch, on any number of threads.

    :param matrix: `M`, float32, finite.
    """

    def __init__(self, matrix: NDArray[np.float32]) -> None:
        self._matrix = matrix
        self._integers = np.empty(matrix.shape, dtype=np.int8)
        self._steps = np.empty(len(matrix), dtype=np.float32)
        self._errors = np.empty(len(matrix), dtype=np.float32)
        self._norms = np.empty(len(matrix), dtype=np.float32)
        for rows in row_blocks(matrix):
            self._integers[rows], steps, rest = _quantized(matrix[rows])
            self._steps[rows] = steps
            self._errors[rows] = np.linalg.norm(rest, axis=1)
            self._norms[rows] = np.linalg.norm(matrix[rows], axis=1)

    def largest_products(self, vectors: NDArray[np.float32], k: int) -> Iterator[SparseRow]:
        """
        Yield, for each vector, the `k` rows with the largest positive products; of equal ones, the first.

        :param vectors: Shape `(n, d)`.
        :param k: Number of rows, at least 1; more than `V` is all.
        :returns: Rows, ascending, and their products, summed in float32.
        """
        for start in range(0, len(vectors), _VECTORS):
            block = vectors[start : start + _VECTORS]
            exactly = block.astype(np.float64)
            integers, steps, rest = _quantized(exactly)
            # all in units of the vector's step, so that no vector is too large
            units = np.where(steps > 0, steps, 1)
            sums = self._sums(integers)
            norms = np.linalg.norm(exactly, axis=1) / units
            errors = np.linalg.norm(rest, axis=1) / units
            if (errors > _LARGEST_ERROR * norms).any():
                integers, steps, rest = _quantized(rest)
                sums += self._sums(integers) * (steps / units).astype(np.float32)[:, None]
                errors = np.linalg.norm(rest, axis=1) / units
            for i, vector in enumerate(block):
                products = sums[i] * self._steps
                bounds = self._errors * np.float32(norms[i] + errors[i])
                bounds += self._norms * np.float32(errors[i] + _ROUNDING * norms[i])
                candidates = _candidates(products, bounds, k)
                # a sum whose order does not depend on how many there are, as that of BLAS does
                exact = np.einsum("cd,d->c", self._matrix.take(candidates, axis=0), vector)
                kept = np.argsort(-exact, kind="stable")[: min(k, np.count_nonzero(exact > 0))]
                kept.sort()
                yield candidates[kept].astype(np.int32), exact[kept]

    def _sums(self, integers: NDArray[np.int8]) -> NDArray[np.float32]:
        """Return the products of vectors, shape `(n, d)`, with the rows, both in 8 bits; shape `(n, V)`."""
        return np.asarray(numkong.cdist(integers, self._integers, "dot")).astype(np.float32)


def _candidates(products: NDArray[np.float32], bounds: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    """Return what may be among the `k` largest positive of numbers that are known up to a bound."""
    least = products - bounds
    largest = products + bounds
    threshold = lower_bound_of_kth(least, k) if k <= len(least) else np.float32(0)
    return np.flatnonzero((largest >= threshold) & (largest > 0))


def _quantized(rows: NDArray[np.floating]) -> tuple[NDArray[np.int8], NDArray[np.floating], NDArray[np.floating]]:
    """Return rows in 8 bits, shape `(n, d)`, the size of each row's steps, shape `(n,)`, and what is left of them."""
    steps = np.abs(rows).max(axis=1, initial=0) / rows.dtype.type(_LARGEST)
    integers = np.rint(rows / np.where(steps > 0, steps, 1)[:, None])
    return integers.astype(np.int8), steps, rows - integers * steps[:, None]
