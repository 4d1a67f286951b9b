# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The preparation of an embedding for decoding."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from keytok_haystack.embedding_space.head_transform import HeadTransform

_UNIT = 1e-3  # difference of the length of a direction from 1 that is rounding


@dataclass(frozen=True, eq=False)
class Preparation:
    """
    Steps that an embedding goes through before it is decoded: directions removed, norm set to 1, mean subtracted.

    In this order, an embedding from which `PC1Adjuster` has already removed the directions is prepared to the same
    vector as the raw one, so a model that removes them can be given either. That does not hold for a shift.

    :param removed: Shape `(k, d)`, orthonormal rows (usually `Spectrum.pc1` alone); None removes nothing.
    :param shift: Shape `(d,)`, added first; None adds nothing.
    :param normalize: Whether to scale to unit length, or, if there is a transform, to the norm that it expects.
    :param mean: Shape `(d,)`, mean of the embeddings prepared so far, or of the transform's results if there is a
        transform; None subtracts nothing.
    :param transform: Part of a masked-language-model head that comes before its matrix, applied before the mean is
        subtracted; None applies nothing.
    """

    removed: NDArray[np.float32] | None = None
    shift: NDArray[np.float32] | None = None
    normalize: bool = True
    mean: NDArray[np.float32] | None = None
    transform: HeadTransform | None = None

    def check(self, dimension: int, prepared: int) -> None:
        """
        Require that the parts fit together.

        :param dimension: Dimension of the embeddings.
        :param prepared: Dimension of what they become.
        :raises ValueError: A part has another shape, or what is removed is not of unit length.
        """
        shapes = {"shift": (dimension,), "mean": (prepared,)}
        if self.removed is not None:
            shapes["removed"] = (*self.removed.shape[:1], dimension)
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array is not None and array.shape != shape:
                msg = f"The preparation's '{name}' has the shape {array.shape}, but {shape} is needed."
                raise ValueError(msg)
        if self.removed is not None:
            check_directions(self.removed)

    def adjusted(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Shift checked embeddings, shape `(n, d)`, and remove the directions, but do not scale or centre."""
        adjusted = embeddings if self.shift is None else embeddings + self.shift
        return adjusted if self.removed is None else adjusted - project(adjusted, self.removed)

    def has_removed(self, directions: NDArray[np.float32]) -> bool:
        """Return whether directions, shape `(k, d)`, orthonormal rows, are among those removed."""
        if self.removed is None:
            return False
        return bool(np.allclose(project(directions, self.removed), directions, atol=1e-4))

    def with_removed(self, directions: NDArray[np.floating]) -> "Preparation":
        """Return this preparation with further directions, shape `(k, d)`, removed; they are independent of its own."""
        both = directions if self.removed is None else np.concatenate([self.removed, directions])
        return replace(self, removed=np.linalg.qr(both.T.astype(np.float64))[0].T.astype(np.float32))

    def __call__(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Prepare checked embeddings, shape `(n, d)`."""
        prepared = self.adjusted(embeddings)
        if self.normalize:
            norms, remaining = _norms(embeddings), _norms(prepared)
            # an embedding on the removed directions has no content: only rounding errors are left, and must stay small
            prepared = (prepared / np.where(remaining > 1e-5 * norms, remaining, norms)).astype(np.float32)
        if self.transform is not None:
            prepared = self.transform(prepared * np.float32(self.transform.norm) if self.normalize else prepared)
        if self.mean is not None:
            prepared = prepared - self.mean
        return prepared


def check_directions(directions: NDArray[np.float32]) -> None:
    """
    Require directions, shape `(k, d)`, of unit length, at most `d` of them.

    :raises ValueError: They are not.
    """
    if len(directions) > directions.shape[1] or not np.allclose(_norms(directions), 1, atol=_UNIT):
        msg = "There are more directions than dimensions, or directions that are not of unit length."
        raise ValueError(msg)


def project(vectors: NDArray[np.float32], directions: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the projection of vectors, shape `(n, d)`, on directions, shape `(k, d)`, orthonormal rows."""
    # not by BLAS, whose sums for a vector alone differ from those in a batch; nor in the order of some layout in memory
    vectors, directions = np.ascontiguousarray(vectors), np.ascontiguousarray(directions)
    coefficients = np.einsum("nd,kd->nk", vectors, directions)
    projected: NDArray[np.float32] = np.einsum("nk,kd->nd", coefficients, directions)
    return projected


def _norms(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the Euclidean norms, shape `(n, 1)`, in float64: squares of float32 overflow from 1e19 on."""
    return np.asarray(np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True))
