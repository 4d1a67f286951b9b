# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""BM25 as OpenSearch and Elasticsearch score a text field by default."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from keytok_haystack.inverted_index.postings import Postings
from keytok_haystack.inverted_index.standard_analyzer import standard_tokens
from keytok_haystack.weighting import inverse_document_frequency

BM25_K1 = 1.2
BM25_B = 0.75


class Bm25:
    """
    BM25 by the formula of Lucene's BM25Similarity, `idf * tf / (tf + k1 * norm)`, over its `standard_tokens`.

    As in Lucene since version 8 there is no factor of `k1 + 1`, documents without a token count neither for the idf nor
    for the mean length, and the length of a document is rounded to what a byte holds (`stored_lengths`).
    """

    def __init__(self) -> None:
        self._columns: dict[str, int] = {}
        self._batches: list[csr_array] = []
        self._postings: Postings | None = None

    @property
    def nbytes(self) -> int:
        """The memory that counts and postings take up."""
        counts = self.counts
        own = counts.data.nbytes + counts.indices.nbytes + counts.indptr.nbytes
        return int(own + (0 if self._postings is None else self._postings.nbytes))

    def add(self, texts: Sequence[str]) -> None:
        """Add documents."""
        columns: list[int] = []
        indptr = [0]
        for text in texts:
            columns.extend(self._columns.setdefault(token, len(self._columns)) for token in standard_tokens(text))
            indptr.append(len(columns))
        self._batches.append(_counts(columns, indptr, len(self._columns)))
        self._postings = None

    def keep(self, documents: NDArray[np.bool_]) -> None:
        """Drop documents; the remaining ones are renumbered in the same order."""
        kept = csr_array(self.counts[documents])
        used = np.unique(kept.indices)
        tokens = list(self._columns)
        self._columns = {tokens[old]: new for new, old in enumerate(used.tolist())}
        self._batches = [csr_array(kept[:, used])]
        self._postings = None

    def score(self, text: str) -> NDArray[np.float32]:
        """Return each document's BM25 score, shape `(documents,)`; a token that the query repeats counts repeatedly."""
        query = self.query_counts([text])
        if self._postings is None:
            self._postings = self._weigh()
        n = np.count_nonzero(np.diff(self.counts.indptr))
        frequency = self._postings.document_frequency(query.indices)
        idf = inverse_document_frequency(frequency, int(n))
        return self._postings.score(query.indices, query.data * idf)

    def query_counts(self, texts: Sequence[str]) -> csr_array:
        """Return the number of occurrences in each query of the tokens that documents have."""
        known = [[self._columns[t] for t in standard_tokens(text) if t in self._columns] for text in texts]
        indptr = np.cumsum([0, *map(len, known)]).tolist()
        return _counts([column for columns in known for column in columns], indptr, len(self._columns))

    @property
    def counts(self) -> csr_array:
        """Number of occurrences in each document of each token, shape `(documents, tokens)`."""
        width = len(self._columns)
        if len(self._batches) != 1:
            batches = [
                csr_array((batch.data, batch.indices, batch.indptr), shape=(batch.shape[0], width))
                for batch in self._batches
            ]
            empty = csr_array((0, width), dtype=np.float32)
            self._batches = [csr_array(vstack([empty, *batches], format="csr"))]
        return self._batches[0]

    def _weigh(self) -> Postings:
        """Weigh the counts anew: the mean document length changes with every document."""
        counts = self.counts
        lengths = np.asarray(counts.sum(axis=1)).ravel()
        mean_length = lengths.sum() / max(np.count_nonzero(lengths), 1)
        norms = BM25_K1 * (1 - BM25_B + BM25_B * stored_lengths(lengths) / max(mean_length, 1.0))
        data = counts.data / (counts.data + np.repeat(norms, np.diff(counts.indptr)))
        postings = Postings()
        postings.add(csr_array((data, counts.indices, counts.indptr), shape=counts.shape))
        return postings


def stored_lengths(lengths: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return lengths as Lucene stores them in a byte (`SmallFloat.intToByte4`): to 4 binary digits beyond 24."""
    beyond = np.maximum(lengths.astype(np.int64) - 24, 0)
    digits = np.frexp(beyond.astype(np.float64))[1]
    shift = np.maximum(digits - 4, 0)
    rounded: NDArray[np.int64] = np.where(lengths < 24, lengths, 24 + ((beyond >> shift) << shift)).astype(np.int64)
    return rounded


def _counts(columns: Sequence[int], indptr: Sequence[int], width: int) -> csr_array:
    """Return the number of times that each row has each of its columns."""
    ones = np.ones(len(columns), dtype=np.float32)
    counts = csr_array((ones, np.array(columns, dtype=np.int32), np.array(indptr)), shape=(len(indptr) - 1, width))
    counts.sum_duplicates()
    return counts
