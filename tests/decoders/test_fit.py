# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers.rankings import ndcg
from helpers.words import WORDS
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from keytok_haystack import (
    EmbeddingError,
    KeyTokenModel,
    Preparation,
    Spectrum,
    TokenDecoder,
    TokenRows,
    Vocabulary,
    Weighting,
    WordVocabulary,
    fit,
)
from keytok_haystack.decoders import REGULARIZATION
from keytok_haystack.decoders.ridge import RegressionSums
from keytok_haystack.encoders import Embedded
from keytok_haystack.evaluation import Collection
from keytok_haystack.weighting import IDF_EXPONENT, root_frequencies

HALF_STEP = 2**-11  # a float16 between 0.5 and 1 is off by half of 2**-11 at most


def plain_fit(*arguments: Any, **options: Any) -> KeyTokenModel:
    """Fit to embeddings as they are: nothing is removed."""
    return fit(*arguments, preparation=Preparation(), **options)


def dense_targets(texts: list[str], features: tuple[str, ...]) -> np.ndarray:
    """The square root of each text's unigram distribution."""
    rows = [Counter(text.lower().split()) for text in texts]
    return np.array([[np.sqrt(row[feature] / sum(row.values())) for feature in features] for row in rows])


def document_frequencies(texts: list[str], features: tuple[str, ...]) -> np.ndarray:
    return np.array([sum(feature in text.split() for text in texts) for feature in features])


def raised_idf(texts: list[str], features: tuple[str, ...]) -> np.ndarray:
    """Lucene's idf, raised a little."""
    df = document_frequencies(texts, features)
    return np.log(1 + (len(texts) - df + 0.5) / (df + 0.5)) ** IDF_EXPONENT


def idf_of_unseen(texts: list[str]) -> float:
    """That of a feature in one text."""
    return float(np.log(1 + (len(texts) - 1 + 0.5) / 1.5) ** IDF_EXPONENT)


def unit(embeddings: np.ndarray, removed: np.ndarray | None = None) -> np.ndarray:
    embeddings = embeddings.astype(np.float64)
    if removed is not None:
        embeddings = embeddings @ (np.eye(len(removed)) - np.outer(removed, removed).astype(np.float64))
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def ridge(inputs: np.ndarray, targets: np.ndarray, regularization: float) -> np.ndarray:
    """(X'X + lambda I)^-1 X'Y of centred X and Y, lambda in units of the variance of X; shape (V, d)."""
    x, y = inputs - inputs.mean(axis=0), targets - targets.mean(axis=0)
    penalty = regularization * np.square(x).sum(axis=1).mean()
    return np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y).T


def noisy_embeddings(texts: list[str], vocabulary: Vocabulary, d: int, common: float, noise: float) -> np.ndarray:
    """Embeddings (n, d): a random projection of the texts' words, a vector that all share, and noise."""
    random = np.random.default_rng(3)
    projected = dense_targets(texts, vocabulary.features) @ random.normal(size=(len(vocabulary), d))
    shared = common * random.normal(size=d)
    return (projected + shared + noise * random.normal(size=projected.shape)).astype(np.float32)


def largest_is_1(weight: np.ndarray) -> np.ndarray:
    return weight / np.abs(weight).max()


@pytest.mark.parametrize("regularization", [1e-3, REGULARIZATION, 10.0])
def test_the_decoder_is_the_ridge_regression_times_idf(
    small_embeddings: np.ndarray, small_texts: list[str], small_vocabulary: Vocabulary, regularization: float
):
    model = plain_fit(small_embeddings, small_texts, small_vocabulary, regularization=regularization)
    features, x = small_vocabulary.features, unit(small_embeddings)
    idf = raised_idf(small_texts, features)
    expected = largest_is_1(ridge(x, dense_targets(small_texts, features), regularization) * idf[:, None])
    assert model.vocabulary.features == features
    np.testing.assert_allclose(model.decoder.weight, expected, atol=HALF_STEP)
    np.testing.assert_allclose(model.idf, [*idf, idf_of_unseen(small_texts)], rtol=1e-6)
    np.testing.assert_allclose(model.decoder.preparation.mean, x.mean(axis=0), atol=1e-6)
    assert model.decoder.preparation.removed is None
    assert model.source == "fit"


@pytest.mark.parametrize(
    ("n", "d", "common", "noise", "regularization"),
    [
        (15, 37, 1, 1, 0.01),
        (60, 96, 10, 1, REGULARIZATION),
        (60, 37, 30, 0.1, 0.01),
        (60, 96, 100, 0.1, 0.01),
        (60, 8, 100, 1, REGULARIZATION),
    ],
)
def test_the_regression_is_exact_with_few_texts_and_where_embeddings_have_much_in_common(
    small_texts: list[str],
    small_vocabulary: Vocabulary,
    n: int,
    d: int,
    common: float,
    noise: float,
    regularization: float,
):
    texts, features = small_texts[:n], small_vocabulary.features
    embeddings = noisy_embeddings(texts, small_vocabulary, d, common, noise)
    model = plain_fit(embeddings, texts, small_vocabulary, regularization=regularization, min_df=0)
    coefficients = ridge(unit(embeddings), dense_targets(texts, features), regularization)
    expected = largest_is_1(coefficients * raised_idf(texts, features)[:, None])
    np.testing.assert_allclose(model.decoder.weight, expected, atol=2 * HALF_STEP)


def test_the_lengths_of_embeddings_do_not_matter(
    small_embeddings: np.ndarray, small_texts: list[str], small_vocabulary: Vocabulary, small_model: KeyTokenModel
):
    lengths = np.random.default_rng(0).uniform(0.1, 10, size=(60, 1)).astype(np.float32)
    model = plain_fit(small_embeddings * lengths, small_texts, small_vocabulary)
    np.testing.assert_allclose(model.decoder.weight, small_model.decoder.weight, atol=2 * HALF_STEP)


def test_a_spectrum_has_its_first_component_removed_before_the_regression(
    small_embeddings: np.ndarray, small_texts: list[str], small_vocabulary: Vocabulary
):
    _, _, right = np.linalg.svd(small_embeddings.astype(np.float64))
    spectrum = Spectrum.from_embeddings(small_embeddings)
    model = fit(small_embeddings, small_texts, small_vocabulary, spectrum=spectrum)
    features = small_vocabulary.features
    coefficients = ridge(unit(small_embeddings, right[0]), dense_targets(small_texts, features), REGULARIZATION)
    expected = largest_is_1(coefficients * raised_idf(small_texts, features)[:, None])
    np.testing.assert_allclose(model.decoder.weight, expected, atol=2 * HALF_STEP)
    assert model.spectrum is spectrum
    adjusted = spectrum.adjust(small_embeddings)
    np.testing.assert_allclose(model.decoder.logits(adjusted), model.decoder.logits(small_embeddings), atol=1e-5)


def test_the_first_component_is_removed_by_default(
    small_embeddings: np.ndarray, small_texts: list[str], small_vocabulary: Vocabulary
):
    spectrum = Spectrum.from_embeddings(small_embeddings)
    given = fit(small_embeddings, small_texts, small_vocabulary, spectrum=spectrum)
    model = fit(small_embeddings, small_texts, small_vocabulary)
    assert model.fingerprint == given.fingerprint
    np.testing.assert_array_equal(model.spectrum.components, spectrum.components)
    assert model.decoder.preparation.has_removed(spectrum.leading(1))
    assert model.fit_seconds > 0


def test_anything_that_can_be_read_twice_is_fitted_as_an_array_is(
    small_embeddings: np.ndarray, small_texts: list[str], small_vocabulary: Vocabulary
):
    class Batches:
        def __iter__(self):
            return iter(np.split(small_embeddings, [7, 7, 40]))

    model = fit(Batches(), iter(small_texts), small_vocabulary)
    expected = fit(small_embeddings, small_texts, small_vocabulary)
    np.testing.assert_allclose(model.decoder.weight, expected.decoder.weight, atol=2 * HALF_STEP)
    np.testing.assert_allclose(model.spectrum.components, expected.spectrum.components, atol=1e-5)


def test_a_stream_needs_its_spectrum_or_a_preparation(
    small_embeddings: np.ndarray, small_texts: list[str], small_vocabulary: Vocabulary
):
    spectrum = Spectrum.from_embeddings(small_embeddings)
    batches = np.split(small_embeddings, 6)
    with pytest.raises(ValueError, match="can be read only once"):
        fit(iter(batches), small_texts, small_vocabulary)
    model = fit(iter(batches), small_texts, small_vocabulary, spectrum=spectrum)
    expected = fit(small_embeddings, small_texts, small_vocabulary)
    np.testing.assert_allclose(model.decoder.weight, expected.decoder.weight, atol=2 * HALF_STEP)
    assert fit(iter(batches), small_texts, small_vocabulary, preparation=Preparation()).spectrum is None


def test_a_wrong_head_is_refused_at_the_first_batch(
    small_embeddings: np.ndarray, small_texts: list[str], small_vocabulary: Vocabulary
):
    read = []

    class Batches:
        def __iter__(self):
            for batch in np.split(small_embeddings, 6):
                read.append(len(batch))
                yield batch

    head = TokenDecoder(np.ones((12, 7)), Preparation())
    with pytest.raises(ValueError, match="7 dimensions, but the embeddings 8"):
        fit(Batches(), small_texts, small_vocabulary, head=head)
    assert read == [10]


def brute_force_gcv(x: np.ndarray, y: np.ndarray, regularizations: np.ndarray) -> np.ndarray:
    """n * |(I - H) Y|^2 / (n - tr H)^2 with the explicit hat matrix H of a ridge regression with intercept."""
    n, centred = len(x), x - x.mean(axis=0)
    errors = []
    for regularization in regularizations:
        penalty = regularization * np.square(centred).sum(axis=1).mean()
        inverse = np.linalg.inv(centred.T @ centred + penalty * np.eye(x.shape[1]))
        hat = np.full((n, n), 1 / n) + centred @ inverse @ centred.T
        errors.append(n * np.square(y - hat @ y).sum() / (n - np.trace(hat)) ** 2)
    return np.array(errors)


@pytest.mark.parametrize(
    ("n", "d", "common", "noise"),
    [
        (60, 8, 1, 0.3),
        (60, 8, 1, 2),
        (60, 20, 1, 1),
        (25, 20, 1, 1),
        (15, 20, 1, 1),
        (22, 37, 10, 1),
        (30, 64, 1, 1),
        (30, 64, 30, 0.03),
    ],
)
def test_gcv_takes_the_regularization_with_the_least_error_by_the_explicit_hat_matrix(
    small_texts: list[str], small_vocabulary: Vocabulary, n: int, d: int, common: float, noise: float
):
    texts, embeddings = small_texts[:n], noisy_embeddings(small_texts[:n], small_vocabulary, d, common, noise)
    candidates = np.logspace(-4.5, 1.5, 61) * n / d
    errors = brute_force_gcv(unit(embeddings), dense_targets(texts, small_vocabulary.features), candidates)
    chosen = plain_fit(embeddings, texts, small_vocabulary, min_df=0, regularization="gcv").decoder.weight
    given = [
        plain_fit(embeddings, texts, small_vocabulary, min_df=0, regularization=c).decoder.weight for c in candidates
    ]
    distances = np.array([np.abs(chosen - weight).max() for weight in given])
    assert distances.min() < 0.1 * distances.max()
    assert errors.min() < 0.99 * np.median(errors)
    assert errors[np.argmin(distances)] < 1.01 * errors.min()


@settings(max_examples=25)
@given(st.lists(st.integers(0, 60), max_size=6))
def test_a_stream_gives_the_same_model_however_it_is_cut(
    small_embeddings: np.ndarray,
    small_texts: list[str],
    small_vocabulary: Vocabulary,
    small_model: KeyTokenModel,
    cuts: list[int],
):
    batches = (batch for batch in np.split(small_embeddings, sorted(cuts)))
    model = plain_fit(batches, (text for text in small_texts), small_vocabulary)
    assert model.vocabulary.features == small_model.vocabulary.features
    np.testing.assert_allclose(model.decoder.weight, small_model.decoder.weight, atol=2 * HALF_STEP)
    np.testing.assert_array_equal(model.idf, small_model.idf)
    assert model.weighting.weight_scale == pytest.approx(small_model.weighting.weight_scale, rel=1e-3)


def test_fitting_twice_gives_the_same_model(
    small_embeddings: np.ndarray, small_texts: list[str], small_vocabulary: Vocabulary, small_model: KeyTokenModel
):
    assert plain_fit(small_embeddings, small_texts, small_vocabulary).fingerprint == small_model.fingerprint


def test_embeddings_may_be_lists(
    small_embeddings: np.ndarray, small_texts: list[str], small_vocabulary: Vocabulary, small_model: KeyTokenModel
):
    assert plain_fit(small_embeddings.tolist(), small_texts, small_vocabulary).fingerprint == small_model.fingerprint


@pytest.mark.parametrize("min_df", [1, 14, 16, 18])
def test_features_in_fewer_texts_than_min_df_come_last_and_have_no_row(
    small_embeddings: np.ndarray, small_texts: list[str], small_vocabulary: Vocabulary, min_df: int
):
    df = document_frequencies(small_texts, small_vocabulary.features)
    expected = tuple(f for f, n in zip(small_vocabulary.features, df, strict=True) if n >= min_df)
    assert min_df == 1 or 0 < len(expected) < 12, "the test can tell them apart"
    model = plain_fit(small_embeddings, small_texts, small_vocabulary, min_df=min_df)
    assert len(model.decoder) == len(expected)
    rare = tuple(feature for feature in small_vocabulary.features if feature not in expected)
    assert model.vocabulary.features == expected + rare
    np.testing.assert_allclose(model.idf[:-1], raised_idf(small_texts, expected + rare), rtol=1e-6)
    assert model.idf[-1] == pytest.approx(idf_of_unseen(small_texts))
    # leaving features out changes no other feature's direction; lengths of texts count all of their tokens
    everything = plain_fit(small_embeddings, small_texts, small_vocabulary, min_df=1).decoder.weight[df >= min_df]
    np.testing.assert_allclose(model.decoder.weight, largest_is_1(everything), atol=4 * HALF_STEP)


def test_rare_features_have_the_rows_of_a_head_at_the_mean_deviation_of_the_fitted_logits(
    small_embeddings: np.ndarray, small_texts: list[str], small_vocabulary: Vocabulary
):
    head = TokenDecoder(5 * np.random.default_rng(1).normal(size=(12, 8)), Preparation())
    df = document_frequencies(small_texts, small_vocabulary.features)
    rare = df < 16
    model = plain_fit(small_embeddings, small_texts, small_vocabulary, min_df=16, head=head)
    fitted_alone = plain_fit(small_embeddings, small_texts, small_vocabulary, min_df=16)
    assert model.vocabulary.features == small_vocabulary.features
    assert model.idf.shape == (13,)
    weight = model.decoder.weight.astype(np.float64)
    factors = weight[rare] / head.weight[rare]
    np.testing.assert_allclose(factors, factors.mean(), rtol=2e-2)  # the head's rows, all scaled alike
    np.testing.assert_allclose(
        largest_is_1(weight[~rare]), largest_is_1(fitted_alone.decoder.weight), atol=4 * HALF_STEP
    )
    x = unit(small_embeddings)
    scaled_head = (x @ (head.weight[~rare] * factors.mean()).T).std(axis=0).mean()
    assert scaled_head == pytest.approx((x @ weight[~rare].T).std(axis=0).mean(), rel=1e-2)


@pytest.mark.parametrize("min_df", [16, 18])
def test_a_head_may_be_over_the_first_features_only(
    small_embeddings: np.ndarray, small_texts: list[str], small_vocabulary: Vocabulary, min_df: int
):
    features = small_vocabulary.features
    frequent = document_frequencies(small_texts, features) >= min_df
    size = 1 + int(np.flatnonzero(~frequent)[:-1].max())  # the last of the rare features has neither
    in_head = np.arange(12) < size
    assert frequent[~in_head].any(), "a frequent feature is not in the head"
    assert (~frequent[in_head]).any(), "a rare feature is in the head"
    head = TokenDecoder(5 * np.random.default_rng(1).normal(size=(size, 8)), Preparation())
    model = plain_fit(small_embeddings, small_texts, small_vocabulary, min_df=min_df, head=head)
    decoded = [i for i in range(12) if frequent[i] or in_head[i]]
    neither = [i for i in range(12) if not (frequent[i] or in_head[i])]
    assert neither
    assert model.vocabulary.features == tuple(features[i] for i in decoded + neither)
    assert len(model.decoder) == len(decoded)
    np.testing.assert_allclose(model.idf[:-1], raised_idf(small_texts, model.vocabulary.features), rtol=1e-6)
    rows = dict(zip(model.vocabulary.features, model.decoder.weight.astype(np.float64), strict=False))
    fitted = np.array([rows[features[i]] for i in np.flatnonzero(frequent)])
    alone = plain_fit(small_embeddings, small_texts, small_vocabulary, min_df=min_df).decoder.weight
    np.testing.assert_allclose(largest_is_1(fitted), largest_is_1(alone), atol=4 * HALF_STEP)
    taken = np.flatnonzero(in_head & ~frequent)
    factors = np.array([rows[features[i]] for i in taken]) / head.weight[taken]
    np.testing.assert_allclose(factors, factors.mean(), rtol=2e-2)
    both = np.flatnonzero(in_head & frequent)
    x = unit(small_embeddings)
    deviations = (x @ fitted.T).std(axis=0).mean(), (x @ (head.weight[both] * factors.mean()).T).std(axis=0).mean()
    assert deviations[0] == pytest.approx(deviations[1], rel=1e-2)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((12, 7), "7 dimensions, but the embeddings 8"),
        ((11, 7), "7 dimensions, but the embeddings 8"),
        ((13, 8), "13 rows, but the vocabulary only 12 features"),
    ],
)
def test_a_head_of_another_shape_is_refused(
    small_embeddings: np.ndarray,
    small_texts: list[str],
    small_vocabulary: Vocabulary,
    shape: tuple[int, int],
    message: str,
):
    head = TokenDecoder(np.ones(shape), Preparation())
    with pytest.raises(ValueError, match=message):
        plain_fit(small_embeddings, small_texts, small_vocabulary, head=head)


@pytest.mark.parametrize("exponent", [0.5, 1.0])
@pytest.mark.parametrize("k_document", [2, 128])
def test_the_strongest_weights_of_the_documents_are_1_in_the_mean(
    small_embeddings: np.ndarray,
    small_texts: list[str],
    small_vocabulary: Vocabulary,
    exponent: float,
    k_document: int,
):
    weighting = Weighting(k_document=k_document, m_query=5, exponent=exponent, weight_scale=77.0)
    model = plain_fit(small_embeddings, small_texts, small_vocabulary, weighting=weighting)
    weights = model.encode_documents(small_embeddings, small_texts).rows
    assert weights.toarray().max(axis=1).mean() == pytest.approx(1, rel=1e-5)
    assert replace(model.weighting, weight_scale=77.0, literal_scale=0.0) == weighting


@pytest.mark.parametrize("share", [0.0, 0.35, 0.9])
def test_own_tokens_are_made_comparable_with_logits(
    small_embeddings: np.ndarray, small_texts: list[str], small_vocabulary: Vocabulary, share: float
):
    weighting = Weighting(literal_share=share, literal_scale=77.0)
    model = plain_fit(small_embeddings, small_texts, small_vocabulary, weighting=weighting, min_df=16)
    features = model.vocabulary.features
    logits = np.maximum(model.decoder.logits(small_embeddings).astype(np.float64), 0)
    literals = dense_targets(small_texts, features) * raised_idf(small_texts, features)
    expected = logits.max(axis=1).mean() / literals.max(axis=1).mean()
    assert model.weighting.literal_scale == pytest.approx(expected, rel=1e-5)
    assert model.weighting.literal_share == share
    strongest = model.encode_documents(small_embeddings, small_texts).rows.toarray().max(axis=1)
    assert strongest.mean() == pytest.approx(1, rel=1e-5)


def test_the_weight_scale_of_a_large_corpus_is_estimated_from_a_sample_of_all_of_it(small_vocabulary: Vocabulary):
    random = np.random.default_rng(5)
    texts = [" ".join(random.choice(small_vocabulary.features, size=4)) for _ in range(9000)]
    embeddings = small_vocabulary.literal_counts(texts).rows.toarray() @ random.normal(size=(12, 8)) + 5
    embeddings[4500:] = embeddings.mean(axis=0) + 0.1 * random.normal(size=(4500, 8))  # close to the mean: weak tokens
    model = plain_fit(embeddings, texts, small_vocabulary)
    maxima = model.encode_documents(embeddings).rows.toarray().max(axis=1)
    assert maxima[:4500].mean() > 1.5 * maxima[4500:].mean()
    assert model.encode_documents(embeddings, texts).rows.toarray().max(axis=1).mean() == pytest.approx(1, rel=0.02)
    logits = np.maximum(model.decoder.logits(embeddings), 0).max(axis=1).mean()
    literals = dense_targets(texts, small_vocabulary.features) * raised_idf(texts, small_vocabulary.features)
    assert model.weighting.literal_scale == pytest.approx(logits / literals.max(axis=1).mean(), rel=0.04)


def test_the_name_of_the_embedder_is_kept(small_model: KeyTokenModel):
    assert small_model.embedder == "random-projection"


@pytest.mark.parametrize("n_texts", [0, 1, 30, 59])
@pytest.mark.parametrize("batches", [1, 2, 60])
def test_too_few_texts_are_refused(
    small_embeddings: np.ndarray, small_texts: list[str], small_vocabulary: Vocabulary, n_texts: int, batches: int
):
    with pytest.raises(ValueError, match=f"only {n_texts} texts for more embeddings"):
        plain_fit(np.split(small_embeddings, batches), small_texts[:n_texts], small_vocabulary)


@pytest.mark.parametrize("n_embeddings", [1, 59])
def test_too_many_texts_are_refused(
    small_embeddings: np.ndarray, small_texts: list[str], small_vocabulary: Vocabulary, n_embeddings: int
):
    with pytest.raises(ValueError, match=f"only {n_embeddings} embeddings for more texts"):
        plain_fit(small_embeddings[:n_embeddings], small_texts, small_vocabulary)


@pytest.mark.parametrize(
    "nothing", [np.zeros((0, 8)), [], [np.zeros((0, 8))]], ids=["no rows", "empty list", "stream of no rows"]
)
def test_an_empty_corpus_is_refused(small_vocabulary: Vocabulary, nothing: object):
    with pytest.raises(EmbeddingError, match="There are no"):
        plain_fit(nothing, [], small_vocabulary)


@pytest.mark.parametrize("lengths", [1.0, np.linspace(0.1, 30, 60)[:, None]], ids=["same", "same direction"])
def test_embeddings_that_are_all_the_same_are_refused(
    small_texts: list[str], small_vocabulary: Vocabulary, lengths: float
):
    embeddings = np.full((60, 8), 0.1) * np.arange(1, 9) * lengths
    with pytest.raises(EmbeddingError, match="all the same"):
        plain_fit(embeddings, small_texts, small_vocabulary)


def test_a_min_df_that_no_feature_reaches_is_refused(
    small_embeddings: np.ndarray, small_texts: list[str], small_vocabulary: Vocabulary
):
    with pytest.raises(ValueError, match="min_df=61 of the 60 texts"):
        plain_fit(small_embeddings, small_texts, small_vocabulary, min_df=61)


@pytest.mark.parametrize("texts", [["zzz"] * 60, [""] * 60], ids=["unknown words", "empty texts"])
@pytest.mark.parametrize("min_df", [0, 1, 2])
def test_texts_without_features_are_refused(
    small_embeddings: np.ndarray, small_vocabulary: Vocabulary, texts: list[str], min_df: int
):
    with pytest.raises(ValueError, match=r"No word|min_df"):
        plain_fit(small_embeddings, texts, small_vocabulary, min_df=min_df)


def test_texts_that_are_all_the_same_are_refused(small_embeddings: np.ndarray, small_vocabulary: Vocabulary):
    with pytest.raises(ValueError, match="same"):
        plain_fit(small_embeddings, ["shock wave"] * 60, small_vocabulary)


@pytest.mark.parametrize("regularization", [0.0, -1.0, float("nan"), float("inf"), "auto"])
def test_a_regularization_that_is_not_a_positive_number_is_refused(
    small_embeddings: np.ndarray, small_texts: list[str], small_vocabulary: Vocabulary, regularization: object
):
    with pytest.raises(ValueError, match="regularization"):
        plain_fit(small_embeddings, small_texts, small_vocabulary, regularization=regularization)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_regularization_may_be_a_number_of_numpy(
    small_embeddings: np.ndarray, small_texts: list[str], small_vocabulary: Vocabulary, dtype: type
):
    given = plain_fit(small_embeddings, small_texts, small_vocabulary, regularization=dtype(0.5))
    assert (
        given.fingerprint == plain_fit(small_embeddings, small_texts, small_vocabulary, regularization=0.5).fingerprint
    )


@pytest.mark.parametrize("text", [None, 3, b"lift", ["lift"]])
def test_a_text_that_is_no_string_is_refused(
    small_embeddings: np.ndarray, small_texts: list[str], small_vocabulary: Vocabulary, text: object
):
    with pytest.raises(TypeError, match="text 17 is of type"):
        plain_fit(small_embeddings, [*small_texts[:17], text, *small_texts[18:]], small_vocabulary)


def test_the_position_of_a_text_that_is_no_string_counts_from_the_start_of_the_stream(
    small_embeddings: np.ndarray, small_texts: list[str], small_vocabulary: Vocabulary
):
    with pytest.raises(TypeError, match="text 17 is of type"):
        plain_fit(np.split(small_embeddings, 6), [*small_texts[:17], None, *small_texts[18:]], small_vocabulary)


def test_one_string_instead_of_texts_is_refused(small_embeddings: np.ndarray, small_vocabulary: Vocabulary):
    with pytest.raises(TypeError, match="not one string"):
        plain_fit(small_embeddings, "x" * 60, small_vocabulary)


def test_an_embedding_that_cannot_be_used_is_named(
    small_embeddings: np.ndarray, small_texts: list[str], small_vocabulary: Vocabulary
):
    broken = small_embeddings.copy()
    broken[41] = 0
    with pytest.raises(EmbeddingError, match="Embedding 41 is the zero vector"):
        plain_fit(broken, small_texts, small_vocabulary)


def bm25_scores(documents: csr_array, queries: csr_array) -> np.ndarray:
    """Lucene's BM25 with k1 = 1.2 and b = 0.75, shape (queries, documents)."""
    lengths = documents.sum(axis=1)
    frequency = np.asarray((documents > 0).sum(axis=0)).ravel()
    idf = np.log(1 + (documents.shape[0] - frequency + 0.5) / (frequency + 0.5))
    saturated = documents.astype(np.float64).tocoo()
    norm = 1.2 * (0.25 + 0.75 * lengths[saturated.row] / lengths.mean())
    saturated.data = saturated.data / (saturated.data + norm) * idf[saturated.col]
    return (queries @ saturated.tocsr().T).toarray()


def test_cranfield_is_retrieved_better_than_by_the_dense_vectors(
    cranfield: Collection, cranfield_documents: Embedded, cranfield_queries: Embedded, cranfield_model: KeyTokenModel
):
    texts, questions = list(cranfield.documents.values()), list(cranfield.queries.values())
    dense = ndcg(cranfield, cranfield_queries.embeddings @ cranfield_documents.embeddings.T)
    assert dense == pytest.approx(0.382, abs=0.002)

    setting = cranfield_model.weighting
    assert (setting.k_document, setting.m_query) == (Weighting.k_document, Weighting.m_query)
    encoded = cranfield_model.encode_documents(cranfield_documents.embeddings, texts)
    documents, columns = (
        encoded.rows,
        {word: len(cranfield_model.vocabulary) + i for i, word in enumerate(encoded.unseen)},
    )
    queries = cranfield_model.encode_queries(cranfield_queries.embeddings, questions).onto(columns, documents.shape[1])
    assert np.diff(documents.indptr).max() <= Weighting.k_document
    scores = (queries @ documents.T).toarray()
    assert ndcg(cranfield, scores) >= 0.40

    vocabulary = cranfield_model.vocabulary
    lexical = bm25_scores(vocabulary.literal_counts(texts).known, vocabulary.literal_counts(questions).known)
    assert ndcg(cranfield, scores + 0.1 * lexical) >= 0.40
    assert ndcg(cranfield, scores + 0.1 * lexical) > max(dense, ndcg(cranfield, lexical))


@pytest.mark.parametrize(("n", "method"), [(2, "remove"), (1, "shift"), (3, "shift")])
def test_a_preparation_is_what_fitting_to_adjusted_embeddings_would_be(
    small_embeddings: np.ndarray, small_texts: list[str], small_vocabulary: Vocabulary, n: int, method: str
):
    spectrum = Spectrum.from_embeddings(small_embeddings)
    preparation = spectrum.removal(n) if method == "remove" else spectrum.shift(n)
    adjusted = spectrum.adjust(small_embeddings, n_components=n, method=method)
    expected = plain_fit(adjusted, small_texts, small_vocabulary)
    model = fit(small_embeddings, small_texts, small_vocabulary, spectrum=spectrum, preparation=preparation)
    np.testing.assert_allclose(model.decoder.weight, expected.decoder.weight, atol=2**-10)
    np.testing.assert_allclose(model.decoder.logits(small_embeddings), expected.decoder.logits(adjusted), atol=2e-3)
    assert model.spectrum is spectrum
    without = plain_fit(small_embeddings, small_texts, small_vocabulary)
    assert np.abs(model.decoder.logits(small_embeddings) - without.decoder.logits(small_embeddings)).max() > 0.01


# what has been left out, and what the model says of its corpus


def left_out(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    """Predictions of each text by the ridge regression, with an intercept, of all other texts; less the mean of all."""
    predicted = []
    for i in range(len(x)):
        others = np.arange(len(x)) != i
        mean_x, mean_y = x[others].mean(axis=0), y[others].mean(axis=0)
        centred = x[others] - mean_x
        inverse = np.linalg.inv(centred.T @ centred + penalty * np.eye(x.shape[1]))
        predicted.append(mean_y + (x[i] - mean_x) @ inverse @ centred.T @ (y[others] - mean_y))
    return np.array(predicted) - y.mean(axis=0)


@pytest.mark.parametrize("regularization", [0.01, REGULARIZATION, 10.0])
@pytest.mark.parametrize(("n", "d"), [(60, 8), (25, 20), (20, 40)])
def test_predictions_of_texts_that_are_left_out_are_those_of_a_regression_without_them(
    small_texts: list[str], small_vocabulary: Vocabulary, regularization: float, n: int, d: int
):
    texts, features = small_texts[:n], np.array([0, 2, 3, 7, 11])
    counts = small_vocabulary.literal_counts(texts).known
    x = unit(noisy_embeddings(texts, small_vocabulary, d, common=1, noise=1)).astype(np.float32)
    sums = RegressionSums(x.mean(axis=0), np.ones(len(small_vocabulary), dtype=bool))
    for rows in (slice(0, 7), slice(7, n)):
        sums.add(x[rows], TokenRows(counts[rows]), x[rows])
    solution = sums.solve(features, regularization)
    targets = dense_targets(texts, small_vocabulary.features)[:, features]
    inputs = x.astype(np.float64)
    penalty = regularization * np.square(inputs - inputs.mean(axis=0)).sum(axis=1).mean()
    np.testing.assert_allclose(solution.coefficients, ridge(inputs, targets, regularization), atol=1e-5)
    found = solution.held_out(x, csr_array(targets.astype(np.float32)))
    expected = left_out(inputs, targets, penalty)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max() / min(regularization, 1))


def test_what_a_sample_of_texts_is_predicted_as_does_not_depend_on_the_others_in_the_sample(
    small_embeddings: np.ndarray, small_texts: list[str], small_vocabulary: Vocabulary
):
    x = unit(small_embeddings).astype(np.float32)
    counts = small_vocabulary.literal_counts(small_texts).known
    sums = RegressionSums(x.mean(axis=0), np.ones(12, dtype=bool))
    sums.add(x, TokenRows(counts), x)
    solution, targets = sums.solve(np.arange(12), 0.5), root_frequencies(counts)
    every = solution.held_out(x, targets)
    np.testing.assert_allclose(solution.held_out(x[[5, 40]], targets[[5, 40]]), every[[5, 40]], rtol=1e-6)


def test_comprehension_is_measured_on_texts_that_are_left_out(
    small_embeddings: np.ndarray, small_texts: list[str], small_vocabulary: Vocabulary
):
    model = plain_fit(small_embeddings, small_texts, small_vocabulary, regularization=0.5, min_df=16)
    frequent = list(model.vocabulary.features[: len(model.decoder)])
    assert 0 < len(frequent) < 12
    words = [text.split() for text in small_texts]
    known = sum(word in frequent for text in words for word in text)
    assert model.comprehension.coverage == pytest.approx(known / sum(map(len, words)))
    x, targets = unit(small_embeddings), dense_targets(small_texts, tuple(frequent))
    penalty = 0.5 * np.square(x - x.mean(axis=0)).sum(axis=1).mean()
    areas = []
    for logits, row in zip(left_out(x, targets, penalty), targets > 0, strict=True):
        if row.any() and not row.all():
            wins = logits[row][:, None] - logits[~row]
            areas.append(float(np.mean((wins > 0) + 0.5 * (wins == 0))))
    assert model.comprehension.literal_auc == pytest.approx(np.mean(areas), abs=2e-3)
    assert model.comprehension.warning is None


def test_vectors_that_are_not_those_of_their_texts_are_warned_of(
    cranfield: Collection, cranfield_documents: Embedded, cranfield_model: KeyTokenModel
):
    texts = list(cranfield.documents.values())
    assert cranfield_model.comprehension.literal_auc > 0.75
    assert cranfield_model.comprehension.coverage > 0.8
    assert cranfield_model.comprehension.warning is None
    shuffled = np.random.default_rng(0).permutation(len(texts))
    model = fit(cranfield_documents.embeddings[shuffled], texts)
    assert model.comprehension.literal_auc == pytest.approx(0.5, abs=0.06)
    warning = model.comprehension.warning
    assert f"AUC {model.comprehension.literal_auc:.2f}" in warning
    assert "check that each vector is that of its text" in warning
    assert warning.count(". ") == 0


def test_texts_that_are_mostly_numbers_are_warned_of():
    random = np.random.default_rng(0)
    choices = random.choice(["wing", "lift", "flow", "heat"], size=(300, 2))
    texts = [f"{a} {b} " + " ".join(map(str, random.integers(10, 10**6, size=4))) for a, b in choices]
    projection = dict(zip(["wing", "lift", "flow", "heat"], random.normal(size=(4, 8)), strict=True))
    embeddings = np.array([projection[a] + projection[b] for a, b in choices]) + 0.1 * random.normal(size=(300, 8))
    model = fit(embeddings, texts, language="none")
    assert model.comprehension.literal_auc > 0.9
    assert model.comprehension.coverage == pytest.approx(2 / 6)
    assert model.comprehension.warning.startswith("Only 33% of the words in the texts can be read from embeddings")


@pytest.mark.parametrize("language", ["none", None])
def test_texts_of_numbers_alone_cannot_be_fitted_to(language: str | None):
    random = np.random.default_rng(0)
    texts = [" ".join(map(str, random.integers(10, 30, size=4))) for _ in range(60)]
    with pytest.raises(ValueError, match="No word, numbers aside, occurs in at least min_df=2 of the 60 texts"):
        fit(random.normal(size=(60, 8)), texts, language=language)


# the words of the texts


def test_without_a_vocabulary_the_words_of_the_texts_are_fitted(small_embeddings: np.ndarray, small_texts: list[str]):
    texts = [f"The {text} of waves" for text in small_texts]
    model = fit(small_embeddings, texts)
    vocabulary = WordVocabulary.from_texts(texts, "english")
    assert model.vocabulary.language == "english", "found from the texts"
    assert model.fingerprint == fit(small_embeddings, texts, vocabulary).fingerprint
    assert model.fingerprint == fit(small_embeddings, tuple(texts), language="english").fingerprint
    assert set(model.vocabulary.features) == {*WORDS, "waves", "100"} - {"wave", "100%"}


def test_words_with_rows_come_first_and_numbers_have_none(small_embeddings: np.ndarray, small_texts: list[str]):
    model = plain_fit(small_embeddings, small_texts, language="none", min_df=16)
    df = {word: sum(word in text.split() for text in small_texts) for word in WORDS}
    decoded = {word for word, n in df.items() if n >= 16} - {"3.5", "100%"}
    assert df["3.5"] >= 16 or df["100%"] >= 16, "a number is frequent enough"
    assert set(model.vocabulary.features[: len(model.decoder)]) == decoded
    assert {"3.5", "100"} <= set(model.vocabulary.features[len(model.decoder) :])
    assert model.idf.shape == (len(model.vocabulary) + 1,)
    names = [word if word != "100" else "100%" for word in model.vocabulary.features]
    np.testing.assert_allclose(model.idf[:-1], raised_idf(small_texts, tuple(names)), rtol=1e-6)
    assert model.idf[-1] == pytest.approx(idf_of_unseen(small_texts))


def test_the_language_decides_which_words_are_one(small_embeddings: np.ndarray, small_texts: list[str]):
    texts = [text.replace("wave", "waves" if i % 2 else "wave") for i, text in enumerate(small_texts)]
    english, none = (fit(small_embeddings, texts, language=language) for language in ("english", "none"))
    assert (english.vocabulary.language, none.vocabulary.language) == ("english", "none")
    assert {"wave", "waves"} <= set(none.vocabulary.features)
    assert len({"wave", "waves"} & set(english.vocabulary.features)) == 1
    assert len(none.vocabulary) == len(english.vocabulary) + 1


def test_a_language_beside_a_vocabulary_is_refused(
    small_embeddings: np.ndarray, small_texts: list[str], small_vocabulary: Vocabulary
):
    with pytest.raises(ValueError, match="leave `language` out"):
        fit(small_embeddings, small_texts, small_vocabulary, language="english")


@pytest.mark.parametrize(
    "texts", [iter, lambda texts: dict(enumerate(texts)).values(), set], ids=["iter", "values", "set"]
)
def test_texts_that_cannot_be_read_twice_need_their_vocabulary(
    small_embeddings: np.ndarray, small_texts: list[str], texts: Callable[[list[str]], Iterable[str]]
):
    with pytest.raises(ValueError, match="pass the texts as a list, or their `vocabulary`"):
        fit(small_embeddings, texts(small_texts))


def test_words_that_the_vocabulary_has_not_seen_count_in_coverage_and_in_lengths(
    cranfield: Collection, cranfield_documents: Embedded
):
    texts, embeddings = list(cranfield.documents.values()), cranfield_documents.embeddings
    vocabulary = WordVocabulary.from_texts(texts[:30], "english")
    model = fit(embeddings, texts, vocabulary)
    counts = model.vocabulary.literal_counts(texts[:1000])
    in_decoder = counts.rows.indices < len(model.decoder)
    assert model.comprehension.coverage == pytest.approx(counts.rows.data[in_decoder].sum() / counts.rows.data.sum())
    assert model.comprehension.coverage < 0.8
    strongest = model.encode_documents(embeddings, texts).rows.max(axis=1).toarray()
    assert strongest.mean() == pytest.approx(1, rel=0.01)
