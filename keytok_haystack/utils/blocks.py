# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Blocks of rows, so that work on a large matrix needs no second one."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_BLOCK_ENTRIES = 1 << 19  # 2 MiB of float32, which caches hold


def row_blocks(matrix: NDArray[np.floating]) -> Iterator[slice]:
    """Yield the rows of a matrix in blocks."""
    size = max(1, _BLOCK_ENTRIES // max(1, matrix.shape[1]))
    for start in range(0, len(matrix), size):
        yield slice(start, start + size)
