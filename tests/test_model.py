# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import math
import struct
from dataclasses import replace
from decimal import ROUND_FLOOR, Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from keytok_haystack import (
    EmbeddingError,
    KeyTokenModel,
    Preparation,
    TokenDecoder,
    TokenRows,
    Vocabulary,
    Weighting,
    WordVocabulary,
    alignment,
    calibrate,
)
from keytok_haystack.encoders import Embedded
from keytok_haystack.evaluation import Collection
from keytok_haystack.utils.checks import check_embeddings
from keytok_haystack.vocabulary import Analysis
from keytok_haystack.weighting import DocumentStatistics

# logits of the embedding (2, 1) are 2a + b for the row (a, b)
ROWS = {
    "shock": (2, 0),
    "wave": (1, 1),
    "boundary": (0.5, 0),
    "layer": (0, 0),
    "heat": (-1, 0),
    "transfer": (-1, 3),
    "wing": (0, 2),
    "lift": (4, 1),
    "flow": (0, -1),
    "speed": (0, 0.25),
    "3.5": (1, 0.25),
    "100%": (0, 0),
}
IDF = dict(zip(ROWS, [4, 3, 2, 1, 1, 1, 1, 2, 1, 1, 1, 1], strict=True))


@pytest.fixture
def model(small_vocabulary: Vocabulary) -> KeyTokenModel:
    weight = np.array([ROWS[feature] for feature in small_vocabulary.features])
    return KeyTokenModel(
        small_vocabulary,
        TokenDecoder(weight, Preparation(normalize=False)),
        Weighting(k_document=5, m_query=2, exponent=0.5, weight_scale=2.0),
    )


def idf_of_features(vocabulary: Vocabulary) -> np.ndarray:
    """The last entry is that of words that are not known, which a vocabulary of tokens never gives."""
    return np.array([*(IDF[feature] for feature in vocabulary.features), np.nan], dtype=np.float32)


def tokens(model: KeyTokenModel, found: TokenRows) -> list[dict[str, float]]:
    assert found.unseen == ()
    dense = found.rows.toarray()
    return [{f: float(w) for f, w in zip(model.vocabulary.features, row, strict=True) if w} for row in dense]


def test_document_weights_are_the_scaled_powers_of_the_largest_positive_logits(model: KeyTokenModel):
    (weights,) = tokens(model, model.encode_documents([[2.0, 1.0]]))
    logits = {"lift": 9, "shock": 4, "wave": 3, "3.5": 2.25, "wing": 2}
    level = 9**0.25  # a quarter of the way to what makes all documents' strongest tokens weigh the same
    assert weights == pytest.approx({feature: (logit / level) ** 0.5 / 2 for feature, logit in logits.items()})
    assert list(model.document_tokens(model.encode_documents([[2.0, 1.0]]))[0])[:2] == ["lift", "shock"]


def test_more_tokens_than_features_keeps_all_positive_ones(model: KeyTokenModel):
    (weights,) = tokens(model, model.encode_documents([[2.0, 1.0]], top_k=1000))
    assert set(weights) == {"lift", "shock", "wave", "3.5", "wing", "boundary", "transfer", "speed"}


def test_documents_can_be_given_fewer_tokens(model: KeyTokenModel):
    (weights,) = tokens(model, model.encode_documents([[2.0, 1.0]], top_k=1))
    assert weights == pytest.approx({"lift": (9 / 9**0.25) ** 0.5 / 2})


@pytest.mark.parametrize("top_k", [0, -1])
def test_documents_without_any_tokens_are_refused(model: KeyTokenModel, top_k: int):
    with pytest.raises(ValueError, match=r"(?i)at least 1"):
        model.encode_documents([[2.0, 1.0]], top_k=top_k)


def test_a_document_without_a_positive_logit_has_no_tokens(small_vocabulary: Vocabulary):
    model = KeyTokenModel(small_vocabulary, TokenDecoder(np.ones((12, 2)), Preparation(normalize=False)))
    weights = model.encode_documents([[1.0, 1.0], [-1.0, -1.0], [0.5, 0.0]])
    assert np.diff(weights.rows.indptr).tolist() == [12, 0, 12]
    assert model.document_tokens(weights)[1] == {}


def test_queries_have_their_aligned_tokens_scaled_to_a_maximum_of_1(model: KeyTokenModel):
    assert tokens(model, model.encode_queries([[2.0, 1.0]])) == [{"lift": 1.0, "shock": pytest.approx(4 / 9)}]
    (three,) = tokens(model, model.encode_queries([[2.0, 1.0]], top_k=3))
    assert three == pytest.approx({"lift": 1, "shock": 4 / 9, "wave": 3 / 9})


def test_literal_tokens_join_the_aligned_ones_by_idf(model: KeyTokenModel):
    idf = idf_of_features(model.vocabulary)
    (weights,) = tokens(model, replace(model, idf=idf).encode_queries([[2.0, 1.0]], ["shock heat heat, unknown heat"]))
    # aligned tokens are lift with 9 and shock with 4; literals are 1.5 times as long: shock 4 and heat, twice, 1
    factor = 1.5 * math.hypot(9, 4) / math.hypot(4, 2**0.5)
    expected = {"lift": 9, "shock": 4 + 4 * factor, "heat": 2**0.5 * factor}
    assert weights == pytest.approx({feature: weight / (4 + 4 * factor) for feature, weight in expected.items()})


def test_literal_tokens_without_idf_weigh_alike(model: KeyTokenModel):
    (weights,) = tokens(model, model.encode_queries([[2.0, 1.0]], ["heat flow"]))
    own = 1.5 * math.hypot(9, 4) / 2**0.5
    largest = max(own, 9)
    assert weights == pytest.approx(
        {"lift": 9 / largest, "heat": own / largest, "flow": own / largest, "shock": 4 / largest}
    )


def test_queries_can_be_their_literal_tokens_alone(model: KeyTokenModel):
    expected = [{"heat": 1.0, "flow": 1.0}, {}]
    rows = model.encode_queries([[2.0, 1.0], [2.0, 1.0]], ["heat flow", "unknown"], top_k=0)
    assert tokens(model, rows) == expected
    without = model.with_weighting(m_query=0)
    assert tokens(model, without.encode_queries([[2.0, 1.0], [2.0, 1.0]], ["heat flow", "unknown"])) == expected
    assert without.encode_queries([[2.0, 1.0]]).rows.nnz == 0


def test_the_largest_weight_of_every_query_is_1(cranfield_model: KeyTokenModel, cranfield_queries, cranfield):
    texts = list(cranfield.queries.values())
    for rows in (
        cranfield_model.encode_queries(cranfield_queries.embeddings),
        cranfield_model.encode_queries(cranfield_queries.embeddings, texts),
        cranfield_model.encode_queries(cranfield_queries.embeddings, texts, top_k=0),
    ):
        np.testing.assert_allclose(rows.rows.toarray().max(axis=1), 1, rtol=1e-6)
        assert rows.rows.data.min() > 0


@pytest.mark.parametrize("method", ["encode_documents", "encode_queries"])
@pytest.mark.parametrize("n_texts", [0, 1, 3])
def test_another_number_of_texts_is_refused(model: KeyTokenModel, method: str, n_texts: int):
    with pytest.raises(ValueError, match=f"2 embeddings, but {n_texts} texts"):
        getattr(model, method)([[2.0, 1.0], [1.0, 1.0]], ["lift"] * n_texts)


def test_a_query_has_the_same_tokens_alone_and_among_others(
    cranfield_model: KeyTokenModel, cranfield_queries: Embedded, cranfield: Collection
):
    texts, embeddings = list(cranfield.queries.values()), cranfield_queries.embeddings
    together = cranfield_model.query_tokens(cranfield_model.encode_queries(embeddings, texts))
    for embedding, text, expected in zip(embeddings, texts, together, strict=True):
        (alone,) = cranfield_model.query_tokens(cranfield_model.encode_queries(embedding[None], [text]))
        assert alone == expected


def test_a_query_that_names_a_feature_without_a_row_has_it(small_vocabulary: Vocabulary):
    weight = np.array([ROWS[feature] for feature in small_vocabulary.features[:3]])
    idf = idf_of_features(small_vocabulary)
    model = KeyTokenModel(small_vocabulary, TokenDecoder(weight, Preparation(normalize=False)), idf=idf)
    (weights,) = tokens(model, model.encode_queries([[2.0, 1.0]], ["lift wave"]))
    # shock has the logit 4, wave 3, boundary 1; the literals are lift with 2 and wave with 3
    factor = 1.5 * math.hypot(4, 3, 1) / math.hypot(2, 3)
    expected = {"shock": 4, "wave": 3 + 3 * factor, "boundary": 1, "lift": 2 * factor}
    assert weights == pytest.approx({feature: weight / (3 + 3 * factor) for feature, weight in expected.items()})
    assert tokens(model, model.encode_queries([[2.0, 1.0]], ["lift heat"], top_k=0)) == [{"lift": 1.0, "heat": 0.5}]


@pytest.mark.parametrize("method", ["encode_documents", "encode_queries"])
@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        ([[1.0, 2.0, 3.0]], "3 dimensions, but 2 are expected: use the embedder"),
        ([[1.0, float("nan")]], "Embedding 0 contains NaN"),
        ([[1.0, 1.0], [0.0, 0.0]], "Embedding 1 is the zero vector"),
        ([1.0, 2.0], "shape"),
    ],
)
def test_unusable_embeddings_are_refused(model: KeyTokenModel, method: str, embeddings: list, message: str):
    with pytest.raises(EmbeddingError, match=message):
        getattr(model, method)(embeddings)


@given(st.lists(st.floats(2.0**-20, 2.0**20, width=32), min_size=1, max_size=12))
def test_document_tokens_are_stored_as_their_rounded_weights_are_and_strongest_first(
    small_vocabulary: Vocabulary, weights: list[float]
):
    model = KeyTokenModel(small_vocabulary, TokenDecoder(np.ones((12, 2)), Preparation()))
    row = TokenRows(csr_array(np.array([weights + [0.0] * (12 - len(weights))], dtype=np.float32)))
    (written,) = model.document_tokens(row)

    def stored(weight: float) -> int:
        return struct.unpack(">I", struct.pack(">f", weight))[0] >> 15

    for key, weight in zip(small_vocabulary.keys, weights, strict=False):
        digits = Decimal(weight)  # exactly, so that a tie is a tie
        step = Decimal(1).scaleb(digits.adjusted() - 1) if digits < Decimal("0.1") else Decimal("0.02")
        lower = (digits / step).to_integral_value(ROUND_FLOOR) * step
        nearest = [two for two in (lower, lower + step) if abs(two - digits) <= step / 2 * Decimal("1.000001")]
        assert stored(written[key]) in {stored(float(two)) for two in nearest}
    assert list(written.values()) == sorted(written.values(), reverse=True)
    assert len(written) == len(weights)


def test_a_weight_that_is_too_small_for_a_float_is_left_out(small_vocabulary: Vocabulary):
    decoder = TokenDecoder(np.array([[1.0], [1e-4], [0.5]]), Preparation(normalize=False))
    model = KeyTokenModel(small_vocabulary, decoder, Weighting(exponent=12.0, normalization=1.0))
    (written,) = model.document_tokens(model.encode_documents([[1.0]]))
    assert written == {"shock": 1.0, "boundary": pytest.approx(0.5**12, rel=0.03)}


def test_keys_of_tokens_are_escaped(model: KeyTokenModel):
    row = TokenRows(csr_array(np.ones((1, 12), dtype=np.float32)))
    for written in (model.document_tokens(row), model.query_tokens(row)):
        assert set(written[0]) == {*ROWS, "3%2E5", "100%25"} - {"3.5", "100%"}


def test_query_tokens_are_rounded_to_6_decimals(model: KeyTokenModel):
    row = TokenRows(csr_array(np.array([[1 / 3, 1, 4e-7, 2e-6] + [0] * 8], dtype=np.float32)))
    features = model.vocabulary.features
    assert model.query_tokens(row) == [{features[1]: 1.0, features[0]: 0.333333, features[3]: 2e-6}]


def test_documents_without_tokens_count_as_0_in_the_scale(model: KeyTokenModel):
    downwards = replace(model, decoder=TokenDecoder(np.full((12, 2), [1, 0]), model.decoder.preparation))
    scaled = downwards.with_weighting(normalization=0.5).scaled_to([[1.0, 1.0], [-5.0, 1.0], [625.0, 0.0]])
    # the mean of 1, 0 and the root of 625 / 25
    assert scaled.weighting == replace(model.weighting, weight_scale=2.0, normalization=0.5)


@pytest.mark.parametrize("embeddings", [np.zeros((0, 2)), [[-1.0, 0.0], [-2.0, 0.0]]], ids=["none", "no tokens"])
def test_where_there_is_nothing_to_scale_the_scale_is_1(model: KeyTokenModel, embeddings: object):
    downwards = replace(model, decoder=TokenDecoder(np.full((12, 2), [1, 0]), model.decoder.preparation))
    assert downwards.scaled_to(embeddings).weighting == replace(model.weighting, weight_scale=1.0)


@pytest.mark.parametrize(
    "setting",
    [
        {"k_document": 0},
        {"k_document": -1},
        {"m_query": -1},
        {"exponent": 0.0},
        {"exponent": -0.5},
        {"exponent": float("nan")},
        {"weight_scale": 0.0},
        {"weight_scale": float("nan")},
        {"weight_scale": float("inf")},
        {"normalization": -0.1},
        {"normalization": 1.1},
        {"normalization": float("nan")},
        {"gain_share": 0.0},
        {"gain_share": 1.1},
        {"gain_share": float("nan")},
        {"literal_share": -0.1},
        {"literal_share": 1.0},
        {"literal_share": float("nan")},
        {"literal_scale": -1.0},
        {"literal_scale": float("inf")},
        {"literal_scale": float("nan")},
    ],
    ids=str,
)
def test_settings_without_a_meaning_are_refused(setting: dict[str, float]):
    with pytest.raises(ValueError, match=next(iter(setting))):
        Weighting(**setting)


def test_parts_that_do_not_fit_together_are_refused(small_model: KeyTokenModel, small_vocabulary: Vocabulary):
    with pytest.raises(ValueError, match="12 features, but the decoder 13"):
        replace(small_model, decoder=TokenDecoder(np.ones((13, 8)), Preparation()))
    with pytest.raises(ValueError, match="8 dimensions, but the decoder 7"):
        replace(small_model, decoder=TokenDecoder(np.ones((12, 7)), Preparation()))


def test_an_idf_of_another_length_is_refused(small_model: KeyTokenModel):
    with pytest.raises(ValueError, match="5"):
        replace(small_model, idf=np.ones(5, dtype=np.float32))


@pytest.mark.parametrize(
    "call",
    [
        lambda model, x, texts: model.encode_documents(x, texts),
        lambda model, x, texts: model.encode_queries(x, texts),
        lambda model, x, texts: model.scaled_to(x, model.vocabulary.literal_counts(texts).known),
        lambda model, x, texts: model.decoder.logits(x),
        lambda model, x, texts: model.decoder.top_k(x, 3),
        lambda model, x, texts: alignment(model.decoder, model.vocabulary, x, texts),
        calibrate,
    ],
    ids=["documents", "queries", "scale", "logits", "top-k", "alignment", "calibrate"],
)
def test_embeddings_are_checked_once_a_call(
    small_model: KeyTokenModel, small_embeddings: np.ndarray, small_texts: list[str], monkeypatch, call
):
    checked = []

    def counted(embeddings: np.ndarray, *arguments: object) -> np.ndarray:
        checked.append(len(embeddings))
        return check_embeddings(embeddings, *arguments)

    for module in ("decoder", "model", "decoders.calibration", "embedding_space.embeddings"):
        monkeypatch.setattr(f"keytok_haystack.{module}.check_embeddings", counted, raising=False)
    call(small_model, small_embeddings, small_texts)
    assert checked == [60]


# words that the vocabulary has not seen


@pytest.fixture(scope="module")
def open_model() -> KeyTokenModel:
    """Two features with rows, one without, and the logits of the embedding (1,) are 4 and 1."""
    vocabulary = WordVocabulary(["wing", "flow", "heats"], Analysis("english"))
    weighting = Weighting(k_document=4, exponent=1.0, normalization=0.0, literal_share=0.5, literal_scale=2.0)
    idf = np.array([1, 2, 3, 5], dtype=np.float32)
    decoder = TokenDecoder(np.array([[4], [1]]), Preparation(normalize=False))
    return KeyTokenModel(vocabulary, decoder, weighting, idf=idf)


def written(model: KeyTokenModel, text: str, **arguments: int) -> dict[str, float]:
    (found,) = model.document_tokens(model.encode_documents([[1.0]], [text], **arguments))
    return found


def asked(model: KeyTokenModel, text: str, **arguments: int) -> dict[str, float]:
    (found,) = model.query_tokens(model.encode_queries([[1.0]], [text], **arguments))
    return found


def test_a_document_has_its_unseen_words_at_the_idf_of_those(open_model: KeyTokenModel):
    # five words, of which turbopump is two: each adds 2 * idf * sqrt(tf / 5)
    found = written(open_model, "Turbopumps, a turbopump, heating at 7.25 and wing!")
    once, twice = math.sqrt(1 / 5), math.sqrt(2 / 5)
    expected = {"turbopump": 10 * twice, "wing": 4 + 2 * once, "7%2E25": 10 * once, "heats": 6 * once}
    assert found == pytest.approx({word: round(50 * weight) / 50 for word, weight in expected.items()}, rel=4e-3)
    assert list(found) == ["turbopump", "wing", "7%2E25", "heats"]
    assert list(written(open_model, "Turbopumps, a turbopump, heating at 7.25 and wing!", top_k=2)) == list(found)[:2]


def test_a_query_has_its_unseen_words_at_the_idf_of_those(open_model: KeyTokenModel):
    found = asked(open_model, "turbopumps, a turbopump, heat")
    own = {"turbopump": 5 * math.sqrt(2), "heats": 3}
    factor = 1.5 * math.hypot(4, 1) / math.hypot(*own.values())
    expected = {"wing": 4, "flow": 1} | {word: factor * weight for word, weight in own.items()}
    largest = max(expected.values())
    assert found == pytest.approx({word: weight / largest for word, weight in expected.items()}, abs=1e-6)
    assert asked(open_model, "ramjets", top_k=0) == {"ramjet": 1.0}


def test_columns_of_unseen_words_are_behind_the_features(open_model: KeyTokenModel):
    texts = ["ramjets", "wing", "a turbopump in a ramjet"]
    for found in (open_model.encode_documents([[1.0]] * 3, texts), open_model.encode_queries([[1.0]] * 3, texts)):
        assert found.unseen == ("ramjet", "turbopump")
        assert found.rows.shape == (3, 5)
        assert (found.rows.toarray()[:, 3:] > 0).tolist() == [[True, False], [False, False], [True, True]]
        assert found.known.shape == (3, 3)
    for found in (open_model.encode_documents([[1.0]]), open_model.encode_queries([[1.0]])):
        assert (found.unseen, found.rows.shape) == ((), (1, 3))


@given(
    st.lists(st.sampled_from(["wing", "heats", "ramjets", "turbopump", "ramjet heat", ""]), min_size=1),
    st.integers(1, 4),
)
def test_texts_in_batches_have_the_key_tokens_that_they_have_at_once(
    open_model: KeyTokenModel, texts: list[str], size: int
):
    def tokens(some: list[str]) -> list[dict[str, float]]:
        embeddings = [[1.0]] * len(some)
        documents = open_model.document_tokens(open_model.encode_documents(embeddings, some))
        return [*documents, *open_model.query_tokens(open_model.encode_queries(embeddings, some))]

    batches = [tokens(texts[start : start + size]) for start in range(0, len(texts), size)]
    documents = [found for batch in batches for found in batch[: len(batch) // 2]]
    queries = [found for batch in batches for found in batch[len(batch) // 2 :]]
    assert tokens(texts) == documents + queries


def test_a_model_of_words_is_saved_with_what_names_its_unseen_words(open_model: KeyTokenModel, tmp_path: Path):
    open_model.save(tmp_path / "model")
    loaded = KeyTokenModel.load(tmp_path / "model")
    assert loaded.fingerprint == open_model.fingerprint
    for text in ("Turbopumps at 7.25 and heating", "the", "東京タワー of R", ""):
        assert written(loaded, text) == written(open_model, text)
        assert asked(loaded, text) == asked(open_model, text)


# queries leave out tokens of poor gain


def test_a_query_leaves_out_what_many_documents_have(open_model: KeyTokenModel):
    # literals alone weigh their idf: wing 1, flow 2, heats 3 and a new word 5, each 1 in the documents that have it
    share, ones = np.array([1, 1 / 4, 1 / 16, 1 / 100], dtype=np.float32), np.ones(4, dtype=np.float32)
    model = replace(open_model, statistics=DocumentStatistics(share, ones))
    text = "wing flow heat ramjet"
    every = {"ramjet": 1.0, "heats": 0.6, "flow": 0.4, "wing": 0.2}
    for gain_share, kept in ((1.0, 4), (0.95, 4), (0.9, 3), (0.8, 3), (0.7, 2), (0.4, 1), (0.01, 1)):
        found = asked(model.with_weighting(gain_share=gain_share), text, top_k=0)
        assert found == pytest.approx(dict(list(every.items())[:kept])), gain_share
    assert asked(replace(model, statistics=None), text, top_k=0) == pytest.approx(every)


def test_the_largest_weight_of_what_is_left_is_1(open_model: KeyTokenModel):
    # the new word is the heaviest, but nearly all documents have one
    statistics = DocumentStatistics(np.float32([0.01, 0.01, 0.01, 1]), np.ones(4, dtype=np.float32))
    model = replace(open_model, statistics=statistics).with_weighting(gain_share=0.3)
    assert asked(model, "heat ramjet", top_k=0) == {"heats": 1.0}


def test_documents_keep_tokens_of_poor_gain(small_model: KeyTokenModel, small_embeddings, small_texts: list[str]):
    every = small_model.with_weighting(gain_share=1.0)
    for texts in (None, small_texts):
        documents = [model.encode_documents(small_embeddings, texts).rows for model in (small_model, every)]
        assert (documents[0] != documents[1]).nnz == 0
        queries = [model.encode_queries(small_embeddings, texts).rows for model in (small_model, every)]
        assert queries[0].nnz < queries[1].nnz
        assert not ((queries[0] > 0).astype(int) - (queries[1] > 0).astype(int) > 0).nnz


def test_statistics_are_those_of_the_sample_that_a_model_is_scaled_to(
    small_model: KeyTokenModel, small_embeddings, small_texts: list[str]
):
    counts = small_model.vocabulary.literal_counts(small_texts).known
    model = replace(small_model, statistics=None).scaled_to(small_embeddings, counts)
    weights = model.encode_documents(small_embeddings, small_texts).rows.toarray().astype(float)
    present = (weights > 0).sum(axis=0)
    assert present.min() > 1, "no feature is as rare as an unseen word"
    np.testing.assert_allclose(model.statistics.share, [*(present / 60), 1 / 60], rtol=1e-6)
    np.testing.assert_allclose(model.statistics.mean_weight[:-1], weights.sum(axis=0) / present, rtol=1e-5)
    assert model.statistics.mean_weight[-1] == pytest.approx(weights.sum() / present.sum(), rel=1e-5)
    np.testing.assert_allclose(small_model.statistics.share, model.statistics.share)


@pytest.mark.parametrize("name", ["share", "mean_weight"])
def test_statistics_of_another_length_are_refused(small_model: KeyTokenModel, name: str):
    statistics = replace(small_model.statistics, **{name: np.ones(12, dtype=np.float32)})
    with pytest.raises(ValueError, match=rf"{name} has the shape \(12,\), but 12 features, .* need \(13,\)"):
        replace(small_model, statistics=statistics)
