# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.sparse import csr_array

from keytok_haystack.sparse_vectors.rows import (
    dicts_to_rows,
    join_rows,
    row_maxima,
    row_norms,
    rows_to_dicts,
    scale_columns,
    scale_rows,
    split_rows,
    top_k,
)

KEYS = ("shock", "wave", "3%2E5", "##ing", "東", "", "b", "a")
matrices = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24),
    elements=st.integers(-3, 3).map(lambda i: i / 2),  # few values, so many ties
)


def brute_force_top_k(logits: np.ndarray, k: int) -> list[dict[int, float]]:
    rows = []
    for row in logits.tolist():
        eligible = [(-value, column) for column, value in enumerate(row) if value > 0]
        rows.append({column: -value for value, column in sorted(eligible)[:k]})
    return rows


def as_dicts(rows: csr_array) -> list[dict[int, float]]:
    return [
        dict(zip(rows.indices[a:b].tolist(), rows.data[a:b].tolist(), strict=True))
        for a, b in zip(rows.indptr[:-1], rows.indptr[1:], strict=True)
    ]


def csr(dense: list[list[float]]) -> csr_array:
    return csr_array(np.array(dense, dtype=np.float32))


@given(matrices, st.integers(1, 30))
def test_top_k_is_what_sorting_gives_and_ties_go_to_the_lowest_features(logits: np.ndarray, k: int):
    assert as_dicts(top_k(logits, k)) == brute_force_top_k(logits, k)


def test_no_rows_and_wide_rows_have_a_top_k():
    assert top_k(np.zeros((0, 64), dtype=np.float32), 7).shape == (0, 64)
    logits = np.random.default_rng(0).normal(size=(100, 64)).astype(np.float32)
    selected = top_k(logits, 7)
    assert as_dicts(selected) == brute_force_top_k(logits, 7)
    assert selected.dtype == np.float32


def test_columns_of_selected_rows_ascend():
    selected = top_k(np.array([[1, 5, 0, 3, 5]], dtype=np.float32), 3)
    assert selected.indices.tolist() == [1, 3, 4]
    assert selected.data.tolist() == [5, 3, 5]


def test_zeros_are_left_out():
    selected = top_k(np.array([[0, 0.75, -0.25], [0, -0.0, 0], [0, 0, 2**-149]], dtype=np.float32), 2)
    assert as_dicts(selected) == [{1: 0.75}, {}, {2: 2**-149}]


@given(matrices, st.integers(1, 30))
def test_the_strongest_are_what_sorting_gives_and_ties_go_to_the_lowest_features(dense: np.ndarray, k: int):
    rows = csr_array(dense)
    before = rows.toarray()
    selected = top_k(rows, k)
    expected = [
        dict(sorted(tokens.items(), key=lambda item: (-item[1], item[0]))[:k]) for tokens in as_dicts(csr_array(dense))
    ]
    assert as_dicts(selected) == expected
    assert selected.shape == rows.shape
    assert selected.dtype == np.float32
    assert selected.has_canonical_format
    np.testing.assert_array_equal(rows.toarray(), before)


@given(matrices.map(np.abs), st.integers(1, 30))
def test_the_strongest_of_sparse_rows_are_the_top_k_of_dense_ones(dense: np.ndarray, k: int):
    assert as_dicts(top_k(csr_array(dense), k)) == as_dicts(top_k(dense, k))


@pytest.mark.parametrize("n", [0, 3])
def test_of_empty_rows_nothing_is_the_top_k(n: int):
    assert top_k(csr_array((n, 4), dtype=np.float32), 2).shape == (n, 4)


def test_top_k_does_not_change_the_logits():
    logits = np.random.default_rng(0).normal(size=(20, 30)).astype(np.float32)
    before = logits.copy()
    top_k(logits, 5)
    np.testing.assert_array_equal(logits, before)


@given(matrices.map(np.abs))
def test_row_maxima_are_the_dense_maxima(dense: np.ndarray):
    np.testing.assert_array_equal(row_maxima(csr_array(dense)), dense.max(axis=1))


def test_rows_that_are_empty_at_the_start_in_the_middle_and_at_the_end_have_the_maximum_0():
    assert row_maxima(csr([[0, 0], [1, 3], [0, 0], [0, 2], [0, 0]])).tolist() == [0, 3, 0, 2, 0]
    assert row_maxima(csr_array((3, 2), dtype=np.float32)).tolist() == [0, 0, 0]
    assert row_maxima(csr_array((0, 2), dtype=np.float32)).shape == (0,)


@given(matrices)
def test_scaling_rows_is_multiplying_by_a_diagonal_matrix(dense: np.ndarray):
    factors = np.arange(len(dense)) - 1.0
    scaled = scale_rows(csr_array(dense), factors)
    assert scaled.dtype == np.float32
    np.testing.assert_array_equal(scaled.toarray(), np.diag(factors) @ dense)


weights = st.floats(allow_nan=False, allow_infinity=False).filter(bool)  # no zeros: an absent key has the weight 0
token_dicts = st.lists(st.dictionaries(st.sampled_from(KEYS), weights), max_size=8)


@given(token_dicts)
def test_dicts_survive_the_way_to_rows_and_back_except_for_zeros(dicts: list[dict[str, float]]):
    rows = dicts_to_rows(dicts, {key: i for i, key in enumerate(KEYS)})
    assert rows.shape == (len(dicts), len(KEYS))
    again = rows_to_dicts(rows, KEYS)
    assert again == [{key: weight for key, weight in tokens.items() if weight != 0} for tokens in dicts]
    for tokens in again:
        assert list(tokens) == sorted(tokens, key=lambda key: (-tokens[key], KEYS.index(key)))


@given(matrices)
def test_rows_survive_the_way_to_dicts_and_back(dense: np.ndarray):
    keys = [f"token {i}" for i in range(dense.shape[1])]
    again = dicts_to_rows(rows_to_dicts(csr_array(dense), keys), {key: i for i, key in enumerate(keys)})
    np.testing.assert_array_equal(again.toarray(), dense)
    assert again.has_sorted_indices


def test_tokens_are_strongest_first_and_equal_ones_in_the_order_of_the_features():
    (tokens,) = rows_to_dicts(csr([[1, 3, 0, 3, 2]]), ["a", "d", "b", "c", "e"])
    assert list(tokens.items()) == [("d", 3), ("c", 3), ("e", 2), ("a", 1)]


@given(matrices)
def test_scaling_columns_is_multiplying_by_a_diagonal_matrix(dense: np.ndarray):
    factors = np.arange(dense.shape[1], dtype=np.float32) - 1
    rows = csr_array(dense)
    scaled = scale_columns(rows, factors)
    assert scaled.dtype == np.float32
    np.testing.assert_array_equal(scaled.toarray(), dense @ np.diag(factors))
    np.testing.assert_array_equal(rows.toarray(), dense)


@given(matrices)
def test_row_norms_are_the_dense_norms(dense: np.ndarray):
    rows = csr_array(dense)
    np.testing.assert_allclose(row_norms(rows), np.linalg.norm(dense.astype(float), axis=1), rtol=1e-6)
    np.testing.assert_array_equal(rows.toarray(), dense)


def test_a_key_without_a_column_is_refused():
    with pytest.raises(KeyError, match="drag"):
        dicts_to_rows([{"lift": 1.0}, {"drag": 1.0}], {"lift": 0})


def test_rows_split_and_joined_are_what_they_were():
    dense = np.array([[0, 1, 0, 2], [0, 0, 0, 0], [3, 0, 0, 4]], dtype=np.float32)
    parts = split_rows(csr_array(dense))
    assert [(columns.tolist(), entries.tolist()) for columns, entries in parts] == [
        ([1, 3], [1, 2]),
        ([], []),
        ([0, 3], [3, 4]),
    ]
    joined = join_rows(parts, 6)
    np.testing.assert_array_equal(joined.toarray(), np.pad(dense, ((0, 0), (0, 2))))
    assert joined.has_canonical_format
    assert joined.dtype == np.float32


def test_no_rows_are_joined_to_a_matrix_of_none():
    assert split_rows(csr_array((0, 3), dtype=np.float32)) == []
    assert join_rows([], 3).shape == (0, 3)
    assert join_rows([(np.zeros(0, np.int32), np.zeros(0, np.float32))], 3).toarray().tolist() == [[0, 0, 0]]


def test_columns_beyond_the_factors_have_the_last_one():
    rows = csr_array(np.array([[1, 2, 3, 4], [0, 0, 5, 0]], dtype=np.float32))
    scaled = scale_columns(rows, np.array([10, 100], dtype=np.float32))
    assert scaled.toarray().tolist() == [[10, 200, 300, 400], [0, 0, 500, 0]]


def test_keys_of_further_columns_come_behind_the_others():
    rows = csr_array(np.array([[1, 3, 0, 2], [0, 0, 5, 0]], dtype=np.float32))
    assert rows_to_dicts(rows, ["a", "b"], ["c", "d"]) == [{"b": 3, "d": 2, "a": 1}, {"c": 5}]
    assert list(rows_to_dicts(rows, ["a", "b"], ["c", "d"])[0]) == ["b", "d", "a"]
