# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.sparse import csr_array

from keytok_haystack import Weighting
from keytok_haystack.weighting import add_literals, inverse_document_frequency, root_frequencies

ALIGNED = [[0.5, 0, 2, 0, 0], [0, 0, 0, 0, 0], [0, 3, 4, 0, 0], [0, 0, 0, 0, 0]]
LITERAL_COUNTS = [[0, 0, 4, 0, 1], [0, 1, 0, 2, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]
IDF = [8, 2, 4, 3, 1]
logit_rows = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=8),
    elements=st.sampled_from([0, 0, 0.25, 0.5, 1, 2.5, 40]),
)
count_rows = arrays(
    np.float32, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9), elements=st.integers(0, 5)
)


def csr(dense: list[list[float]]) -> csr_array:
    return csr_array(np.array(dense, dtype=np.float32))


@given(
    logit_rows,
    st.sampled_from([0.5, 1.0, 2.0]),
    st.sampled_from([0.0, 0.25, 1.0]),
    st.sampled_from([0.5, 3.0]),
)
def test_document_weights_are_the_formula_entry_by_entry(
    logits: np.ndarray, exponent: float, normalization: float, weight_scale: float
):
    weighting = Weighting(exponent=exponent, normalization=normalization, weight_scale=weight_scale)
    weights = weighting.document_weights(csr_array(logits))
    expected = [[0.0] * logits.shape[1] for _ in logits]
    for i, row in enumerate(logits.tolist()):
        for j, logit in enumerate(row):
            expected[i][j] = (logit / max(row) ** normalization) ** exponent / weight_scale if logit else 0.0
    assert weights.dtype == np.float32
    assert weights.shape == logits.shape
    np.testing.assert_allclose(weights.toarray(), expected, rtol=1e-5)


def test_document_weights_leave_the_logits_as_they_are():
    logits = csr([[4.0, 0, 0.25, 1], [0, 0.25, 9, 0]])
    before = logits.toarray()
    Weighting(normalization=0).document_weights(logits)
    assert logits.nnz == 5
    np.testing.assert_array_equal(logits.toarray(), before)


def test_at_full_normalization_all_documents_have_the_same_maximum_and_at_none_those_of_strong_ones_are_larger():
    logits = csr([[1, 0.5, 0], [100, 50, 1], [0, 0, 0]])
    assert Weighting(normalization=1).document_weights(logits).toarray().max(axis=1).tolist() == [1, 1, 0]
    assert Weighting(normalization=0).document_weights(logits).toarray().max(axis=1).tolist() == [1, 10, 0]


@pytest.mark.parametrize(("share", "factor"), [(0.0, 0.0), (0.5, 1.0), (0.75, 3.0), (0.2, 0.25)])
def test_the_weight_of_literals_is_the_odds_of_their_share_times_their_scale(share: float, factor: float):
    assert Weighting(literal_share=share, literal_scale=3.0).literal_factor == pytest.approx(3 * factor)
    assert Weighting(literal_share=share).literal_factor == 0


@given(st.integers(1, 10**6), st.data())
def test_the_idf_is_lucenes_formula_and_what_is_in_no_text_counts_as_if_it_were_in_one(count: int, data: st.DataObject):
    frequency = data.draw(st.lists(st.integers(0, count), min_size=1, max_size=9))
    idf = inverse_document_frequency(np.array(frequency), count)
    expected = [math.log(1 + (count - max(df, 1) + 0.5) / (max(df, 1) + 0.5)) for df in frequency]
    np.testing.assert_allclose(idf, expected, rtol=1e-6)
    assert idf.dtype == np.float32
    assert (idf > 0).all()


@given(count_rows)
def test_root_frequencies_are_the_formula_and_rows_of_unit_length(counts: np.ndarray):
    roots = root_frequencies(csr_array(counts))
    expected = [[math.sqrt(tf / sum(row)) if tf else 0.0 for tf in row] for row in counts.tolist()]
    np.testing.assert_allclose(roots.toarray(), expected, rtol=1e-6)
    lengths = np.linalg.norm(roots.toarray().astype(float), axis=1)
    np.testing.assert_allclose(lengths, counts.any(axis=1).astype(float), rtol=1e-6)
    assert roots.dtype == np.float32
    assert roots.nnz == np.count_nonzero(counts)


def joined_by_hand(aligned: list[float], counts: list[float], idf: list[float]) -> list[float]:
    """Literal tokens weigh `sqrt(tf) * idf`, as a vector 1.5 times as long as the aligned ones, or 1.5 alone."""
    own = [math.sqrt(tf) * weight for tf, weight in zip(counts, idf, strict=True)]
    length, own_length = math.hypot(*aligned) or 1.0, math.hypot(*own) or 1.0
    return [a + 1.5 * length / own_length * b for a, b in zip(aligned, own, strict=True)]


@pytest.mark.parametrize("idf", [IDF, None], ids=["idf", "no idf"])
def test_a_querys_literals_are_one_and_a_half_times_as_long_as_its_aligned_tokens(idf: list[float] | None):
    given_idf = None if idf is None else np.array(idf, dtype=np.float32)
    joined = add_literals(csr(ALIGNED), csr(LITERAL_COUNTS), given_idf)
    pairs = zip(ALIGNED, LITERAL_COUNTS, strict=True)
    expected = [joined_by_hand(aligned, counts, idf or [1] * 5) for aligned, counts in pairs]
    np.testing.assert_allclose(joined.toarray(), expected, rtol=1e-6)
    assert joined.has_canonical_format
    own = joined.toarray() - np.array(ALIGNED)
    np.testing.assert_allclose(np.linalg.norm(own, axis=1), [1.5 * math.hypot(0.5, 2), 1.5, 0, 0], rtol=1e-6)


@given(st.integers(1, 50))
def test_a_query_said_over_and_over_says_the_same(times: int):
    counts = np.array(LITERAL_COUNTS, dtype=np.float32)
    once, often = (
        add_literals(csr(ALIGNED), csr_array(c), np.array(IDF, np.float32)) for c in (counts, counts * times)
    )
    np.testing.assert_allclose(often.toarray(), once.toarray(), rtol=1e-5)


def test_joining_literals_changes_none_of_its_inputs():
    aligned, literals, idf = csr(ALIGNED), csr(LITERAL_COUNTS), np.array(IDF, dtype=np.float32)
    add_literals(aligned, literals, idf)
    np.testing.assert_array_equal(aligned.toarray(), ALIGNED)
    np.testing.assert_array_equal(literals.toarray(), LITERAL_COUNTS)
    assert idf.tolist() == IDF
