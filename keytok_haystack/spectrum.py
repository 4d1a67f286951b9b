# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The principal components of an embedding space, computed from a stream of embeddings."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

BATCH_SIZE = 1024


class EmbeddingError(ValueError):
    """Embeddings that cannot be used: of the wrong shape, not finite, or zero."""


def check_embeddings(embeddings: ArrayLike, dimension: int | None = None) -> NDArray[np.float32]:
    """
    Return embeddings as a float32 array of shape `(n, d)`.

    :param embeddings: `n` embeddings of dimension `d`.
    :param dimension: The `d` that is expected, if known.
    :raises EmbeddingError: The array is not two-dimensional, has another `d`, or a row is zero or not finite.
    """
    try:
        array = np.asarray(embeddings, dtype=np.float32)
    except (TypeError, ValueError) as error:
        msg = f"Embeddings must be n vectors of one length, made of numbers: {error}"
        raise EmbeddingError(msg) from error
    if array.ndim != 2:
        msg = f"Embeddings must have the shape (n, d), but this one is {array.shape}."
        raise EmbeddingError(msg)
    if dimension is not None and array.shape[1] != dimension:
        msg = (
            f"The embeddings have {array.shape[1]} dimensions, but {dimension} are expected: "
            "use the embedder that the key-token model was made for."
        )
        raise EmbeddingError(msg)
    squared_norms = np.einsum("nd,nd->n", array, array, dtype=np.float64)
    if not np.isfinite(squared_norms).all():
        msg = f"Embedding {int(np.argmin(np.isfinite(squared_norms)))} contains NaN or infinity."
        raise EmbeddingError(msg)
    if not squared_norms.all():
        msg = f"Embedding {int(np.argmin(squared_norms))} is the zero vector, which has no direction to decode."
        raise EmbeddingError(msg)
    return array


def in_batches(embeddings: "ArrayLike | Iterable[ArrayLike]") -> Iterator[NDArray[np.float32]]:
    """
    Go through embeddings in checked batches.

    :param embeddings: An array or a list of vectors, shape `(n, d)`, which is cut into batches, or an iterable of such
        arrays, any sizes.
    :raises EmbeddingError: As `check_embeddings`, or a batch's dimension differs from the first one's.
    """
    batches: Iterable[ArrayLike]
    if isinstance(embeddings, Sequence) and len(embeddings) and np.ndim(embeddings[0]) == 1:
        embeddings = check_embeddings(embeddings)
    if isinstance(embeddings, np.ndarray):
        batches = (embeddings[start : start + BATCH_SIZE] for start in range(0, len(embeddings), BATCH_SIZE))
    else:
        batches = embeddings  # type: ignore[assignment]  # an ArrayLike that is no array is a sequence of batches
    dimension = None
    for batch in batches:
        array = check_embeddings(batch, dimension)
        dimension = array.shape[1]
        yield array


class Moments:
    """Count, mean and second moment of a stream of vectors; `O(d^2)` memory, accumulated in float64."""

    def __init__(self, dimension: int) -> None:
        self.count = 0
        self._sum = np.zeros(dimension)
        self._products = np.zeros((dimension, dimension))

    def add(self, vectors: NDArray[np.float32]) -> None:
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


@dataclass(frozen=True, eq=False)
class Spectrum:
    """
    The mean and the leading principal components of an embedding space.

    The components are those of the *uncentred* embeddings, as in section 4 of the paper: the first one, `pc1`, is
    mostly what all texts share, and an LM head decodes it to stop words and punctuation.

    :param mean: Shape `(d,)`.
    :param components: Shape `(k, d)`, orthonormal rows, strongest first, each with `mean . component >= 0`.
    :param explained_energy: Shape `(k,)`, each component's share of the sum of squared norms.
    """

    mean: NDArray[np.float32]
    components: NDArray[np.float32]
    explained_energy: NDArray[np.float32]

    @classmethod
    def from_embeddings(cls, embeddings: "ArrayLike | Iterable[ArrayLike]", n_components: int = 16) -> "Spectrum":
        """
        Compute the spectrum of embeddings.

        :param embeddings: Shape `(n, d)`, or an iterable of such batches.
        :param n_components: How many components to keep, at most `d`.
        :raises EmbeddingError: There are none, or one is unusable (`check_embeddings`).
        """
        moments = None
        for batch in in_batches(embeddings):
            moments = moments or Moments(batch.shape[1])
            moments.add(batch)
        if moments is None or moments.count == 0:
            msg = "There are no embeddings to compute principal components from."
            raise EmbeddingError(msg)
        return cls.from_moments(moments, n_components)

    @classmethod
    def from_moments(cls, moments: Moments, n_components: int = 16) -> "Spectrum":
        """
        Compute the spectrum from accumulated moments.

        The components are the eigenvectors of the second moment (d, d), which are the right singular vectors of the
        embeddings: exact, one pass over any number of embeddings, `O(d^3)` at the end.
        """
        energies, vectors = np.linalg.eigh(moments.second_moment)
        components = vectors.T[::-1][:n_components]
        signs = np.where(components @ moments.mean < 0, -1.0, 1.0)
        return cls(
            mean=moments.mean.astype(np.float32),
            components=(components * signs[:, None]).astype(np.float32),
            explained_energy=np.maximum(energies[::-1][:n_components] / energies.sum(), 0.0).astype(np.float32),
        )

    @property
    def dimension(self) -> int:
        """The dimension `d` of the embeddings."""
        return len(self.mean)

    @property
    def pc1(self) -> NDArray[np.float32]:
        """The first principal component, shape `(d,)`, of unit length, with `mean . pc1 >= 0`."""
        first: NDArray[np.float32] = self.components[0]
        return first

    def adjust(self, embeddings: ArrayLike, strength: float = 1.0) -> NDArray[np.float32]:
        """
        Take the first principal component out of embeddings: `h - strength * (h . pc1) pc1`.

        :param embeddings: Shape `(n, d)`.
        :param strength: The share that is taken out; 1 removes the component, and doing so twice changes nothing.
        :returns: Shape `(n, d)`, not rescaled.
        :raises EmbeddingError: The embeddings are unusable (`check_embeddings`).
        """
        checked = check_embeddings(embeddings, self.dimension)
        return checked - strength * np.outer(checked @ self.pc1, self.pc1).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Preparation:
    """
    What happens to an embedding before it is decoded: a direction is removed, the norm set to 1, a mean subtracted.

    In this order, an embedding from which `PC1Adjuster` has already removed the direction is prepared to the same
    vector as the raw one, so a model that removes it can be given either.

    :param removed: Shape `(d,)`, a unit vector (usually `Spectrum.pc1`); None removes nothing.
    :param normalize: Scale to unit length.
    :param mean: Shape `(d,)`, the mean of the embeddings so far prepared; None subtracts nothing.
    """

    removed: NDArray[np.float32] | None = None
    normalize: bool = True
    mean: NDArray[np.float32] | None = None

    def __call__(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Prepare checked embeddings, shape `(n, d)`."""
        prepared = embeddings
        if self.removed is not None:
            prepared = prepared - np.outer(prepared @ self.removed, self.removed)
        if self.normalize:
            norms, remaining = _norms(embeddings), _norms(prepared)
            # what lies on the removed direction has no content: only rounding is left of it, which stays near zero
            prepared = (prepared / np.where(remaining > 1e-5 * norms, remaining, norms)).astype(np.float32)
        if self.mean is not None:
            prepared = prepared - self.mean
        return prepared


def _norms(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the Euclidean norms, shape `(n, 1)`, in float64: squares of float32 overflow from 1e19 on."""
    return np.asarray(np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True))
