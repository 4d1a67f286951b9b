# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import math
import struct
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from keytok_haystack.sparse_vectors.rank_features import (
    check_weights,
    escape_feature,
    rounded_weights,
    shortest_decimals,
    truncate_weights,
    unescape_feature,
)

TINY, HUGE = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
normal_floats = st.floats(min_value=TINY, max_value=HUGE, width=32)


def stored_code(weight: float) -> int:
    """What Lucene stores: Float.floatToIntBits(weight) >>> 15, of a weight that JSON gives as a decimal."""
    return struct.unpack(">I", struct.pack(">f", weight))[0] >> 15


def value_of(code: int) -> float:
    return struct.unpack(">f", struct.pack(">I", code << 15))[0]


def significant_digits(decimal: float) -> int:
    """How many digits JSON needs for a float: `repr` is its shortest spelling."""
    return len(Decimal(repr(decimal)).normalize().as_tuple().digits)


@pytest.fixture(scope="module")
def stored_values() -> np.ndarray:
    """Every positive normal float that Lucene can store."""
    return np.array([value_of(code) for code in range(stored_code(TINY), stored_code(HUGE) + 1)], dtype=np.float32)


@given(normal_floats)
@example(TINY)
@example(HUGE)
@example(1.0)
def test_a_truncated_weight_is_the_float_without_its_lowest_15_bits(weight: float):
    assert truncate_weights([weight]).tolist() == [value_of(stored_code(weight))]


def test_truncation_keeps_the_shape_and_gives_float32():
    weights = np.linspace(0.1, 3, 12).reshape(3, 4)
    truncated = truncate_weights(weights)
    assert truncated.shape == (3, 4)
    assert truncated.dtype == np.float32
    assert ((truncated <= weights) & (truncated > weights * (1 - 2**-8))).all()


@given(normal_floats)
def test_the_shortest_decimal_is_stored_as_the_same_value(weight: float):
    assert stored_code(shortest_decimals([weight]).item()) == stored_code(weight)


def test_the_shortest_decimal_of_each_storable_value_is_stored_as_that_value(stored_values: np.ndarray):
    decimals = shortest_decimals(stored_values)
    assert [stored_code(decimal) for decimal in decimals.tolist()] == [stored_code(v) for v in stored_values.tolist()]


def test_shortest_decimals_are_idempotent(stored_values: np.ndarray):
    decimals = shortest_decimals(stored_values)
    np.testing.assert_array_equal(shortest_decimals(decimals), decimals)


def test_no_shortest_decimal_is_written_with_more_than_4_digits(stored_values: np.ndarray):
    too_long = [d for d in shortest_decimals(stored_values).tolist() if significant_digits(d) > 4]
    assert too_long == []


def test_no_decimal_is_shorter_than_the_shortest():
    fewest: dict[int, int] = {}
    for exponent in range(-7, 3):
        for mantissa in range(1, 10_000):
            code = stored_code(float(f"{mantissa}e{exponent}"))
            digits = len(str(mantissa).rstrip("0"))
            fewest[code] = min(digits, fewest.get(code, 4))
    codes = range(stored_code(0.001), stored_code(1000.0) + 1)
    decimals = shortest_decimals([value_of(code) for code in codes]).tolist()
    assert [significant_digits(decimal) for decimal in decimals] == [fewest[code] for code in codes]


@pytest.mark.parametrize(
    ("weight", "decimal"), [(1.0, 1.0), (0.9999, 0.999), (0.37, 0.37), (1 / 3, 0.3331), (2.7, 2.7)]
)
def test_shortest_decimals_of_everyday_weights(weight: float, decimal: float):
    assert shortest_decimals([weight]).tolist() == [decimal]


@pytest.mark.parametrize("weight", [0.0, 1e-45, float(np.nextafter(np.float32(TINY), np.float32(0)))])
def test_what_engines_cannot_store_has_the_decimal_0(weight: float):
    assert shortest_decimals([weight]).tolist() == [0.0]


@given(st.text())
@example("%2E")
@example("%25")
@example("%252E.")
@example("")
def test_an_escaped_feature_has_no_dot_and_can_be_unescaped(feature: str):
    key = escape_feature(feature)
    assert "." not in key
    assert unescape_feature(key) == feature


@given(st.sets(st.text(alphabet="%.25E"), max_size=30))
def test_different_features_have_different_keys(features: set[str]):
    assert len({escape_feature(feature) for feature in features}) == len(features)


@pytest.mark.parametrize(
    ("feature", "key"), [("3.5", "3%2E5"), ("100%", "100%25"), ("%2E", "%252E"), ("##ing", "##ing"), ("a b", "a b")]
)
def test_only_percent_signs_and_dots_are_escaped(feature: str, key: str):
    assert escape_feature(feature) == key


@pytest.mark.parametrize(
    "weight",
    [0.0, -0.0, -1.0, 1e-45, 1.1754942e-38, float("nan"), float("inf"), -float("inf"), 1e39],
    ids=["zero", "-zero", "negative", "subnormal", "largest subnormal", "nan", "inf", "-inf", "too large for float32"],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_weights_that_engines_reject_are_refused(weight: float):
    with pytest.raises(ValueError, match="finite and at least"):
        check_weights([0.5, weight, 0.7])


def test_storable_weights_are_returned_as_float32():
    checked = check_weights([TINY, 0.1, HUGE])
    assert checked.dtype == np.float32
    assert checked.tolist() == [TINY, float(np.float32(0.1)), HUGE]
    assert check_weights([]).shape == (0,)


@given(st.lists(st.floats(1e-30, 1e6), min_size=1))
def test_rounded_weights_are_the_nearest_and_small_weights_keep_two_digits(weights: list[float]):
    found = rounded_weights(weights)
    assert found.dtype == np.float64
    for weight, rounded in zip(weights, found.tolist(), strict=True):
        unit = 10.0 ** (math.floor(math.log10(weight)) - 1) if weight < 0.1 else 0.02
        assert abs(rounded - weight) <= unit / 2 * (1 + 1e-6)
        assert rounded > 0
        assert round(rounded / unit) * unit == pytest.approx(rounded, rel=1e-12)


@pytest.mark.parametrize(
    ("weight", "rounded"),
    [(1.0, 1.0), (1.234, 1.24), (0.123, 0.12), (0.0456, 0.046), (0.00987, 0.0099), (123.456, 123.46), (0.985, 0.98)],
)
def test_rounded_weights_by_hand(weight: float, rounded: float):
    assert rounded_weights([[weight]]).tolist() == [[pytest.approx(rounded, rel=1e-12)]]
