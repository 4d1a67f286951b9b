# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Synthetic documents in any number, distributed like those of a real collection."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def drawn(
    embeddings: NDArray[np.float32], texts: list[str], n: int, batch: int = 1000
) -> Iterator[tuple[NDArray[np.float32], list[str]]]:
    """Yield `n` documents in batches: embeddings (batch, d) and their texts."""
    random = np.random.default_rng(0)
    words = [text.split() for text in texts]
    for start in range(0, n, batch):
        size = min(batch, n - start)
        first, second = random.integers(len(texts), size=(2, size))
        share = random.uniform(0.5, 1.0, size=(size, 1)).astype(np.float32)
        mixed = share * embeddings[first] + (1 - share) * embeddings[second]
        mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
        mixed_texts = []
        for i, j, s in zip(first, second, share[:, 0], strict=True):
            chosen = [words[i][w] for w in np.flatnonzero(random.random(len(words[i])) < s)]
            chosen += [words[j][w] for w in np.flatnonzero(random.random(len(words[j])) < 1 - s)]
            mixed_texts.append(" ".join(chosen))
        yield mixed, mixed_texts
