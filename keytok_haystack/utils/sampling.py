# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Samples of rows: at random, evenly spaced, or from a stream."""

from collections.abc import Iterable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


def random_rows(n: int, size: int, seed: int) -> NDArray[np.int64]:
    """Return at most `size` of `n` rows, drawn at random without replacement, ascending."""
    return np.sort(np.random.default_rng(seed).permutation(n)[:size])


def evenly_spaced_rows(n: int, size: int) -> NDArray[np.int64]:
    """Return at most `size` of `n` rows, evenly spaced from the first to the last."""
    return np.unique(np.linspace(0, n - 1, min(n, size)).astype(np.int64))


class Reservoir:
    """
    Decide which rows of a stream of unknown length make up a uniform sample (Vitter's algorithm R).

    The decisions are the same for streams of the same length.

    :param size: Maximum number of rows in the sample.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._seen = 0
        self._random = np.random.default_rng(0)

    def place(self) -> int | None:
        """Return the place of the next row in the sample, or None if it is not sampled."""
        place = self._seen if self._seen < self._size else int(self._random.integers(self._seen + 1))
        self._seen += 1
        return place if place < self._size else None


def sampled(stream: Iterable[T], size: int) -> tuple[list[T], NDArray[np.int64], int]:
    """
    Draw things from a stream at random, without keeping the others; the same ones from any stream of the same length.

    :param stream: The stream.
    :param size: Maximum number of things to draw.
    :returns: The things in the order of the stream, their positions, ascending, and the length of the stream.
    """
    reservoir = Reservoir(size)
    drawn: dict[int, tuple[int, T]] = {}
    length = 0
    for thing in stream:
        if (place := reservoir.place()) is not None:
            drawn[place] = length, thing
        length += 1
    in_order = sorted(drawn.values(), key=lambda each: each[0])
    return [thing for _, thing in in_order], np.array([position for position, _ in in_order], dtype=np.int64), length
