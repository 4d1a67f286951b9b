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

from keytok_haystack import TokenRows, Weighting
from keytok_haystack.sparse_vectors.rows import SparseRow
from keytok_haystack.weighting import (
    IDF_EXPONENT,
    DocumentStatistics,
    add_literals,
    drop_poor_gain,
    feature_idf,
    idf_of,
    inverse_document_frequency,
    root_frequencies,
    strongest_tokens,
)

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


def row_of(dense: list[float]) -> SparseRow:
    columns = np.flatnonzero(dense).astype(np.int32)
    return columns, np.array(dense, dtype=np.float32)[columns]


def dense_of(row: SparseRow, width: int) -> list[float]:
    """The row in full, after checks that it is one."""
    columns, entries = row
    assert columns.dtype == np.int32
    assert entries.dtype == np.float32
    assert (np.diff(columns) > 0).all()
    full = np.zeros(width)
    full[columns] = entries
    return full.tolist()


def joined(aligned: list[list[float]], counts: list[list[float]], idf: list[float] | None) -> np.ndarray:
    given_idf = None if idf is None else np.array(idf, dtype=np.float32)
    pairs = zip(aligned, counts, strict=True)
    return np.array([dense_of(add_literals(row_of(a), row_of(c), given_idf), len(a)) for a, c in pairs])


@pytest.mark.parametrize("idf", [IDF, None], ids=["idf", "no idf"])
def test_a_querys_literals_are_one_and_a_half_times_as_long_as_its_aligned_tokens(idf: list[float] | None):
    found = joined(ALIGNED, LITERAL_COUNTS, idf)
    pairs = zip(ALIGNED, LITERAL_COUNTS, strict=True)
    expected = [joined_by_hand(aligned, counts, idf or [1] * 5) for aligned, counts in pairs]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    own = found - np.array(ALIGNED)
    np.testing.assert_allclose(np.linalg.norm(own, axis=1), [1.5 * math.hypot(0.5, 2), 1.5, 0, 0], rtol=1e-6)


@given(st.integers(1, 50))
def test_a_query_said_over_and_over_says_the_same(times: int):
    counts = np.array(LITERAL_COUNTS, dtype=np.float32)
    once, often = (joined(ALIGNED, c.tolist(), IDF) for c in (counts, counts * times))
    np.testing.assert_allclose(often, once, rtol=1e-5)


def test_words_beyond_the_idf_have_its_last_entry():
    found = joined([[0, 0, 0, 0, 0, 0, 0]], [[1, 0, 0, 0, 1, 1, 1]], IDF)
    length = math.hypot(8, 1, 1, 1) / 1.5
    np.testing.assert_allclose(found, [[8 / length, 0, 0, 0, *[1 / length] * 3]], rtol=1e-6)


def test_joining_literals_changes_none_of_its_inputs():
    aligned, literals, idf = row_of(ALIGNED[0]), row_of(LITERAL_COUNTS[0]), np.array(IDF, dtype=np.float32)
    add_literals(aligned, literals, idf)
    assert dense_of(aligned, 5) == ALIGNED[0]
    assert dense_of(literals, 5) == LITERAL_COUNTS[0]
    assert idf.tolist() == IDF


# statistics of documents, and queries without tokens of poor gain


def statistics(share: list[float], mean_weight: list[float]) -> DocumentStatistics:
    return DocumentStatistics(np.array(share, dtype=np.float32), np.array(mean_weight, dtype=np.float32))


def test_statistics_of_documents_are_counted_by_hand():
    weights = csr([[1, 0, 0.5, 0.25, 0], [3, 0, 0, 0, 0], [2, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    found = DocumentStatistics.of(weights, weights.shape[1])
    # the first is in three of four documents, two are in one, and two in none count as those in one; so do all unseen
    np.testing.assert_array_equal(found.share, np.float32([0.75, 0.25, 0.25, 0.25, 0.25, 0.25]))
    np.testing.assert_array_equal(found.mean_weight, np.float32([2, 0.375, 0.5, 0.25, 0.375, 0.375]))
    assert found.share.dtype == found.mean_weight.dtype == np.float32


@given(logit_rows)
def test_statistics_of_documents_are_what_a_loop_counts(weights: np.ndarray):
    found = DocumentStatistics.of(csr_array(weights), weights.shape[1])
    n, columns = len(weights), weights.T.tolist()
    present = [[weight for weight in column if weight] for column in columns]
    in_one = [column[0] for column in present if len(column) == 1]
    every = [weight for column in present for weight in column]
    rare = np.mean(in_one) if in_one else np.mean(every) if every else 0
    np.testing.assert_allclose(found.share, [*(max(len(column), 1) / n for column in present), 1 / n], rtol=1e-6)
    expected = [*(np.mean(column) if column else rare for column in present), rare]
    np.testing.assert_allclose(found.mean_weight, expected, rtol=1e-6)


@pytest.mark.filterwarnings("error")
def test_statistics_of_no_documents_are_defined():
    found = DocumentStatistics.of(csr_array((0, 3), dtype=np.float32), 3)
    assert found.share.tolist() == [1, 1, 1, 1]
    assert found.mean_weight.tolist() == [0, 0, 0, 0]


# powers of two and their squares, so that sums and roots are exact in float32 and ties are ties
powers = st.sampled_from([0.25, 0.5, 1.0, 2.0, 4.0])
queries = st.lists(st.dictionaries(st.integers(0, 8), powers, max_size=9), min_size=1, max_size=5)
shares = st.lists(st.sampled_from([1 / 4, 1 / 16, 1 / 64, 1.0]), min_size=7, max_size=7)
mean_weights = st.lists(powers, min_size=7, max_size=7)


def query_of(tokens: dict[int, float]) -> SparseRow:
    columns = sorted(tokens)
    return np.array(columns, dtype=np.int32), np.array([tokens[column] for column in columns], dtype=np.float32)


def kept_by_hand(query: dict[int, float], share: list[float], mean: list[float], gain_share: float) -> set[int]:
    """Tokens by falling gain, of equal ones the lowest first, until they have a share of the expected score."""

    def expected(token: int) -> float:
        return query[token] * mean[min(token, 6)]

    kept: set[int] = set()
    for token in sorted(query, key=lambda token: (-expected(token) / math.sqrt(share[min(token, 6)]), token)):
        if kept and sum(map(expected, kept)) >= gain_share * sum(map(expected, query)):
            break
        kept.add(token)
    return kept


@given(queries, shares, mean_weights, st.sampled_from([0.125, 0.25, 0.5, 0.75, 0.875]))
def test_tokens_of_poor_gain_are_left_out_as_a_loop_does(
    tokens: list[dict[int, float]], share: list[float], mean: list[float], gain_share: float
):
    """Of nine columns, the first six are known; all others have the last entry of the statistics."""
    for query in tokens:
        found = drop_poor_gain(query_of(query), statistics(share, mean), gain_share)
        kept = kept_by_hand(query, share, mean, gain_share)
        assert dense_of(found, 9) == [query[token] if token in kept else 0.0 for token in range(9)]
        assert len(found[0]) == len(kept)


@given(queries, shares, mean_weights, st.floats(0.01, 0.999))
def test_what_is_kept_has_its_share_of_the_expected_score_and_less_than_it_without_its_last_token(
    tokens: list[dict[int, float]], share: list[float], mean: list[float], gain_share: float
):
    dense = np.array([[query.get(token, 0.0) for token in range(9)] for query in tokens])
    found = np.array(
        [dense_of(drop_poor_gain(query_of(query), statistics(share, mean), gain_share), 9) for query in tokens]
    )
    factors = np.array([mean[min(token, 6)] for token in range(9)])
    gains = factors / np.sqrt([share[min(token, 6)] for token in range(9)])
    for before, after in zip(dense, found, strict=True):
        total, kept = before @ factors, after @ factors
        assert kept >= gain_share * total * (1 - 1e-12)
        if after.any():
            last = min(np.flatnonzero(after), key=lambda token: (after[token] * gains[token], -token))
            assert kept - after[last] * factors[last] < gain_share * total
            dropped = np.flatnonzero(before - after)
            assert all(before[token] * gains[token] <= after[last] * gains[last] for token in dropped)


def test_a_gain_share_of_1_keeps_all_tokens():
    for query in ({0: 1e-6, 1: 1.0}, {}, {0: 1.0, 1: 1.0, 2: 1e-9}):
        found = drop_poor_gain(query_of(query), statistics([1, 1, 1, 1], [1e-9, 1, 1, 1]), 1.0)
        assert found[0].tolist() == [*query]
        assert found[1].tolist() == pytest.approx([*query.values()])


def test_a_query_without_tokens_and_one_without_an_expected_score_are_no_trouble():
    assert dense_of(drop_poor_gain(query_of({}), statistics([1, 1], [1, 1]), 0.5), 3) == [0, 0, 0]
    nothing = drop_poor_gain(query_of({0: 1.0, 1: 2.0}), statistics([1, 1, 1], [0, 0, 0]), 0.5)
    assert len(nothing[0]) == 1, "at least one is kept"


def test_dropping_tokens_changes_none_of_its_inputs():
    query, known = row_of([1, 2, 4, 8]), statistics([0.25, 0.5, 1, 1, 1], [1, 1, 1, 1, 1])
    drop_poor_gain(query, known, 0.5)
    assert dense_of(query, 4) == [1, 2, 4, 8]
    assert known.share.tolist() == [0.25, 0.5, 1, 1, 1]


def test_the_idf_of_texts_counts_words_that_are_not_known_as_one_in_one_text():
    rows = csr([[1, 0, 2, 3], [0, 0, 1, 0], [0, 0, 5, 0]])
    idf = idf_of(TokenRows(rows, ("unseen",)))
    expected = [math.log(1 + (3 - df + 0.5) / (df + 0.5)) ** IDF_EXPONENT for df in (1, 1, 3, 1)]
    np.testing.assert_allclose(idf, expected, rtol=1e-6)
    assert idf.dtype == np.float32
    np.testing.assert_array_equal(feature_idf(np.array([1, 0, 3]), 3), idf)


@given(
    st.dictionaries(st.text(max_size=3), st.floats(1e-6, 1.0), max_size=40),
    st.floats(0.01, 1.5),
)
def test_the_strongest_tokens_have_their_share_and_no_fewer_would(tokens, share):
    strongest = strongest_tokens(tokens, share)
    assert strongest.items() <= tokens.items()
    others = [weight for key, weight in tokens.items() if key not in strongest]
    assert not others or min(strongest.values()) >= max(others)
    assert len(strongest) >= min(8, len(tokens))
    total = sum(tokens.values())
    assert sum(strongest.values()) >= min(share, 1.0) * total * (1 - 1e-9)
    if len(strongest) > 8 and share < 1:
        assert sum(strongest.values()) - min(strongest.values()) <= share * total * (1 + 1e-9)
