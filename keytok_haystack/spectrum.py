# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The principal components of an embedding space, computed from a stream of embeddings."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keytok_haystack.transform import HeadTransform

BATCH_SIZE = 1024

Method = Literal["remove", "shift"]


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

    def leading(self, n: int) -> NDArray[np.float32]:
        """
        Return the first `n` principal components, shape `(n, d)`.

        :raises ValueError: There are not as many.
        """
        if not 1 <= n <= len(self.components):
            msg = f"n_components must be between 1 and {len(self.components)}, but it is {n}."
            raise ValueError(msg)
        leading: NDArray[np.float32] = self.components[:n]
        return leading

    def removal(self, n_components: int = 1) -> "Preparation":
        """Return the preparation that takes the first components wholly out of each embedding."""
        return Preparation(removed=self.leading(n_components))

    def shift(self, n_components: int = 1, strength: float = 1.0) -> "Preparation":
        """
        Return the preparation that moves all embeddings alike: `h + lambda u1` (section 4 of the paper).

        :param n_components: How many components to move along.
        :param strength: `lambda` in units of minus the embeddings' mean coefficient: at 1 the mean is 0 there.
        """
        leading = self.leading(n_components)
        return Preparation(shift=(-strength * (leading @ self.mean) @ leading).astype(np.float32))

    def adjust(
        self, embeddings: ArrayLike, strength: float = 1.0, n_components: int = 1, method: Method = "remove"
    ) -> NDArray[np.float32]:
        """
        Adjust embeddings along the first principal components: `h - strength * (h . u) u`, or the same for all.

        :param embeddings: Shape `(n, d)`.
        :param strength: The share that is taken out; removing with 1, and doing so twice, changes nothing more.
        :param n_components: How many components.
        :param method: "remove" takes out what lies on a component, "shift" what lies there in the mean.
        :returns: Shape `(n, d)`, not rescaled.
        :raises EmbeddingError: The embeddings are unusable (`check_embeddings`).
        :raises ValueError: There are not as many components.
        """
        checked = check_embeddings(embeddings, self.dimension)
        if method == "shift":
            return self.shift(n_components, strength).adjusted(checked)
        return checked - np.float32(strength) * _projected(checked, self.leading(n_components))


@dataclass(frozen=True, eq=False)
class Preparation:
    """
    What happens to an embedding before it is decoded: directions are removed, the norm set to 1, a mean subtracted.

    In this order, an embedding from which `PC1Adjuster` has already removed the directions is prepared to the same
    vector as the raw one, so a model that removes them can be given either. A shift is not of that kind.

    :param removed: Shape `(k, d)`, orthonormal rows (usually `Spectrum.pc1` alone); None removes nothing.
    :param shift: Shape `(d,)`, added first; None adds nothing.
    :param normalize: Scale to unit length, or, if there is a transform, to the norm that it expects.
    :param mean: Shape `(d,)`, the mean of the embeddings so far prepared; None subtracts nothing. If there is a
        transform, of its results.
    :param transform: The part of a masked-language-model head that comes before its matrix, applied before the mean is
        subtracted; None applies nothing.
    """

    removed: NDArray[np.float32] | None = None
    shift: NDArray[np.float32] | None = None
    normalize: bool = True
    mean: NDArray[np.float32] | None = None
    transform: HeadTransform | None = None

    def adjusted(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Shift checked embeddings, shape `(n, d)`, and remove the directions, but do not scale or centre."""
        adjusted = embeddings if self.shift is None else embeddings + self.shift
        return adjusted if self.removed is None else adjusted - _projected(adjusted, self.removed)

    def removes(self, directions: NDArray[np.float32]) -> bool:
        """Whether nothing is left of some directions, shape `(k, d)`, orthonormal rows."""
        if self.removed is None:
            return False
        return bool(np.allclose(_projected(directions, self.removed), directions, atol=1e-4))

    def removing(self, directions: NDArray[np.floating]) -> "Preparation":
        """Return this preparation with further directions removed, shape `(k, d)`, independent of those it removes."""
        both = directions if self.removed is None else np.concatenate([self.removed, directions])
        return replace(self, removed=np.linalg.qr(both.T.astype(np.float64))[0].T.astype(np.float32))

    def __call__(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Prepare checked embeddings, shape `(n, d)`."""
        prepared = self.adjusted(embeddings)
        if self.normalize:
            norms, remaining = _norms(embeddings), _norms(prepared)
            # what lies on the removed directions has no content: only rounding is left of it, which stays near zero
            prepared = (prepared / np.where(remaining > 1e-5 * norms, remaining, norms)).astype(np.float32)
        if self.transform is not None:
            prepared = self.transform(prepared * np.float32(self.transform.norm) if self.normalize else prepared)
        if self.mean is not None:
            prepared = prepared - self.mean
        return prepared


def embed_filter(head: NDArray[np.floating], kept: float = 0.5, preparation: Preparation | None = None) -> Preparation:
    """
    Return a preparation that keeps the bulk of a head's spectrum: EmbedFilter (arXiv 2606.07502).

    Of the head's `d` right singular vectors, strongest first, those in the middle are kept and as many at either edge
    are removed: there the head writes its frequent tokens. Unlike principal components this needs no embeddings.

    The authors keep the `kept * d` coefficients; the projection that is made here has the same cosines, and can be
    decoded. The vectors are the eigenvectors of the second moment, summed over blocks of rows: the head is not copied.

    :param head: Shape `(V, d)`, a row for each token, as in the language model: neither centred nor scaled.
    :param kept: The share of the directions that is kept.
    :param preparation: What else is done to embeddings, such as `Spectrum.removal`.
    :raises ValueError: No direction would be kept, or all.
    """
    dimension = head.shape[1]
    remaining = int(kept * dimension) if 0 < kept < 1 else 0
    if remaining == 0:
        msg = f"kept must be between 0 and 1 and leave some of the {dimension} directions, but it is {kept}."
        raise ValueError(msg)
    moments = Moments(dimension)
    for start in range(0, len(head), BATCH_SIZE):
        moments.add(head[start : start + BATCH_SIZE])
    vectors = np.linalg.eigh(moments.second_moment)[1].T[::-1]
    first = (dimension - remaining) // 2
    edges = np.concatenate([vectors[:first], vectors[first + remaining :]])
    return (preparation or Preparation()).removing(edges)


def _projected(vectors: NDArray[np.float32], directions: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what of vectors, shape `(n, d)`, lies on directions, shape `(k, d)`, orthonormal rows."""
    coefficients: NDArray[np.float32] = vectors @ directions.T
    projected: NDArray[np.float32] = coefficients @ directions
    return projected


def _norms(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the Euclidean norms, shape `(n, 1)`, in float64: squares of float32 overflow from 1e19 on."""
    return np.asarray(np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True))
