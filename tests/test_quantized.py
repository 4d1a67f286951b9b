# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The largest products, next to all products in float64."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keytok_haystack import quantized as quantized_module
from keytok_haystack.quantized import QuantizedMatrix


def random_matrix(v: int, d: int, seed: int, kind: str) -> np.ndarray:
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(v, d))
    if kind == "outliers":  # as the states and the heads of language models have them
        matrix[:, random.integers(d)] *= 300
    if kind == "scales":
        matrix *= 10 ** random.uniform(-6, 4, size=(v, 1))
        matrix[random.random(v) < 0.2] = 0
    if kind == "equal":
        matrix = np.repeat(matrix[:1], v, axis=0)
    return matrix.astype(np.float32)


KINDS = st.sampled_from(["normal", "outliers", "scales", "equal"])


@given(
    st.integers(0, 70), st.integers(1, 90), st.integers(1, 40), st.integers(1, 100), KINDS, KINDS, st.integers(0, 99)
)
def test_no_large_product_is_missed(n: int, v: int, d: int, k: int, rows: str, columns: str, seed: int):
    matrix, vectors = random_matrix(v, d, seed, rows), random_matrix(n, d, seed + 1, columns)
    products = vectors.astype(np.float64) @ matrix.astype(np.float64).T
    tolerance = 2e-6 * np.linalg.norm(vectors, axis=1)[:, None] * np.linalg.norm(matrix, axis=1)
    found = list(QuantizedMatrix(matrix).largest_products(vectors, k))
    assert len(found) == n
    for i, (places, sums) in enumerate(found):
        assert (np.diff(places) > 0).all()
        assert (sums > 0).all()
        assert len(places) <= k
        assert (np.abs(sums - products[i, places]) <= tolerance[i, places]).all()
        missed = np.setdiff1d(np.arange(v), places)
        # what is missed is not positive, or k others are as large
        least = sums.min() if len(sums) == k else 0
        assert (products[i, missed] <= least + 2 * tolerance[i, missed]).all()


def test_of_equal_products_the_first_are_taken():
    matrix = np.repeat(np.array([[1.0], [2.0], [-1.0]], np.float32), 5, axis=0)
    (places, _), (other, _) = QuantizedMatrix(matrix).largest_products(np.array([[3.0], [-3.0]], np.float32), 7)
    assert places.tolist() == [0, 1, 5, 6, 7, 8, 9]
    assert other.tolist() == [10, 11, 12, 13, 14]


def test_a_vector_alone_has_the_same_products_as_in_any_batch():
    matrix, vectors = random_matrix(2000, 384, 0, "normal"), random_matrix(70, 384, 1, "outliers")
    quantized = QuantizedMatrix(matrix)
    batch = list(quantized.largest_products(vectors, 64))
    for i, (places, sums) in enumerate(batch):
        ((alone, sums_alone),) = quantized.largest_products(vectors[i : i + 1], 64)
        np.testing.assert_array_equal(alone, places)
        np.testing.assert_array_equal(sums_alone, sums)


@pytest.mark.parametrize("kind", ["normal", "outliers"])
def test_few_products_are_summed_exactly(kind: str, monkeypatch: pytest.MonkeyPatch):
    matrix, vectors = random_matrix(10_000, 384, 0, "normal"), random_matrix(50, 384, 1, kind)
    candidates = quantized_module._candidates
    found: list[int] = []

    def counted(*arguments: Any) -> np.ndarray:
        found.append(len(rows := candidates(*arguments)))
        return rows

    monkeypatch.setattr(quantized_module, "_candidates", counted)
    assert [len(places) for places, _ in QuantizedMatrix(matrix).largest_products(vectors, 64)] == [64] * 50
    assert 64 <= min(found) <= max(found) < 500


@pytest.mark.parametrize("size", [1e-37, 1e30])
def test_no_vector_is_too_small_or_too_large(size: float):
    matrix, vectors = random_matrix(500, 16, 0, "normal"), random_matrix(5, 16, 1, "normal")
    quantized = QuantizedMatrix(matrix)
    unscaled = list(quantized.largest_products(vectors, 7))
    for (places, sums), (expected, products) in zip(
        quantized.largest_products(vectors * np.float32(size), 7), unscaled, strict=True
    ):
        np.testing.assert_array_equal(places, expected)
        np.testing.assert_allclose(sums, products * size, rtol=1e-4)


def test_the_zero_vector_has_no_positive_products():
    ((places, sums),) = QuantizedMatrix(random_matrix(9, 4, 0, "normal")).largest_products(
        np.zeros((1, 4), np.float32), 3
    )
    assert len(places) == len(sums) == 0
