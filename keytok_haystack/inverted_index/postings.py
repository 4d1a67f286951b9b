# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Postings: for each token, the documents that have it."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, hstack


class Postings:
    """
    For each of a growing number of tokens, the documents that have it and its weight in them.

    Documents are numbered in the order in which they are added. As in Lucene, each addition is a segment of its own,
    and segments of similar size are merged, so that adding a few documents to many costs little.
    """

    def __init__(self) -> None:
        self._segments: list[csr_array] = []  # (tokens, documents), float32

    def __len__(self) -> int:
        """Return the number of documents."""
        return sum(segment.shape[1] for segment in self._segments)

    @property
    def nbytes(self) -> int:
        """The memory that the postings take up."""
        return sum(s.data.nbytes + s.indices.nbytes + s.indptr.nbytes for s in self._segments)

    def add(self, rows: csr_array) -> None:
        """
        Add documents.

        :param rows: Their weights, shape `(n, tokens)`; there may be more tokens than before, not fewer.
        """
        self._segments.append(csr_array(rows.astype(np.float32, copy=False).T))
        while len(self._segments) > 1 and self._segments[-2].shape[1] <= 2 * self._segments[-1].shape[1]:
            last, previous = self._segments.pop(), self._segments.pop()
            previous.resize(last.shape[0], previous.shape[1])
            self._segments.append(csr_array(hstack([previous, last], format="csr")))

    def keep(self, documents: NDArray[np.bool_]) -> None:
        """Drop documents; the remaining ones are renumbered in the same order."""
        if self._segments:
            size = self._segments[-1].shape[0]
            for segment in self._segments:
                segment.resize(size, segment.shape[1])
            self._segments = [csr_array(hstack(self._segments, format="csr")[:, documents])]

    def score(self, tokens: NDArray[np.int64], weights: NDArray[np.floating]) -> NDArray[np.float32]:
        """
        Return each document's dot product with a query, shape `(documents,)`.

        The sum is taken in float32: 1 nanosecond a posting, a ninth of what float64 takes.
        """
        scores = [np.zeros(0, dtype=np.float32)]
        for segment in self._segments:
            known = tokens < segment.shape[0]
            scores.append(segment[tokens[known]].T @ weights[known].astype(np.float32))
        return np.concatenate(scores)

    def document_frequency(self, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many documents have each token."""
        frequency = np.zeros(len(tokens), dtype=np.int64)
        for segment in self._segments:
            known = tokens < segment.shape[0]
            frequency[known] += segment.indptr[tokens[known] + 1] - segment.indptr[tokens[known]]
        return frequency
