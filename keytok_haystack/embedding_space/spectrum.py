# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The principal components of an embedding space, computed from a stream of embeddings."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keytok_haystack.embedding_space.embeddings import in_batches
from keytok_haystack.embedding_space.moments import Moments
from keytok_haystack.embedding_space.preparation import Preparation, check_directions, project
from keytok_haystack.utils.checks import check_embeddings

Method = Literal["remove", "shift"]


@dataclass(frozen=True, eq=False)
class Spectrum:
    """
    Mean and leading principal components of an embedding space.

    The components are those of the *uncentred* embeddings, as in section 4 of the paper: the first one, `pc1`, is
    mostly what all texts share, and an LM head decodes it to stop words and punctuation.

    :param mean: Shape `(d,)`.
    :param components: Shape `(k, d)`, orthonormal rows, strongest first, each with `mean . component >= 0`.
    :param explained_energy: Shape `(k,)`, each component's share of the sum of squared norms.
    :raises ValueError: The shapes do not fit together, or the components are not of unit length.
    """

    mean: NDArray[np.float32]
    components: NDArray[np.float32]
    explained_energy: NDArray[np.float32]

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        k = len(self.components)
        shapes = (self.components.shape, self.explained_energy.shape)
        if k == 0 or self.mean.ndim != 1 or shapes != ((k, len(self.mean)), (k,)):
            msg = "The mean, the components and their energies have shapes that do not fit together."
            raise ValueError(msg)
        check_directions(self.components)

    @classmethod
    def from_embeddings(cls, embeddings: ArrayLike | Iterable[ArrayLike], n_components: int = 16) -> "Spectrum":
        """
        Compute the spectrum of embeddings.

        :param embeddings: Shape `(n, d)`, or an iterable of such batches.
        :param n_components: Number of components to keep, at most `d`.
        :raises EmbeddingError: There are none, or one is unusable (`check_embeddings`).
        """
        return cls.from_moments(Moments.of(in_batches(embeddings)), n_components)

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
        """Dimension `d` of the embeddings."""
        return len(self.mean)

    @property
    def pc1(self) -> NDArray[np.float32]:
        """First principal component, shape `(d,)`, of unit length, with `mean . pc1 >= 0`."""
        first: NDArray[np.float32] = self.components[0]
        return first

    def leading(self, n: int) -> NDArray[np.float32]:
        """
        Return the first `n` principal components, shape `(n, d)`.

        :raises ValueError: There are fewer components.
        """
        if not 1 <= n <= len(self.components):
            msg = f"n_components must be between 1 and {len(self.components)}, but it is {n}."
            raise ValueError(msg)
        leading: NDArray[np.float32] = self.components[:n]
        return leading

    def removal(self, n_components: int = 1) -> "Preparation":
        """Return the preparation that removes the first components from each embedding."""
        return Preparation(removed=self.leading(n_components))

    def shift(self, n_components: int = 1, strength: float = 1.0) -> "Preparation":
        """
        Return the preparation that moves all embeddings alike: `h + lambda u1` (section 4 of the paper).

        :param n_components: Number of components to move along.
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
        :param strength: Share to remove; 1 removes all, and doing so twice changes nothing more.
        :param n_components: Number of components.
        :param method: "remove" subtracts each embedding's own projection on the components, "shift" the mean
            projection.
        :returns: Shape `(n, d)`, not rescaled.
        :raises EmbeddingError: The embeddings are unusable (`check_embeddings`).
        :raises ValueError: There are fewer components.
        """
        checked = check_embeddings(embeddings, self.dimension)
        if method == "shift":
            return self.shift(n_components, strength).adjusted(checked)
        return checked - np.float32(strength) * project(checked, self.leading(n_components))
