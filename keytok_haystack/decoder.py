# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The linear map from an embedding to a logit for each feature of a vocabulary."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array, hstack, vstack

from keytok_haystack.embedding_space import Preparation
from keytok_haystack.quantized import QuantizedMatrix
from keytok_haystack.sparse_vectors.rows import SparseRow, check_k, lower_bound_of_kth, top_k
from keytok_haystack.utils.blocks import row_blocks
from keytok_haystack.utils.checks import EmbeddingError, check_embeddings, check_same_number

_CHUNK_ENTRIES = 1 << 24  # logits held at a time: 64 MiB of float32
_GATHERED_ENTRIES = 1 << 18  # entries of the decoder that are copied at a time, into a cache
_LARGEST_LOGIT = 1e38
_SUM_ROUNDING = 2.0**-22  # of a logit and a literal, added, relative to the sum


@dataclass(frozen=True, eq=False)
class Decoded:
    """
    What embeddings decode to.

    :param rows: Shape `(n, V)`, the largest positive logits of each embedding; `(n, W)` if literals were added.
    :param strengths: Shape `(n,)`, the largest logit of each embedding before literals are added.
    """

    rows: csr_array
    strengths: NDArray[np.float32]


class TokenDecoder:
    """
    A linear decoder from embeddings to logits over features: `logits = E x`, where `x` is the prepared embedding.

    With the LM head of the embedder's backbone as `E`, this is the paper's decoding (section 3); a fitted `E` reads any
    embedder. The preparation belongs to the decoder, so that a raw embedding is enough and nobody can pair an `E` with
    the wrong kind of vector.

    :param weight: `E`, shape `(V, d)`, rounded to float16, so that a saved decoder is the same decoder. It is not
        copied if it is float32 and rounded already: decoders that differ in their preparation alone share one array.
        With a head transform, one column for each of its results and one more, the head's bias.
    :param preparation: Steps that an embedding goes through before it is decoded.
    :raises ValueError: The preparation gives vectors of another dimension.
    """

    def __init__(self, weight: NDArray[np.floating], preparation: Preparation) -> None:
        transform = preparation.transform
        prepared = 0 if weight.ndim != 2 else weight.shape[1]  # a matrix
        if prepared == 0 or (transform is not None and prepared != len(transform.weight) + 1):
            msg = f"The decoder has the shape {weight.shape}, but a column for each dimension to decode is needed."
            raise ValueError(msg)
        preparation.check(prepared if transform is None else transform.dimension, prepared)
        self.weight = _rounded(weight)
        self.preparation = preparation

    def __len__(self) -> int:
        """Return the number of features, `V`."""
        return len(self.weight)

    @property
    def dimension(self) -> int:
        """Dimension `d` of the embeddings."""
        transform = self.preparation.transform
        return int(self.weight.shape[1]) if transform is None else transform.dimension

    def logits(self, embeddings: ArrayLike) -> NDArray[np.float32]:
        """
        Decode embeddings.

        :param embeddings: Shape `(n, d)`, as the embedder returns them.
        :returns: Shape `(n, V)`: all at once, so for many embeddings prefer `chunks` or `top_k`.
        :raises EmbeddingError: The embeddings are unusable (`check_embeddings`).
        """
        return self._decode(check_embeddings(embeddings, self.dimension))

    def chunks(self, embeddings: ArrayLike) -> Iterator[NDArray[np.float32]]:
        """
        Decode embeddings, shape `(n, d)`, in chunks of rows, so that memory stays `O(V)` at any `n`.

        :raises EmbeddingError: The embeddings are unusable (`check_embeddings`).
        """
        yield from self._chunks(check_embeddings(embeddings, self.dimension))

    def top_k(
        self, embeddings: ArrayLike, k: int, literals: csr_array | None = None, *, check_input: bool = True
    ) -> csr_array:
        """
        Decode embeddings and keep each one's aligned tokens: the `k` largest positive logits.

        :param embeddings: Shape `(n, d)`.
        :param k: Number of tokens to keep, at least 1; more than `V` keeps all.
        :param literals: Shape `(n, W)`, positive, added to the logits before the choice. The first `V` of the `W >= V`
            features are the decoder's; the others have no other logit.
        :param check_input: Whether to check the embeddings; False for a float32 array that has been checked.
        :returns: Shape `(n, V)`, or `(n, W)`; float32. Each row is the same, bit by bit, for an embedding alone and in
            any batch, on any number of threads.
        :raises EmbeddingError: The embeddings are unusable (`check_embeddings`).
        :raises ValueError: There are not as many rows of literals as embeddings.
        """
        return self.decode(embeddings, k, literals, check_input=check_input).rows

    def decode(
        self, embeddings: ArrayLike, k: int, literals: csr_array | None = None, *, check_input: bool = True
    ) -> Decoded:
        """Do what `top_k` does, and return the strengths of the embeddings, too."""
        check_k(k)
        checked = check_embeddings(embeddings, self.dimension) if check_input else np.asarray(embeddings)
        if literals is not None:
            check_same_number(len(checked), literals.shape[0])
        width = len(self) if literals is None else literals.shape[1]
        rows: list[csr_array] = []
        strengths = np.empty(len(checked), dtype=np.float32)
        for chunk in self._slices(len(checked)):
            prepared = self._prepared(checked[chunk])
            of_decoder = None if literals is None else literals[chunk, : len(self)]
            largest, strengths[chunk] = self._largest(prepared, of_decoder, k)
            if literals is not None:
                joined = csr_array(hstack([largest, literals[chunk, len(self) :]], format="csr"))
                joined.sort_indices()
                largest = top_k(joined, k)
            rows.append(largest)
        if len(rows) == 1:
            return Decoded(rows[0], strengths)
        joined = csr_array(vstack(rows, format="csr")) if rows else csr_array((0, width), dtype=np.float32)
        return Decoded(joined, strengths)

    def strongest(self, embeddings: ArrayLike, k: int) -> list[SparseRow]:
        """
        Decode embeddings as `top_k` does, but each by itself: faster for few, as queries come.

        :param embeddings: Shape `(n, d)`.
        :param k: Number of tokens to keep, at least 1; more than `V` keeps all.
        :returns: `n` rows over the `V` features: the same for an embedding alone and among others.
        :raises EmbeddingError: The embeddings are unusable (`check_embeddings`).
        """
        prepared = self._prepared(check_embeddings(embeddings, self.dimension))
        return list(self._quantized.largest_products(prepared, k))

    @cached_property
    def _quantized(self) -> QuantizedMatrix:
        return QuantizedMatrix(self.weight)

    def _slices(self, n: int) -> Iterator[slice]:
        size = max(1, _CHUNK_ENTRIES // len(self))
        for start in range(0, n, size):
            yield slice(start, start + size)

    def _chunks(self, embeddings: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        for chunk in self._slices(len(embeddings)):
            yield self._decode(embeddings[chunk])

    def _prepared(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Prepare embeddings, whose logits float32 then holds."""
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            prepared = self.preparation(embeddings)
        if not (np.linalg.norm(prepared.astype(np.float64), axis=1) < _LARGEST_LOGIT / self._largest_norm).all():
            msg = "An embedding is too long for the decoder: float32 does not hold its logits."
            raise EmbeddingError(msg)
        return prepared

    def _decode(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self._prepared(embeddings) @ self.weight.T
        return logits

    def _largest(
        self, prepared: NDArray[np.float32], literals: csr_array | None, k: int
    ) -> tuple[csr_array, NDArray[np.float32]]:
        """
        Return the largest positive logits of prepared embeddings, shape `(n, d)`, and their strengths (`Decoded`).

        BLAS adds up a logit in an order that depends on the batch and the threads. So its logits only tell which may be
        among the largest, and these are computed anew, each by itself.
        """
        n, size = len(prepared), len(self)
        logits: NDArray[np.float32] = prepared @ self.weight.T
        strengths: NDArray[np.float32] = logits.max(axis=1)
        if literals is not None:
            positions = np.repeat(np.arange(n) * size, np.diff(literals.indptr)) + literals.indices
            logits.reshape(-1)[positions] += literals.data
        errors = 2 * self._rounding * np.linalg.norm(prepared.astype(np.float64), axis=1)
        least = np.zeros(n)
        if k < size:
            kth = lower_bound_of_kth(logits, k).astype(np.float64)
            least = np.maximum(kth - np.abs(kth) * _SUM_ROUNDING, 0)
        is_candidate = logits >= (least - errors).astype(np.float32)[:, None]
        candidates = np.flatnonzero(is_candidate)
        exact = self._products(prepared, candidates)
        if literals is not None:
            logits.reshape(-1)[candidates] = exact
            chosen = is_candidate.reshape(-1)[positions]
            logits.reshape(-1)[positions[chosen]] += literals.data[chosen]
            exact = logits.reshape(-1)[candidates]
        candidates, exact = candidates[exact > 0], exact[exact > 0]
        row, column = np.divmod(candidates, size)
        indptr = np.searchsorted(row, np.arange(n + 1)).astype(np.int32)
        return top_k(csr_array((exact, column.astype(np.int32), indptr), shape=logits.shape), k), strengths

    def _products(self, prepared: NDArray[np.float32], positions: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return logits of prepared embeddings, shape `(n, d)`, at flat positions in `(n, V)`, summed up one by one."""
        products = np.empty(len(positions), dtype=np.float32)
        size = max(1, _GATHERED_ENTRIES // prepared.shape[1])
        for start in range(0, len(positions), size):
            row, column = np.divmod(positions[start : start + size], len(self))
            np.einsum("cd,cd->c", self.weight[column], prepared[row], out=products[start : start + size])
        return products

    @cached_property
    def _rounding(self) -> float:
        """Largest difference between two ways to add up a logit, of a prepared embedding of length 1."""
        return float(2 * self.weight.shape[1] * np.finfo(np.float32).epsneg * self._largest_norm)

    @cached_property
    def _largest_norm(self) -> float:
        """Largest logit of a prepared embedding of length 1."""
        norms = (float(np.linalg.norm(self.weight[rows], axis=1).max()) for rows in row_blocks(self.weight))
        return max(norms, default=0.0) or 1.0


def _rounded(weight: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return a matrix in float32 with its entries rounded to float16; not a copy if it is so already."""
    if weight.dtype == np.float32 and all(
        np.array_equal(weight[rows], weight[rows].astype(np.float16)) for rows in row_blocks(weight)
    ):
        return weight
    rounded = np.empty_like(weight, dtype=np.float32)
    for rows in row_blocks(weight):
        rounded[rows] = weight[rows].astype(np.float16)
    return rounded
