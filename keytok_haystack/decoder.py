# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The linear map from an embedding to a logit for each feature of a vocabulary."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array, vstack

from keytok_haystack.sparse import top_k
from keytok_haystack.spectrum import Preparation, check_embeddings

_CHUNK_ENTRIES = 1 << 24  # logits held at a time: 64 MiB of float32


class TokenDecoder:
    """
    Decode embeddings into logits over features: `logits = E x`, where `x` is the prepared embedding.

    For `E`, the LM head of the embedder's backbone, this is the paper's decoding (section 3); a fitted `E` reads any
    embedder. The preparation belongs to the decoder, so that a raw embedding is enough and nobody can pair an `E` with
    the wrong kind of vector.

    :param weight: `E`, shape `(V, d)`, rounded to float16, so that a saved decoder is the same decoder.
    :param preparation: What happens to an embedding before it is decoded.
    """

    def __init__(self, weight: NDArray[np.floating], preparation: Preparation) -> None:
        self.weight = weight.astype(np.float16).astype(np.float32)
        self.preparation = preparation

    def __len__(self) -> int:
        """Return the number of features, `V`."""
        return len(self.weight)

    @property
    def dimension(self) -> int:
        """The dimension `d` of the embeddings."""
        return int(self.weight.shape[1])

    def logits(self, embeddings: ArrayLike) -> NDArray[np.float32]:
        """
        Decode embeddings.

        :param embeddings: Shape `(n, d)`, as the embedder gives them.
        :returns: Shape `(n, V)`: all at once, so for many embeddings prefer `chunks` or `top_k`.
        :raises EmbeddingError: The embeddings are unusable (`check_embeddings`).
        """
        logits: NDArray[np.float32] = self.preparation(check_embeddings(embeddings, self.dimension)) @ self.weight.T
        return logits

    def chunks(self, embeddings: ArrayLike) -> Iterator[NDArray[np.float32]]:
        """Decode embeddings, shape `(n, d)`, in chunks of rows, so that memory stays `O(V)` at any `n`."""
        checked = check_embeddings(embeddings, self.dimension)
        size = max(1, _CHUNK_ENTRIES // len(self))
        for start in range(0, len(checked), size):
            yield self.logits(checked[start : start + size])

    def top_k(self, embeddings: ArrayLike, k: int, minimum: float = 0.0) -> csr_array:
        """
        Decode embeddings and keep each one's aligned tokens: the `k` largest logits that exceed `minimum`.

        :param embeddings: Shape `(n, d)`.
        :param k: At least 1; more than `V` keeps all.
        :returns: Shape `(n, V)`, float32.
        :raises EmbeddingError: The embeddings are unusable (`check_embeddings`).
        """
        rows = [top_k(chunk, k, minimum) for chunk in self.chunks(embeddings)]
        if len(rows) == 1:
            return rows[0]
        return csr_array(vstack(rows, format="csr")) if rows else csr_array((0, len(self)), dtype=np.float32)
