# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import math
import struct
from dataclasses import replace

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
    Vocabulary,
    Weighting,
    alignment,
    calibrate,
)
from keytok_haystack.utils.checks import check_embeddings

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


def tokens(model: KeyTokenModel, rows: csr_array) -> list[dict[str, float]]:
    dense = rows.toarray()
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
    assert np.diff(weights.indptr).tolist() == [12, 0, 12]
    assert model.document_tokens(weights)[1] == {}


def test_queries_have_their_aligned_tokens_scaled_to_a_maximum_of_1(model: KeyTokenModel):
    assert tokens(model, model.encode_queries([[2.0, 1.0]])) == [{"lift": 1.0, "shock": pytest.approx(4 / 9)}]
    (three,) = tokens(model, model.encode_queries([[2.0, 1.0]], top_k=3))
    assert three == pytest.approx({"lift": 1, "shock": 4 / 9, "wave": 3 / 9})


def test_literal_tokens_join_the_aligned_ones_by_idf(model: KeyTokenModel):
    idf = np.array([IDF[feature] for feature in model.vocabulary.features], dtype=np.float32)
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
    assert without.encode_queries([[2.0, 1.0]]).nnz == 0


def test_the_largest_weight_of_every_query_is_1(cranfield_model: KeyTokenModel, cranfield_queries, cranfield):
    texts = list(cranfield.queries.values())
    for rows in (
        cranfield_model.encode_queries(cranfield_queries.embeddings),
        cranfield_model.encode_queries(cranfield_queries.embeddings, texts),
        cranfield_model.encode_queries(cranfield_queries.embeddings, texts, top_k=0),
    ):
        np.testing.assert_allclose(rows.toarray().max(axis=1), 1, rtol=1e-6)
        assert rows.data.min() > 0


@pytest.mark.parametrize("method", ["encode_documents", "encode_queries"])
@pytest.mark.parametrize("n_texts", [0, 1, 3])
def test_another_number_of_texts_is_refused(model: KeyTokenModel, method: str, n_texts: int):
    with pytest.raises(ValueError, match=f"2 embeddings, but {n_texts} texts"):
        getattr(model, method)([[2.0, 1.0], [1.0, 1.0]], ["lift"] * n_texts)


def test_a_query_that_names_a_feature_without_a_row_has_it(small_vocabulary: Vocabulary):
    weight = np.array([ROWS[feature] for feature in small_vocabulary.features[:3]])
    idf = np.array([IDF[feature] for feature in small_vocabulary.features], dtype=np.float32)
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
def test_document_tokens_are_stored_as_their_weights_are_and_strongest_first(
    small_vocabulary: Vocabulary, weights: list[float]
):
    model = KeyTokenModel(small_vocabulary, TokenDecoder(np.ones((12, 2)), Preparation()))
    row = csr_array(np.array([weights + [0.0] * (12 - len(weights))], dtype=np.float32))
    (written,) = model.document_tokens(row)

    def stored(weight: float) -> int:
        return struct.unpack(">I", struct.pack(">f", weight))[0] >> 15

    for key, weight in zip(small_vocabulary.keys, weights, strict=False):
        assert stored(written[key]) == stored(weight)
    assert list(written.values()) == sorted(written.values(), reverse=True)
    assert len(written) == len(weights)


def test_keys_of_tokens_are_escaped(model: KeyTokenModel):
    row = csr_array(np.ones((1, 12), dtype=np.float32))
    for written in (model.document_tokens(row), model.query_tokens(row)):
        assert set(written[0]) == {*ROWS, "3%2E5", "100%25"} - {"3.5", "100%"}


def test_query_tokens_are_rounded_to_6_decimals(model: KeyTokenModel):
    row = csr_array(np.array([[1 / 3, 1, 4e-7, 2e-6] + [0] * 8], dtype=np.float32))
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
        lambda model, x, texts: model.scaled_to(x, model.vocabulary.literal_counts(texts)),
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
