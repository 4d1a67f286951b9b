# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The linear map from an embedding to a logit for each feature of a vocabulary."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array, hstack, vstack

from keytok_haystack.embedding_space import Preparation
from keytok_haystack.sparse_vectors.rows import add_rows, strongest, top_k
from keytok_haystack.utils.checks import check_embeddings
from keytok_haystack.weighting import Weighting

MINIMUM_TEXTS = 16
_REFINED_ON = 8192
_CHUNK_ENTRIES = 1 << 24  # logits held at a time: 64 MiB of float32
_BLOCK_ENTRIES = 1 << 19  # of a decoder, rounded at a time: 2 MiB of float32, which caches hold


def row_blocks(matrix: NDArray[np.floating]) -> Iterator[slice]:
    """Go through the rows of a matrix in blocks, so that work on a large one needs no second one."""
    size = max(1, _BLOCK_ENTRIES // max(1, matrix.shape[1]))
    for start in range(0, len(matrix), size):
        yield slice(start, start + size)


def sample_rows(n: int, seed: int) -> NDArray[np.int64]:
    """Return the rows of at most 8,192 of `n` texts, ascending: what `TokenDecoder.refine` learns from."""
    return np.sort(np.random.default_rng(seed).permutation(n)[:_REFINED_ON])


class TokenDecoder:
    """
    Decode embeddings into logits over features: `logits = E x`, where `x` is the prepared embedding.

    For `E`, the LM head of the embedder's backbone, this is the paper's decoding (section 3); a fitted `E` reads any
    embedder. The preparation belongs to the decoder, so that a raw embedding is enough and nobody can pair an `E` with
    the wrong kind of vector.

    :param weight: `E`, shape `(V, d)`, rounded to float16, so that a saved decoder is the same decoder. It is taken as
        it is where it is float32 and rounded already: decoders that differ in their preparation alone share one array.
        With a transform, one column for each of its results and one more, the head's bias.
    :param preparation: What happens to an embedding before it is decoded.
    """

    def __init__(self, weight: NDArray[np.floating], preparation: Preparation) -> None:
        self.weight = _rounded(weight)
        self.preparation = preparation

    def __len__(self) -> int:
        """Return the number of features, `V`."""
        return len(self.weight)

    @property
    def dimension(self) -> int:
        """The dimension `d` of the embeddings."""
        transform = self.preparation.transform
        return int(self.weight.shape[1]) if transform is None else transform.dimension

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

    def top_k(self, embeddings: ArrayLike, k: int, literals: csr_array | None = None) -> csr_array:
        """
        Decode embeddings and keep each one's aligned tokens: the `k` largest positive logits.

        :param embeddings: Shape `(n, d)`.
        :param k: At least 1; more than `V` keeps all.
        :param literals: Shape `(n, W)`, positive, added to the logits before the choice. Of `W >= V` features the first
            `V` are the decoder's; the others have no logit but this.
        :returns: Shape `(n, V)`, or `(n, W)`; float32.
        :raises EmbeddingError: The embeddings are unusable (`check_embeddings`).
        """
        rows: list[csr_array] = []
        start = 0
        for logits in self.chunks(embeddings):
            if literals is None:
                rows.append(top_k(logits, k))
            else:
                rows.append(self._joined(logits, literals[start : start + len(logits)], k))
            start += len(logits)
        if len(rows) == 1:
            return rows[0]
        width = len(self) if literals is None else literals.shape[1]
        return csr_array(vstack(rows, format="csr")) if rows else csr_array((0, width), dtype=np.float32)

    def refine(
        self,
        embeddings: ArrayLike,
        literals: csr_array | None = None,
        *,
        weighting: Weighting | None = None,
        seed: int = 0,
        device: str | None = None,
        checkpoint: Path | None = None,
        progress_bar: bool = False,
    ) -> "TokenDecoder":
        """
        Refine the decoder by self-distillation: sparse scores between texts learn to follow the dense ones.

        Each text of a batch is in turn the query. Its sparse scores of the others, and of a near neighbour of each,
        become a distribution (softmax) that learns to follow a teacher's (Kullback-Leibler divergence, Adam); the
        choice of the top tokens passes gradients straight through. The teacher is 0.3 of the dense similarity and 0.7
        of this decoder's own sparse score with twice as many tokens, each in units of its standard deviation: dense
        scores alone would pull a decoder that retrieves better than they do down to them, and its tokens away from
        their meaning.

        A tenth of the texts is held out: refinement ends after 150 steps, or when these have stopped improving, and
        returns the best decoder seen. It learns from at most 8,192 texts, so its time does not grow with the corpus.

        :param embeddings: Shape `(n, d)`, as the embedder gives them.
        :param literals: Shape `(n, W)`, `W >= V`: what documents' own tokens add to their logits, as in `top_k`; those
            that the decoder does not know play no part.
        :param weighting: How many tokens documents and queries have, and how logits become the former's weights; the
            default one if None.
        :param seed: Of the choice of texts, of those held out, and of batches. On a CPU the same seed gives the same
            decoder.
        :param device: Where to compute, as torch names it; by default a GPU if there is one.
        :param checkpoint: A file that keeps the state every 25 steps. If it is there, of the same input, refinement
            goes on from it, to the same result as without the interruption. It is removed at the end.
        :param progress_bar: Whether to show a progress bar.
        :raises EmbeddingError: The embeddings are unusable (`check_embeddings`).
        :raises ValueError: There are less than 16 embeddings, the literals are of another shape, or the device cannot
            be used.
        :raises ModuleNotFoundError: torch is not installed.
        """
        try:
            from keytok_haystack.decoders import refinement  # noqa: PLC0415  # torch takes seconds to import
        except ModuleNotFoundError as error:
            msg = 'Refining needs torch: pip install "keytok-haystack[refine]"'
            raise ModuleNotFoundError(msg, name=error.name) from error

        checked = check_embeddings(embeddings, self.dimension)
        if len(checked) < MINIMUM_TEXTS:
            msg = f"Refining needs at least {MINIMUM_TEXTS} texts, but there are {len(checked)}."
            raise ValueError(msg)
        if literals is not None and (literals.shape[0] != len(checked) or literals.shape[1] < len(self)):
            msg = (
                f"The literals' shape {literals.shape} does not fit {len(checked)} embeddings and {len(self)} features."
            )
            raise ValueError(msg)
        rows = sample_rows(len(checked), seed)
        own = csr_array((len(checked), len(self)), dtype=np.float32) if literals is None else literals
        texts = refinement.Texts(
            self.preparation(checked[rows]), Preparation()(checked[rows]), csr_array(own[rows, : len(self)])
        )
        weight = refinement.refine(
            self.weight,
            texts,
            weighting or Weighting(),
            seed=seed,
            device=device,
            checkpoint=checkpoint,
            progress_bar=progress_bar,
        )
        return TokenDecoder(weight, self.preparation)

    def _joined(self, logits: NDArray[np.float32], literals: csr_array, k: int) -> csr_array:
        decoded, others = literals[:, : len(self)], literals[:, len(self) :]
        add_rows(logits, decoded)
        both = csr_array(hstack([top_k(logits, k), others], format="csr"))
        both.sort_indices()
        return strongest(both, k)


def _rounded(weight: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return a matrix in float32, its entries rounded to float16: itself, if it is so already."""
    if weight.dtype == np.float32 and all(
        np.array_equal(weight[rows], weight[rows].astype(np.float16)) for rows in row_blocks(weight)
    ):
        return weight
    rounded = np.empty_like(weight, dtype=np.float32)
    for rows in row_blocks(weight):
        rounded[rows] = weight[rows].astype(np.float16)
    return rounded
