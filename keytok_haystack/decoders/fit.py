# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Fit a decoder to any embedder: a ridge regression of a corpus's tokens on its embeddings."""

import time
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import replace
from itertools import islice
from numbers import Real
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from keytok_haystack.alignment_measures import literal_auc
from keytok_haystack.decoder import TokenDecoder
from keytok_haystack.decoders.ridge import RegressionSums, RidgeSolution
from keytok_haystack.embedding_space import Moments, Preparation, Spectrum, in_batches
from keytok_haystack.model import Comprehension, KeyTokenModel
from keytok_haystack.sparse_vectors.token_rows import TokenRows
from keytok_haystack.utils.checks import EmbeddingError, check_not_one_string
from keytok_haystack.utils.progress import progress_of
from keytok_haystack.vocabulary import Vocabulary, WordVocabulary
from keytok_haystack.weighting import Weighting, feature_idf, root_frequencies

REGULARIZATION = 0.6
_COMPREHENSION_TEXTS = 1000


def fit(
    embeddings: ArrayLike | Iterable[ArrayLike],
    texts: Iterable[str],
    vocabulary: Vocabulary | None = None,
    *,
    language: str | None = None,
    regularization: float | Literal["gcv"] = REGULARIZATION,
    min_df: int = 2,
    spectrum: Spectrum | None = None,
    preparation: Preparation | None = None,
    head: TokenDecoder | None = None,
    weighting: Weighting | None = None,
    embedder: str | None = None,
    progress_bar: bool = False,
) -> KeyTokenModel:
    """
    Fit a key-token model to the embeddings of texts: no labels, no queries, no second model.

    The first principal component of the embeddings is removed (section 4 of the paper), so that the model reads
    embeddings adjusted by `PC1Adjuster` as it reads raw ones. It has to be known before the regression, so embeddings
    are read twice, unless `spectrum` or `preparation` is given.

    The regression's target for a text is the square root of its unigram distribution, a vector of unit length; its
    input is the centred embedding. With X (n, d) and Y (n, V) these are the ridge coefficients
    `B = (X'X + lambda I)^-1 X'Y`, and the decoder is `B` with each feature's column multiplied by its idf. Multiplying
    by the idf after the regression is what makes one pass enough for it: `X'X` and `X'Y` are sums over texts, and
    document frequencies need not be known before the end.

    Memory is `O(d V)` however many texts there are, time `O(n d (d + tokens per text) + d^2 V)`.

    :param embeddings: Shape `(n, d)`, or an iterable of such batches, as the embedder returns them. An iterator, which
        can be read only once, needs a `spectrum` or `preparation`.
    :param texts: The `n` texts that were embedded, in the same order; any iterable.
    :param vocabulary: Features to fit; by default the words of the texts, which then have to be a list or the like.
    :param language: Language of the texts, for their words: name of a Snowball stemmer, such as "english", or "none";
        by default it is found from the texts.
    :param regularization: Ridge penalty `lambda` in units of the embeddings' variance, the mean squared distance from
        their mean. It does not grow with the number of texts, so that many are trusted more than few. "gcv" takes the
        `lambda` with the least generalized cross-validation error, the rotation-invariant form of leave-one-out (Golub,
        Heath and Wahba 1979), computed from the same sums: it predicts tokens best, and retrieves worse than the
        default.
    :param min_df: Minimum number of texts with a feature. A rarer feature has no row in the decoder, or that of `head`:
        a document is then found by it only if it is among its literal tokens.
    :param spectrum: Spectrum of the embeddings, `Spectrum.from_embeddings(embeddings)`, if it is known already.
    :param preparation: Preparation of embeddings in place of the removal of the first principal component, such as
        `Preparation()`, which removes nothing, `spectrum.shift()` or `spectrum.removal(2)`; its mean is replaced by the
        one fitted.
    :param head: Decoder over the first features of the vocabulary (an LM head): its rows serve the features rarer than
        `min_df`, at the mean logit variance of the fitted ones.
    :param weighting: Rules by which logits become weights; `weight_scale` and `literal_scale` are fitted.
    :param embedder: Name of the embedding model, kept in the model.
    :param progress_bar: Whether to show a progress bar.
    :returns: The model, with the duration in `fit_seconds`. Its spectrum is None if an iterator came with a
        `preparation` alone.
    :raises EmbeddingError: There are no embeddings, they are all the same, or one is unusable.
    :raises ValueError: There are not as many texts as embeddings, no feature is frequent enough, embeddings that can be
        read only once come without `spectrum` and `preparation`, texts that can be read only once come without a
        vocabulary, the language has no stemmer, or comes with a vocabulary, or the head does not fit the vocabulary or
        the embeddings.
    :raises TypeError: `texts` is one string, or a text is not a string.
    """
    started = time.perf_counter()
    check_not_one_string(texts)
    if regularization != "gcv" and not (isinstance(regularization, Real) and 0 < regularization < np.inf):
        msg = f"regularization must be a positive number or 'gcv', but it is {regularization!r}."
        raise ValueError(msg)
    vocabulary = _vocabulary(vocabulary, texts, language, progress_bar=progress_bar)
    if head is not None:
        _check_head(head, vocabulary)
    if spectrum is None and not isinstance(embeddings, Iterator):
        spectrum = Spectrum.from_moments(Moments.of(_batches(embeddings, head)))
    if preparation is None:
        if spectrum is None:
            msg = (
                "The embeddings are an iterator, which can be read only once, but their first principal component has "
                "to be known before fitting: pass an array or a list of batches, or their `spectrum`."
            )
            raise ValueError(msg)
        preparation = spectrum.removal()
    uncentred = replace(preparation, mean=None)
    sums = _sums(embeddings, texts, vocabulary, uncentred, head, progress_bar=progress_bar)
    frequent = np.flatnonzero((sums.document_frequency >= max(min_df, 1)) & vocabulary.decodable)
    if len(frequent) == 0:
        msg = (
            f"No word, numbers aside, occurs in at least min_df={min_df} of the {sums.moments.count} texts: use more "
            "texts, and check that they are in words."
        )
        raise ValueError(msg)
    idf = feature_idf(sums.document_frequency, sums.moments.count)
    solution = sums.solve(frequent, regularization)
    weight = solution.coefficients * idf[frequent, None]
    decoded = frequent
    if head is not None:
        weight, decoded = _with_head(weight, frequent, head, sums.moments)
    mean = sums.moments.mean.astype(np.float32)
    # only the decoder's direction matters, since weights are scaled: the largest entry is set to 1 to suit float16
    decoder = TokenDecoder(weight / np.abs(weight).max(), replace(uncentred, mean=mean))
    order = vocabulary.order_with_first(decoded)
    model = KeyTokenModel(
        vocabulary=vocabulary.reordered(order),
        decoder=decoder,
        weighting=weighting or Weighting(),
        embedder=embedder,
        idf=idf[[*order, -1]],
        spectrum=spectrum,
        comprehension=_comprehension(sums, solution, uncentred, frequent),
    )
    counts = sums.sample.counts(len(vocabulary))[:, [*order, -1]]
    model = model.scaled_to(sums.sample.embeddings, counts, check_input=False)
    return replace(model, fit_seconds=time.perf_counter() - started)


def _vocabulary(
    vocabulary: Vocabulary | None, texts: Iterable[str], language: str | None, *, progress_bar: bool
) -> Vocabulary:
    """Return a given vocabulary, or the words of the texts."""
    if vocabulary is not None:
        if language is not None:
            msg = "A vocabulary has been made in its language already: leave `language` out."
            raise ValueError(msg)
        return vocabulary
    if not isinstance(texts, Sequence):
        msg = "The words of texts are read before fitting: pass the texts as a list, or their `vocabulary`."
        raise ValueError(msg)  # noqa: TRY004  # its type is one of those allowed
    return WordVocabulary.from_texts(texts, language, progress_bar=progress_bar)


def _comprehension(
    sums: RegressionSums, solution: RidgeSolution, preparation: Preparation, features: NDArray[np.int64]
) -> Comprehension:
    """Measure how well embeddings say the words of their texts, on a sample of them."""
    counts = sums.sample.counts(len(sums.document_frequency))[:_COMPREHENSION_TEXTS]
    prepared = preparation(sums.sample.embeddings[:_COMPREHENSION_TEXTS])
    targets = csr_array(root_frequencies(counts)[:, features])
    predicted = solution.held_out(prepared, targets)
    return Comprehension(
        coverage=float(counts[:, features].sum() / max(counts.sum(), 1)),
        literal_auc=literal_auc(predicted, targets),
    )


def _check_head(head: TokenDecoder, vocabulary: Vocabulary) -> None:
    """Refuse a head whose rows cannot serve features of the vocabulary."""
    if head.preparation.transform is not None:
        msg = "A masked-language-model head transforms embeddings, so its rows cannot serve a fitted decoder."
        raise ValueError(msg)
    if len(head) > len(vocabulary):
        msg = f"The head has {len(head)} rows, but the vocabulary only {len(vocabulary)} features."
        raise ValueError(msg)


def _batches(embeddings: ArrayLike | Iterable[ArrayLike], head: TokenDecoder | None) -> Iterator[NDArray[np.float32]]:
    """Yield checked batches; a head of another dimension is refused at the first one."""
    for batch in in_batches(embeddings):
        if head is not None and head.dimension != batch.shape[1]:
            msg = (
                f"The head has {head.dimension} dimensions, but the embeddings {batch.shape[1]}: it does not belong to "
                "their model's backbone, or they were projected. Name the embedder's own backbone, or fit without a "
                "head."
            )
            raise ValueError(msg)
        yield batch


def _sums(
    embeddings: ArrayLike | Iterable[ArrayLike],
    texts: Iterable[str],
    vocabulary: Vocabulary,
    preparation: Preparation,
    head: TokenDecoder | None,
    *,
    progress_bar: bool,
) -> RegressionSums:
    """Go through the corpus once."""
    sums: RegressionSums | None = None
    total = len(texts) if isinstance(texts, Sized) else None
    with progress_of("Fitting", "texts", shown=progress_bar, total=total, leave=False) as progress:
        for batch, counts in _paired(_batches(embeddings, head), texts, vocabulary):
            if len(batch) == 0:
                continue
            prepared = preparation(batch)
            sums = sums or RegressionSums(prepared.mean(axis=0), vocabulary.decodable)
            sums.add(prepared, counts, batch)
            progress.update(len(batch))
    if sums is None:
        msg = "There are no texts to fit on."
        raise EmbeddingError(msg)
    return sums


def _paired(
    batches: Iterable[NDArray[np.float32]], texts: Iterable[str], vocabulary: Vocabulary
) -> Iterator[tuple[NDArray[np.float32], TokenRows]]:
    """Pair each batch of embeddings with the literal counts of its texts."""
    remaining = iter(texts)
    n = 0
    for batch in batches:
        batch_texts = list(islice(remaining, len(batch)))
        n += len(batch_texts)
        if len(batch_texts) < len(batch):
            msg = f"There are only {n} texts for more embeddings: each embedding needs its text."
            raise ValueError(msg)
        yield batch, vocabulary.literal_counts(batch_texts, first=n - len(batch_texts))
    if next(remaining, None) is not None:
        msg = f"There are only {n} embeddings for more texts: each text needs its embedding."
        raise ValueError(msg)


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

    head_rows = head.weight.astype(np.float64)
    in_both = frequent[frequent < len(head)]
    ratio = deviation(fitted) / deviation(head_rows[in_both] if len(in_both) else head_rows)
    decoded = np.union1d(np.arange(len(head)), frequent)
    weight = np.zeros((len(decoded), fitted.shape[1]))
    weight[: len(head)] = head_rows * ratio
    weight[np.searchsorted(decoded, frequent)] = fitted
    return weight, decoded
