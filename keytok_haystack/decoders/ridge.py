# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The ridge regression of a corpus's tokens on its embeddings, from sums that one pass accumulates."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from keytok_haystack.embedding_space import Moments
from keytok_haystack.sparse_vectors.rows import join_rows, split_rows
from keytok_haystack.sparse_vectors.token_rows import TokenRows
from keytok_haystack.utils.checks import EmbeddingError
from keytok_haystack.utils.sampling import Reservoir
from keytok_haystack.weighting import root_frequencies

_GCV_GRID = np.logspace(-4, 1, 41)
_SAMPLE_SIZE = 4096


class RegressionSums:
    """
    Sums over a corpus that the regression needs: `X'X`, `X'Y`, document frequencies, and a sample of the documents.

    :param shift: Shape `(d,)`, about the mean of the prepared embeddings; it keeps their common part out of sums that
        are taken in float32.
    :param decodable: Shape `(V,)`, whether a feature may be regressed.
    """

    def __init__(self, shift: NDArray[np.float32], decodable: NDArray[np.bool_]) -> None:
        n_features = len(decodable)
        self.moments = Moments(len(shift))
        self.document_frequency = np.zeros(n_features)
        self.sample = DocumentSample(_SAMPLE_SIZE)
        self._target_sum = np.zeros(n_features)
        self._target_energy = np.zeros(n_features)
        self._row = np.where(decodable, np.cumsum(decodable) - 1, -1)
        # Y'(X - shift): rows of features that never occur are never touched, so that they take up no memory
        self._cross_products = np.zeros((np.count_nonzero(decodable), len(shift)), dtype=np.float32)
        self._shift = shift

    def add(self, prepared: NDArray[np.float32], counts: TokenRows, embeddings: NDArray[np.float32]) -> None:
        """
        Add a batch.

        :param prepared: Shape `(n, d)`, prepared embeddings, not centred.
        :param counts: Literal counts of the texts.
        :param embeddings: Shape `(n, d)`, the embeddings as they were given.
        """
        features = len(self.document_frequency)
        target = csr_array(root_frequencies(counts.rows)[:, :features])  # words not seen before count as length
        present = np.unique(target.indices)
        present = present[self._row[present] >= 0]
        self._cross_products[self._row[present]] += target[:, present].T @ (prepared - self._shift)
        self._target_sum += np.bincount(target.indices, target.data, minlength=features)
        self._target_energy += np.bincount(target.indices, np.square(target.data), minlength=features)
        self.document_frequency += np.bincount(target.indices, minlength=features)
        self.moments.add(prepared)
        self.sample.add(embeddings, counts)

    def solve(self, features: NDArray[np.int64], regularization: float | Literal["gcv"]) -> "RidgeSolution":
        """
        Return the ridge regression of some features, `v` of the decodable ones.

        :raises EmbeddingError: The embeddings are all the same.
        :raises ValueError: The texts are all the same in their features.
        """
        count = self.moments.count
        if count == 1:
            msg = "There is only one text, so nothing can be fitted: use more texts."
            raise ValueError(msg)
        energies, vectors = np.linalg.eigh(self.moments.scatter)
        energies = np.maximum(energies, 0.0)
        if energies.mean() <= 1e-12 * count:
            msg = "The embeddings are all the same, so nothing can be fitted to them."
            raise EmbeddingError(msg)
        common = np.outer(self._target_sum[features], self.moments.mean - self._shift)
        centred = self._cross_products[self._row[features]] - common
        rotated = centred @ vectors
        spread = self._target_energy[features].sum() - np.square(self._target_sum[features]).sum() / count
        if spread <= 1e-6 * count:
            msg = "The texts are all the same in their features, so nothing can be fitted."
            raise ValueError(msg)
        if regularization == "gcv":
            penalty = self._gcv(energies, np.square(rotated).sum(axis=0), spread)
        else:
            penalty = regularization * energies.sum() / count
        return RidgeSolution(
            coefficients=np.asarray((rotated / (energies + penalty)) @ vectors.T),
            mean_input=self.moments.mean,
            mean_target=self._target_sum[features] / count,
            inverse_root=vectors / np.sqrt(energies + penalty),
            count=count,
        )

    def _gcv(self, energies: NDArray[np.float64], projected: NDArray[np.float64], total: float) -> float:
        """Return the penalty with the least generalized cross-validation error, from a grid."""
        count = self.moments.count
        penalties = _GCV_GRID * energies.mean()
        shrinkage = 1 / (energies + penalties[:, None])
        residual = total - (projected * (2 * shrinkage - energies * shrinkage**2)).sum(axis=1)
        freedom = 1 + (energies * shrinkage).sum(axis=1)
        # with hardly a degree of freedom left, residuals are rounding errors, and the error cannot be estimated
        is_known = count - freedom > 0.01 * count
        errors = np.where(is_known, residual / (count - freedom) ** 2, np.inf)
        return float(penalties[np.argmin(errors)] if is_known.any() else penalties[-1])


@dataclass(frozen=True, eq=False)
class RidgeSolution:
    """
    A ridge regression of `v` features on embeddings of dimension `d`.

    :param coefficients: Shape `(v, d)`.
    :param mean_input: Shape `(d,)`, mean of the prepared embeddings.
    :param mean_target: Shape `(v,)`, mean of the targets.
    :param inverse_root: Shape `(d, d)`, a matrix `R` with `R R' = (X'X + lambda I)^-1`.
    :param count: Number of texts.
    """

    coefficients: NDArray[np.float64]
    mean_input: NDArray[np.float64]
    mean_target: NDArray[np.float64]
    inverse_root: NDArray[np.float64]
    count: int

    def held_out(self, prepared: NDArray[np.float32], targets: csr_array) -> NDArray[np.float64]:
        """
        Predict the targets of texts as if each had been left out of the regression, but for their mean.

        A text's leverage `h`, the share of its own target in its prediction, gives that without another regression:
        `(prediction - h * target) / (1 - h)` (Allen's PRESS).

        :param prepared: Shape `(n, d)`, prepared embeddings of texts that the regression has seen.
        :param targets: Shape `(n, v)`, their targets.
        :returns: Shape `(n, v)`.
        """
        centred = prepared - self.mean_input
        leverage = np.square(centred @ self.inverse_root).sum(axis=1) + 1 / self.count
        leverage = np.minimum(leverage, 1 - 1e-6)[:, None]
        predicted = centred @ self.coefficients.T + leverage * self.mean_target
        rows = np.repeat(np.arange(len(prepared)), np.diff(targets.indptr))
        predicted[rows, targets.indices] -= leverage[rows, 0] * targets.data
        return np.asarray(predicted / (1 - leverage))


class DocumentSample:
    """Uniform sample of the embeddings and literal counts of a stream, the same for the same stream."""

    def __init__(self, size: int) -> None:
        self._reservoir = Reservoir(size)
        self._rows: list[NDArray[np.float32]] = []
        self._counts: list[tuple[NDArray[np.int32], NDArray[np.float32]]] = []

    def add(self, embeddings: NDArray[np.float32], counts: TokenRows) -> None:
        """Add a batch, shape `(n, d)`, and its `n` rows of counts, in which all unseen words become one."""
        features = counts.known.shape[1]
        for row, (columns, data) in zip(embeddings, split_rows(counts.rows), strict=True):
            if (place := self._reservoir.place()) is not None:
                known = columns < features
                unseen = data[~known].sum()
                kept = columns[known].copy(), data[known].copy()
                if unseen:
                    kept = np.append(kept[0], np.int32(features)), np.append(kept[1], unseen)
                self._rows[place : place + 1] = [row.copy()]
                self._counts[place : place + 1] = [kept]

    @property
    def embeddings(self) -> NDArray[np.float32]:
        """Sampled embeddings, shape `(s, d)`."""
        return np.array(self._rows)

    def counts(self, n_features: int) -> csr_array:
        """Return the literal counts of the sampled texts, shape `(s, V + 1)`, the last column for all unseen words."""
        return join_rows(self._counts, n_features + 1)
