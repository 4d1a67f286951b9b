# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Fit a decoder to any embedder: a ridge regression of a corpus's tokens on its embeddings."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice, pairwise
from numbers import Real
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from keytok_haystack.decoder import TokenDecoder
from keytok_haystack.embedding_space import Moments, Preparation, Spectrum, in_batches
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.utils.checks import EmbeddingError
from keytok_haystack.vocabulary import Vocabulary
from keytok_haystack.weighting import Weighting, inverse_document_frequency, root_frequencies

REGULARIZATION = 0.25
_GCV_GRID = np.logspace(-4, 1, 41)
_SAMPLE_SIZE = 4096


def fit(
    embeddings: "ArrayLike | Iterable[ArrayLike]",
    texts: Iterable[str],
    vocabulary: Vocabulary,
    *,
    regularization: float | Literal["gcv"] = REGULARIZATION,
    min_df: int = 2,
    spectrum: Spectrum | None = None,
    preparation: Preparation | None = None,
    head: TokenDecoder | None = None,
    weighting: Weighting | None = None,
    embedder: str | None = None,
) -> KeyTokenModel:
    """
    Fit a key-token model to the embeddings of texts: no labels, no queries, no second model.

    The regression's target for a text is the square root of its unigram distribution, a vector of unit length; its
    input is the centred embedding. With X (n, d) and Y (n, V) these are the ridge coefficients
    `B = (X'X + lambda I)^-1 X'Y`, and the decoder is `B` with each feature's column multiplied by its idf. Multiplying
    by the idf after the regression is what makes one pass enough: `X'X` and `X'Y` are sums over texts, and document
    frequencies need not be known before the end.

    Memory is `O(d V)` however many texts there are, time `O(n d (d + tokens per text) + d^2 V)`.

    :param embeddings: Shape `(n, d)`, or any iterable of such batches, as the embedder gives them.
    :param texts: The `n` texts that were embedded, in the same order; any iterable.
    :param vocabulary: The features of the tokenizer to fit; any tokenizer will do, the embedder's is a good choice.
    :param regularization: `lambda` in units of the embeddings' variance, the mean squared distance from their mean.
        It does not grow with the number of texts, so that many are trusted more than few. "gcv" takes the `lambda` of
        the least generalized cross-validation error, the rotation-invariant form of leave-one-out (Golub, Heath and
        Wahba 1979), computed from the same sums: it predicts tokens best, and retrieves worse than the default.
    :param min_df: Features in fewer texts have no row in the decoder, or that of `head`: a document is then found by
        them only where they are its own tokens.
    :param spectrum: `Spectrum.from_embeddings(embeddings)`: its first principal component is removed before fitting, as
        `keytok fit` does, so that the model reads embeddings adjusted by `PC1Adjuster` as it reads raw ones. Without
        one nothing is removed, and the model's spectrum is that of the unit-length embeddings.
    :param preparation: What to do with embeddings instead, such as `spectrum.shift()` or `spectrum.removal(2)`; its
        mean is replaced by the one fitted. Without a `spectrum` the model has none then.
    :param head: A decoder over the first features of the vocabulary (an LM head): its rows serve the features rarer
        than `min_df`, at the mean logit variance of the fitted ones.
    :param weighting: How logits become weights; its `weight_scale` and `literal_scale` are replaced by those fitted.
    :param embedder: The name of the embedding model, kept in the model.
    :raises EmbeddingError: There are no embeddings, they are all the same, or one is unusable.
    :raises ValueError: There are not as many texts as embeddings, no feature is frequent enough, or the head does not
        fit the vocabulary or the embeddings.
    """
    if regularization != "gcv" and not (isinstance(regularization, Real) and 0 < regularization < np.inf):
        msg = f"regularization must be a positive number or 'gcv', but it is {regularization!r}."
        raise ValueError(msg)
    if head is not None:
        _check_head(head, vocabulary)
    uncentred = replace(preparation or (spectrum.removal() if spectrum else Preparation()), mean=None)
    sums: _Sums | None = None
    for batch, counts in _paired(embeddings, texts, vocabulary):
        if len(batch) == 0:
            continue
        prepared = uncentred(batch)
        sums = sums or _Sums(prepared.mean(axis=0), len(vocabulary))
        sums.add(prepared, counts, batch)
    if sums is None:
        msg = "There are no texts to fit on."
        raise EmbeddingError(msg)

    frequent = np.flatnonzero(sums.document_frequency >= max(min_df, 1))
    if len(frequent) == 0:
        msg = f"No feature occurs in at least min_df={min_df} of the {sums.moments.count} texts: use more texts."
        raise ValueError(msg)
    idf = inverse_document_frequency(sums.document_frequency, sums.moments.count)
    weight = sums.solve(frequent, regularization) * idf[frequent, None]
    decoded = frequent
    if head is not None:
        if head.dimension != weight.shape[1]:
            msg = (
                f"The head has {head.dimension} dimensions, but the embeddings {weight.shape[1]}: it is not of their "
                "model's backbone, or they were projected. Name the embedder's own backbone, or fit without a head."
            )
            raise ValueError(msg)
        weight, decoded = _with_head(weight, frequent, head, sums.moments)
    if spectrum is None and preparation is None:
        spectrum = Spectrum.from_moments(sums.moments)
    mean = sums.moments.mean.astype(np.float32)
    # only the decoder's direction matters, since weights are scaled: the largest entry is set to 1 to suit float16
    decoder = TokenDecoder(weight / np.abs(weight).max(), replace(uncentred, mean=mean))
    order = vocabulary.order_with_first(decoded)
    model = KeyTokenModel(
        vocabulary=vocabulary.reordered(order),
        decoder=decoder,
        weighting=weighting or Weighting(),
        embedder=embedder,
        idf=idf[order],
        spectrum=spectrum,
    )
    return model.scaled_to(sums.sample.rows, sums.sample.counts(len(vocabulary))[:, order])


def _check_head(head: TokenDecoder, vocabulary: Vocabulary) -> None:
    """Refuse a head whose rows cannot serve features of the vocabulary."""
    if head.preparation.transform is not None:
        msg = "A masked-language-model head transforms embeddings, so its rows cannot serve a fitted decoder."
        raise ValueError(msg)
    if len(head) > len(vocabulary):
        msg = f"The head has {len(head)} rows, but the vocabulary only {len(vocabulary)} features."
        raise ValueError(msg)


def _paired(
    embeddings: "ArrayLike | Iterable[ArrayLike]", texts: Iterable[str], vocabulary: Vocabulary
) -> Iterator[tuple[NDArray[np.float32], csr_array]]:
    """Pair each batch of embeddings with the literal counts of its texts."""
    if isinstance(texts, str):
        msg = "`texts` must be an iterable of strings, not one string."
        raise TypeError(msg)
    remaining = iter(texts)
    n = 0
    for batch in in_batches(embeddings):
        batch_texts = list(islice(remaining, len(batch)))
        n += len(batch_texts)
        if len(batch_texts) < len(batch):
            msg = f"There are only {n} texts for more embeddings: each embedding needs its text."
            raise ValueError(msg)
        yield batch, vocabulary.literal_counts(batch_texts, first=n - len(batch_texts))
    if next(remaining, None) is not None:
        msg = f"There are only {n} embeddings for more texts: each text needs its embedding."
        raise ValueError(msg)


class _Sums:
    """What one pass over the corpus accumulates."""

    def __init__(self, shift: NDArray[np.float32], n_features: int) -> None:
        self.moments = Moments(len(shift))
        self.document_frequency = np.zeros(n_features)
        self.sample = _Reservoir(_SAMPLE_SIZE)
        self._target_sum = np.zeros(n_features)
        self._target_energy = np.zeros(n_features)
        # Y'(X - shift): rows of features that never occur are never touched, so that they take up no memory. The shift,
        # about the mean, keeps what all embeddings have in common out of sums that are taken in float32.
        self._cross_products = np.zeros((n_features, len(shift)), dtype=np.float32)
        self._shift = shift

    def add(self, prepared: NDArray[np.float32], counts: csr_array, embeddings: NDArray[np.float32]) -> None:
        target = root_frequencies(counts)
        present = np.unique(counts.indices)
        self._cross_products[present] += target[:, present].T @ (prepared - self._shift)
        self._target_sum += np.bincount(target.indices, target.data, minlength=counts.shape[1])
        self._target_energy += np.bincount(target.indices, np.square(target.data), minlength=counts.shape[1])
        self.document_frequency += np.bincount(counts.indices, minlength=counts.shape[1])
        self.moments.add(prepared)
        self.sample.add(embeddings, counts)

    def solve(self, features: NDArray[np.int64], regularization: float | Literal["gcv"]) -> NDArray[np.float64]:
        """Return the ridge coefficients of some features, shape `(v, d)`."""
        count = self.moments.count
        energies, vectors = np.linalg.eigh(self.moments.scatter)
        energies = np.maximum(energies, 0.0)
        if energies.mean() <= 1e-12 * count:
            msg = "The embeddings are all the same, so nothing can be fitted to them."
            raise EmbeddingError(msg)
        centred = self._cross_products[features] - np.outer(self._target_sum[features], self.moments.mean - self._shift)
        rotated = centred @ vectors
        spread = self._target_energy[features].sum() - np.square(self._target_sum[features]).sum() / count
        if spread <= 1e-6 * count:
            msg = "The texts are all the same in their features, so nothing can be fitted."
            raise ValueError(msg)
        if regularization == "gcv":
            penalty = self._gcv(energies, np.square(rotated).sum(axis=0), spread)
        else:
            penalty = regularization * energies.sum() / count
        return np.asarray((rotated / (energies + penalty)) @ vectors.T)

    def _gcv(self, energies: NDArray[np.float64], projected: NDArray[np.float64], total: float) -> float:
        """Return the penalty of the least generalized cross-validation error, from a grid."""
        count = self.moments.count
        penalties = _GCV_GRID * energies.mean()
        shrinkage = 1 / (energies + penalties[:, None])
        residual = total - (projected * (2 * shrinkage - energies * shrinkage**2)).sum(axis=1)
        freedom = 1 + (energies * shrinkage).sum(axis=1)
        # where hardly a degree of freedom is left, residuals are rounding, and the error cannot be told
        can_be_told = count - freedom > 0.01 * count
        errors = np.where(can_be_told, residual / (count - freedom) ** 2, np.inf)
        return float(penalties[np.argmin(errors)] if can_be_told.any() else penalties[-1])


class _Reservoir:
    """A uniform sample of embeddings and literal counts (Vitter's algorithm R), the same for the same stream."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._seen = 0
        self._rows: list[NDArray[np.float32]] = []
        self._counts: list[tuple[NDArray[np.int32], NDArray[np.float32]]] = []
        self._random = np.random.default_rng(0)

    def add(self, batch: NDArray[np.float32], counts: csr_array) -> None:
        for row, (start, stop) in zip(batch, pairwise(counts.indptr.tolist()), strict=True):
            if (slot := self._slot()) is not None:
                self._rows[slot : slot + 1] = [row.copy()]
                self._counts[slot : slot + 1] = [(counts.indices[start:stop].copy(), counts.data[start:stop].copy())]
            self._seen += 1

    def _slot(self) -> int | None:
        """Return the place of the next row in the sample, if it gets one."""
        slot = len(self._rows) if self._seen < self._size else int(self._random.integers(self._seen + 1))
        return slot if slot < self._size else None

    @property
    def rows(self) -> NDArray[np.float32]:
        return np.array(self._rows)

    def counts(self, n_features: int) -> csr_array:
        columns, data = (np.concatenate(parts) for parts in zip(*self._counts, strict=True))
        indptr = np.cumsum([0, *(len(columns) for columns, _ in self._counts)]).astype(np.int32)
        return csr_array((data, columns, indptr), shape=(len(self._rows), n_features))


def _with_head(
    fitted: NDArray[np.float64], frequent: NDArray[np.int64], head: TokenDecoder, moments: Moments
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """
    Join the fitted rows and those of a head, scaled to the fitted ones' mean standard deviation of logits.

    :returns: The rows, and the feature of each.
    """
    covariance = moments.scatter / moments.count

    def deviation(rows: NDArray[np.float64]) -> float:
        return float(np.sqrt(np.einsum("vd,vd->v", rows @ covariance, rows)).mean())

    own = head.weight.astype(np.float64)
    in_both = frequent[frequent < len(head)]
    ratio = deviation(fitted) / deviation(own[in_both] if len(in_both) else own)
    decoded = np.union1d(np.arange(len(head)), frequent)
    weight = np.zeros((len(decoded), fitted.shape[1]))
    weight[: len(head)] = own * ratio
    weight[np.searchsorted(decoded, frequent)] = fitted
    return weight, decoded
