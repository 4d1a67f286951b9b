# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""BM25 by Lucene's formula."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from keytok_haystack.inverted_index.postings import Postings
from keytok_haystack.sparse_vectors.token_rows import TokenRows
from keytok_haystack.vocabulary import Vocabulary
from keytok_haystack.weighting import inverse_document_frequency

BM25_K1 = 1.2
BM25_B = 0.75


class Bm25:
    """
    BM25 over a vocabulary's features by the formula of Lucene's BM25Similarity: `idf * tf / (tf + k1 * norm)`.

    As in Lucene since version 8 there is no factor of `k1 + 1`, and documents without a feature count neither for the
    idf nor for the mean length. Lucene's rounding of lengths to a byte is left out.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._unseen: dict[str, int] = {}  # columns of words that documents have and the vocabulary has not
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
        counts = self._vocabulary.literal_counts(texts)
        for word in counts.unseen:
            self._unseen.setdefault(word, self._width)
        self._batches.append(counts.onto(self._unseen, self._width))
        self._postings = None

    def keep(self, documents: NDArray[np.bool_]) -> None:
        """Drop documents; the remaining ones are renumbered in the same order."""
        kept = csr_array(self.counts[documents])
        known = len(self._vocabulary)
        words = list(self._unseen)
        used = np.unique(kept.indices[kept.indices >= known]) - known
        self._unseen = {words[i]: known + place for place, i in enumerate(used.tolist())}
        self._batches = [TokenRows(kept, tuple(words)).onto(self._unseen, self._width)]
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
        """Return the number of occurrences in each query of what `counts` has a column for."""
        return self._vocabulary.literal_counts(texts).onto(self._unseen, self._width)

    @property
    def counts(self) -> csr_array:
        """Number of occurrences in each document of each feature, and word of documents, shape `(documents, V + u)`."""
        if len(self._batches) != 1:
            batches = [
                csr_array((batch.data, batch.indices, batch.indptr), shape=(batch.shape[0], self._width))
                for batch in self._batches
            ]
            empty = csr_array((0, self._width), dtype=np.float32)
            self._batches = [csr_array(vstack([empty, *batches], format="csr"))]
        return self._batches[0]

    @property
    def _width(self) -> int:
        return len(self._vocabulary) + len(self._unseen)

    def _weigh(self) -> Postings:
        """Weigh the counts anew: the mean document length changes with every document."""
        counts = self.counts
        lengths = np.asarray(counts.sum(axis=1)).ravel()
        mean_length = lengths.sum() / max(np.count_nonzero(lengths), 1)
        norms = BM25_K1 * (1 - BM25_B + BM25_B * lengths / max(mean_length, 1.0))
        data = counts.data / (counts.data + np.repeat(norms, np.diff(counts.indptr)))
        postings = Postings()
        postings.add(csr_array((data, counts.indices, counts.indptr), shape=counts.shape))
        return postings
