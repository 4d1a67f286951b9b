# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""EmbedFilter: a preparation that keeps the bulk of a head's spectrum."""

import numpy as np
from numpy.typing import NDArray

from keytok_haystack.embedding_space.embeddings import BATCH_SIZE
from keytok_haystack.embedding_space.moments import Moments
from keytok_haystack.embedding_space.preparation import Preparation


def embed_filter(head: NDArray[np.floating], kept: float = 0.5, preparation: Preparation | None = None) -> Preparation:
    """
    Return a preparation that keeps the bulk of a head's spectrum: EmbedFilter (arXiv 2606.07502).

    The middle of the head's `d` right singular vectors, strongest first, is kept, and as many are removed at either
    edge, where the head writes its frequent tokens. Unlike principal components this needs no embeddings.

    The authors keep the `kept * d` coefficients; the projection here has the same cosines, and can be decoded. The
    vectors are the eigenvectors of the second moment, summed over blocks of rows: the head is not copied.

    :param head: Shape `(V, d)`, a row for each token, as in the language model: neither centred nor scaled.
    :param kept: Share of the directions to keep.
    :param preparation: Preparation to extend, such as `Spectrum.removal`; None begins with a plain one.
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
    return (preparation or Preparation()).with_removed(edges)
