# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from keytok_haystack import TokenRows

WORDS = ("shock", "wave", "heat", "wing")
rows_of_words = st.lists(
    st.dictionaries(st.sampled_from(["a", "b", "c", *WORDS]), st.integers(1, 9), max_size=6), max_size=6
)


def token_rows(dicts: list[dict[str, int]], known: tuple[str, ...], unseen: tuple[str, ...]) -> TokenRows:
    columns = [*known, *unseen]
    dense = np.zeros((len(dicts), len(columns)), dtype=np.float32)
    for row, counts in zip(dense, dicts, strict=True):
        for word, count in counts.items():
            row[columns.index(word)] = count
    return TokenRows(csr_array(dense), unseen)


@given(rows_of_words, st.permutations(WORDS))
def test_the_known_part_is_the_first_columns(dicts: list[dict[str, int]], unseen: list[str]):
    found = token_rows(dicts, ("a", "b", "c"), tuple(unseen))
    assert len(found) == len(dicts)
    assert found.known.shape == (len(dicts), 3)
    np.testing.assert_array_equal(
        found.known.toarray(), np.array([[row.get(word, 0) for word in "abc"] for row in dicts]).reshape(-1, 3)
    )
    assert found.known.has_canonical_format


def test_without_unseen_words_all_rows_are_known():
    rows = csr_array(np.eye(3, dtype=np.float32))
    assert TokenRows(rows).unseen == ()
    assert TokenRows(rows).known is rows


def test_no_rows_have_no_known_part():
    found = TokenRows(csr_array((0, 5), dtype=np.float32), ("shock", "wave"))
    assert len(found) == 0
    assert found.known.shape == (0, 3)
    assert found.onto({"wave": 7}, 9).shape == (0, 9)


@given(rows_of_words, st.permutations(WORDS), st.lists(st.sampled_from(WORDS), unique=True), st.randoms())
def test_unseen_words_are_moved_by_their_names_and_others_left_out(
    dicts: list[dict[str, int]], unseen: list[str], wanted: list[str], random
):
    places = random.sample(range(3, 12), len(wanted))
    moved = token_rows(dicts, ("a", "b", "c"), tuple(unseen)).onto(dict(zip(wanted, places, strict=True)), 12)
    named = {0: "a", 1: "b", 2: "c"} | dict(zip(places, wanted, strict=True))
    expected = [[row.get(named.get(column, ""), 0) for column in range(12)] for row in dicts]
    np.testing.assert_array_equal(moved.toarray(), np.array(expected).reshape(-1, 12))
    assert moved.has_canonical_format
    assert moved.nnz == np.count_nonzero(expected)


@given(rows_of_words, st.permutations(WORDS))
def test_moving_words_changes_no_input_and_their_own_columns_are_where_they_are(
    dicts: list[dict[str, int]], unseen: list[str]
):
    found = token_rows(dicts, ("a", "b", "c"), tuple(unseen))
    before = found.rows.toarray()
    found.onto({"wing": 3}, 4)
    np.testing.assert_array_equal(found.rows.toarray(), before)
    own = found.onto({word: 3 + i for i, word in enumerate(unseen)}, 7)
    np.testing.assert_array_equal(own.toarray(), before)


def test_other_rows_keep_the_names_of_the_columns():
    found = token_rows([{"a": 1, "wave": 2}], ("a",), ("wave",))
    other = found.with_rows(found.rows * 3)
    assert other.unseen == ("wave",)
    assert other.rows.toarray().tolist() == [[3, 6]]
    assert found.rows.toarray().tolist() == [[1, 2]]
