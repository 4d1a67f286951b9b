# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Names and weights of a `rank_features` field as OpenSearch and Elasticsearch store them, as pure functions."""

from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

_STEP, _FINE_BELOW = 0.02, 0.1  # weights are rounded to steps, smaller ones to two significant digits
_DROPPED_BITS = 15  # Lucene's FeatureField stores `Float.floatToIntBits(weight) >>> 15` as a term frequency
SMALLEST_WEIGHT = float(np.finfo(np.float32).tiny)
LARGEST_WEIGHT = float(np.finfo(np.float32).max)


def escape_feature(feature: str) -> str:
    """
    Turn a feature into a key that engines can both store and find.

    A `.` in a `rank_features` key is accepted when indexing and can never be matched by a query, because the engines
    split the field path at dots. `%` and `.` become `%25` and `%2E`; every other string is safe as it is.
    """
    return feature.replace("%", "%25").replace(".", "%2E")


def unescape_feature(key: str) -> str:
    """Undo `escape_feature`."""
    return key.replace("%2E", ".").replace("%25", "%")


def check_weights(weights: ArrayLike) -> NDArray[np.float32]:
    """
    Return the weights as float32, refusing what engines refuse.

    :raises ValueError: A weight is not a positive normal float: engines reject the whole document for one of those.
    """
    with np.errstate(over="ignore"):
        array = np.asarray(weights, dtype=np.float32)
    storable = np.isfinite(array) & (array >= SMALLEST_WEIGHT)
    if not storable.all():
        bad = array[~storable][0]
        msg = f"Key-token weights must be finite and at least {SMALLEST_WEIGHT:.2g}, but one is {bad}."
        raise ValueError(msg)
    return array


def truncate_weights(weights: ArrayLike) -> NDArray[np.float32]:
    """
    Return the values that a query is scored with: Lucene keeps 9 significant bits of a float and cuts off the rest.

    :param weights: Positive normal floats, any shape.
    """
    bits = np.asarray(weights, dtype=np.float32).view(np.uint32)
    return (bits >> _DROPPED_BITS << _DROPPED_BITS).view(np.float32)


def nearest_stored(weights: ArrayLike) -> NDArray[np.float32]:
    """
    Return the stored values (`truncate_weights`) that are nearest to weights which rounding has changed a little.

    :param weights: Positive normal floats, any shape.
    """
    bits = np.asarray(weights, dtype=np.float32).view(np.uint32)
    return truncate_weights((bits + np.uint32(1 << (_DROPPED_BITS - 1))).view(np.float32))


def shortest_decimals(weights: ArrayLike) -> NDArray[np.float64]:
    """
    Replace every weight by the shortest decimal that Lucene truncates to the same stored value.

    The scores stay the same to the bit, and JSON shrinks.

    :param weights: Non-negative floats, any shape. Subnormal ones, which engines cannot store, become 0.
    """
    codes = np.asarray(weights, dtype=np.float32).view(np.uint32) >> _DROPPED_BITS
    decimals: NDArray[np.float64] = _shortest_decimal_table()[codes]
    return decimals


def rounded_weights(weights: ArrayLike) -> NDArray[np.float64]:
    """
    Round non-negative weights, any shape, to steps of 0.02, and those below 0.1 to two significant digits.

    Retrieval does not suffer (docs/research/experiments.md), and the JSON of a document's tokens and its postings
    shrink.
    """
    array = np.asarray(weights, dtype=np.float64)
    digits = 10.0 ** (np.floor(np.log10(np.maximum(array, SMALLEST_WEIGHT))) - 1)
    unit = np.where(array < _FINE_BELOW, digits, _STEP)
    rounded: NDArray[np.float64] = np.round(array / unit) * unit
    return rounded


@cache
def _shortest_decimal_table() -> NDArray[np.float64]:
    """Return the shortest decimal for each of the 65,536 values that a non-negative float can be truncated to."""
    first, infinity = (np.float32(value).view(np.uint32) >> _DROPPED_BITS for value in (SMALLEST_WEIGHT, np.inf))
    target = (np.arange(first, infinity, dtype=np.uint32) << _DROPPED_BITS).view(np.float32).astype(np.float64)
    exponent = np.floor(np.log10(target)).astype(int)
    shortest = target.copy()
    for digits in (4, 3, 2, 1):  # 4 significant digits always suffice: 9 bits are spaced by at least 0.2 %
        decimals = digits - 1 - exponent
        mantissa = np.ceil(target * 10.0**decimals * (1 - 1e-14)).astype(int)
        candidate = np.array([float(f"{m}e{-d}") for m, d in zip(mantissa.tolist(), decimals.tolist(), strict=True)])
        with np.errstate(over="ignore"):  # rounding up the largest ones leaves the range of float32
            same = truncate_weights(candidate) == target
        shortest[same] = candidate[same]
    table = np.zeros(1 << 16)
    table[first:infinity] = shortest
    return table
