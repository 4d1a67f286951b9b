# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from keytok_haystack import EmbeddingError, Preparation, TokenDecoder
from keytok_haystack import decoder as decoder_module

UNPREPARED = Preparation(normalize=False)


def random_decoder(v: int = 50, d: int = 6) -> TokenDecoder:
    random = np.random.default_rng(1)
    direction = random.normal(size=d)
    preparation = Preparation(
        removed=(direction / np.linalg.norm(direction)).astype(np.float32)[None],
        mean=0.1 * random.normal(size=d).astype(np.float32),
    )
    return TokenDecoder(random.normal(size=(v, d)), preparation)


def integer_decoder(v: int = 50, d: int = 6) -> TokenDecoder:
    """A decoder whose products are exact in float32, in whatever order they are summed."""
    return TokenDecoder(np.random.default_rng(2).integers(-8, 8, size=(v, d)).astype(np.float32), UNPREPARED)


def integer_embeddings(n: int, d: int = 6) -> np.ndarray:
    return np.random.default_rng(3).integers(1, 9, size=(n, d)).astype(np.float32)


def test_logits_are_the_matrix_product_with_the_prepared_embedding():
    decoder = random_decoder()
    embeddings = np.random.default_rng(4).normal(size=(30, 6)).astype(np.float32)
    (u,), mean = decoder.preparation.removed.astype(np.float64), decoder.preparation.mean
    expected = []
    for h in embeddings.astype(np.float64):
        x = h - np.dot(h, u) * u
        expected.append(decoder.weight.astype(np.float64) @ (x / np.linalg.norm(x) - mean))
    logits = decoder.logits(embeddings)
    assert logits.dtype == np.float32
    assert logits.shape == (30, 50)
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_the_matrix_is_rounded_to_float16():
    weight = np.array([[1 / 3, 1.0], [1 + 2**-12, 1 + 2**-10], [2**-25, 1e-4], [0, -65504]])
    decoder = TokenDecoder(weight, UNPREPARED)
    assert decoder.weight.dtype == np.float32
    # float16 has 11 significant bits and its smallest step is 2**-24; halves are rounded to even
    expected = [[1365 / 4096, 1.0], [1.0, 1 + 2**-10], [0, round(1e-4 * 2**24) / 2**24], [0, -65504]]
    assert decoder.weight.tolist() == expected
    assert len(decoder) == 4
    assert decoder.dimension == 2


@given(st.integers(0, 40), st.integers(1, 60))
def test_top_k_is_what_sorting_the_dense_logits_gives(n: int, k: int):
    decoder, embeddings = integer_decoder(), integer_embeddings(n)
    dense = embeddings.astype(np.float64) @ decoder.weight.astype(np.float64).T
    rows, each = decoder.top_k(embeddings, k), decoder.strongest(embeddings, k)
    assert rows.shape == (n, 50)
    assert len(each) == n
    for i, logits in enumerate(dense.tolist()):
        best = sorted((-value, column) for column, value in enumerate(logits) if value > 0)[:k]
        for columns, found in ((rows[[i]].indices, rows[[i]].data), each[i]):
            assert columns.tolist() == sorted(column for _, column in best)
            assert found.dtype == np.float32
            assert dict(zip(columns.tolist(), found.tolist(), strict=True)) == {
                column: -value for value, column in best
            }


@given(
    st.integers(0, 30),
    st.integers(1, 70),
    st.sampled_from([50, 51, 64]),
    st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    st.integers(0, 5),
)
def test_top_k_with_literals_is_what_sorting_their_dense_sums_gives(
    n: int, k: int, width: int, density: float, seed: int
):
    decoder, embeddings = integer_decoder(), integer_embeddings(n)
    random = np.random.default_rng(seed)
    added = random.integers(1, 60, size=(n, width)) * (random.random((n, width)) < density)
    literals = csr_array(added.astype(np.float32))
    dense = added.astype(np.float64)
    dense[:, :50] += embeddings.astype(np.float64) @ decoder.weight.astype(np.float64).T
    rows = decoder.top_k(embeddings, k, literals)
    assert rows.shape == (n, width)
    assert rows.dtype == np.float32
    assert rows.has_canonical_format
    for i, logits in enumerate(dense.tolist()):
        best = sorted((-value, column) for column, value in enumerate(logits) if value > 0)[:k]
        found = dict(zip(rows[[i]].indices.tolist(), rows[[i]].data.tolist(), strict=True))
        assert found == {column: -value for value, column in best}
    np.testing.assert_array_equal(literals.toarray(), added)


@pytest.mark.parametrize("entries", [1, 50, 51, 99, 350, 1000, 10**6])
def test_the_size_of_chunks_makes_no_difference(entries: int, monkeypatch: pytest.MonkeyPatch):
    decoder, embeddings = integer_decoder(), integer_embeddings(67)
    whole = decoder.top_k(embeddings, 5)
    monkeypatch.setattr(decoder_module, "_CHUNK_ENTRIES", entries)
    chunks = list(decoder.chunks(embeddings))
    assert max(chunk.size for chunk in chunks) <= max(entries, 50)
    np.testing.assert_array_equal(np.concatenate(chunks), decoder.logits(embeddings))
    rows = decoder.top_k(embeddings, 5)
    assert (rows != whole).nnz == 0
    assert rows.dtype == whole.dtype == np.float32


def test_the_order_in_which_literals_are_stored_makes_no_difference():
    decoder, embeddings = integer_decoder(), integer_embeddings(1)
    columns, added = np.array([58, 3, 51, 40]), np.array([7, 9, 90, 2], dtype=np.float32)
    stored, ascending = (csr_array((added[o], columns[o], [0, 4]), shape=(1, 60)) for o in ([0, 1, 2, 3], [1, 3, 2, 0]))
    for k in (1, 3, 60):
        rows = decoder.top_k(embeddings, k, stored)
        assert rows.indices.tolist() == decoder.top_k(embeddings, k, ascending).indices.tolist()
        assert rows.has_sorted_indices


@pytest.mark.parametrize("entries", [1, 51, 350, 10**6])
def test_the_size_of_chunks_makes_no_difference_to_literals(entries: int, monkeypatch: pytest.MonkeyPatch):
    decoder, embeddings = integer_decoder(), integer_embeddings(67)
    random = np.random.default_rng(1)
    literals = csr_array((random.integers(1, 60, size=(67, 55)) * (random.random((67, 55)) < 0.1)).astype(np.float32))
    whole = decoder.top_k(embeddings, 5, literals)
    monkeypatch.setattr(decoder_module, "_CHUNK_ENTRIES", entries)
    assert (decoder.top_k(embeddings, 5, literals) != whole).nnz == 0
    assert (decoder.top_k(embeddings, 5, literals) != decoder.top_k(embeddings, 5, csr_array((67, 55)))).nnz > 0


def test_no_embeddings_give_no_rows():
    decoder = random_decoder()
    nothing = np.zeros((0, 6), dtype=np.float32)
    assert decoder.logits(nothing).shape == (0, 50)
    assert list(decoder.chunks(nothing)) == []
    for rows in (decoder.top_k(nothing, 5), decoder.top_k(nothing, 5, csr_array((0, 50), dtype=np.float32))):
        assert rows.shape == (0, 50)
        assert rows.dtype == np.float32
    assert decoder.top_k(nothing, 5, csr_array((0, 60), dtype=np.float32)).shape == (0, 60)


@pytest.mark.parametrize("method", ["logits", "top_k", "strongest", "chunks"])
def test_embeddings_of_another_dimension_are_refused(method: str):
    arguments = (5,) if method in ("top_k", "strongest") else ()
    with pytest.raises(EmbeddingError, match="7 dimensions, but 6 are expected"):
        list(getattr(random_decoder(), method)(np.ones((2, 7)), *arguments))


def test_the_embedding_that_cannot_be_used_is_named_whichever_chunk_it_is_in(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(decoder_module, "_CHUNK_ENTRIES", 100)
    embeddings = integer_embeddings(20)
    embeddings[13, 2] = np.nan
    with pytest.raises(EmbeddingError, match="Embedding 13 "):
        integer_decoder().top_k(embeddings, 5)


def test_memory_goes_with_the_chunk_and_not_with_the_number_of_embeddings(monkeypatch: pytest.MonkeyPatch):
    decoder, embeddings = integer_decoder(v=1000), integer_embeddings(5000)
    monkeypatch.setattr(decoder_module, "_CHUNK_ENTRIES", 1 << 16)
    tracemalloc.start()
    rows = decoder.top_k(embeddings, 4)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows.nnz == 20_000
    assert peak < 4 * 2**20, "all logits together would take 19 MiB"
