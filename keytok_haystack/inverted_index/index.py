# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""An inverted index in memory that scores key tokens and BM25 as a search engine does."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from keytok_haystack.inverted_index.bm25 import Bm25
from keytok_haystack.inverted_index.postings import Postings
from keytok_haystack.sparse_vectors.rank_features import check_weights, truncate_weights
from keytok_haystack.sparse_vectors.rows import dicts_to_rows, lower_bound_of_kth
from keytok_haystack.utils.checks import check_texts

_DIGITS = 12

_Row = tuple[NDArray[np.int32], NDArray[np.float64]]
"""A document's tokens as columns, ascending, and their weights as they were given."""


class Hit(NamedTuple):
    """
    Document that a search has found.

    :param id: Id of the document.
    :param key_tokens: Sum of the contributions of the key tokens that it shares with the query.
    :param bm25: Weighted BM25 score.
    """

    id: str
    key_tokens: float
    bm25: float

    @property
    def score(self) -> float:
        """The sum of both."""
        return self.key_tokens + self.bm25


class InvertedIndex:
    """
    Documents with their key tokens, and their text where BM25 is wanted, found by a query's weighted tokens.

    Scores are those of an engine's `rank_feature` queries with the function `linear`: the sum over shared tokens of
    the query's weight times the document's weight as Lucene stores it.

    :param with_bm25: Whether texts are indexed for BM25.
    """

    def __init__(self, *, with_bm25: bool = False) -> None:
        self._ids: list[str] = []
        self._rows: list[_Row] = []
        self._alive = np.zeros(0, dtype=bool)
        self._position: dict[str, int] = {}
        self._columns: dict[str, int] = {}
        self._keys: list[str] = []
        self._postings = Postings()
        self._bm25 = Bm25() if with_bm25 else None

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self._position)

    @property
    def has_bm25(self) -> bool:
        """Whether texts are indexed for BM25."""
        return self._bm25 is not None

    def add(self, ids: Sequence[str], tokens: Sequence[Mapping[str, float]], texts: Sequence[str]) -> None:
        """
        Add documents, replacing those whose id is known.

        :param ids: `n` distinct ids.
        :param tokens: `{key: weight}` for each; may be empty.
        :param texts: The text of each, for BM25; may be empty.
        :raises ValueError: A weight is not a positive normal float, or the lists do not match; nothing is added then.
        :raises TypeError: A text is not a string; nothing is added then.
        """
        if not (len(ids) == len(tokens) == len(texts) == len(set(ids))):
            msg = "Each document needs an id of its own, key tokens and a text."
            raise ValueError(msg)
        if not ids:
            return
        rows = self._checked(ids, tokens, texts)
        if self._bm25 is not None:
            self._bm25.add(texts)
        stored = truncate_weights(rows.data)
        self._postings.add(csr_array((stored, rows.indices, rows.indptr), shape=rows.shape))
        replaced = [self._position[document_id] for document_id in ids if document_id in self._position]
        self._position.update(zip(ids, range(len(self._ids), len(self._ids) + len(ids)), strict=True))
        self._ids.extend(ids)
        self._rows.extend((rows.indices[i:j], rows.data[i:j]) for i, j in pairwise(rows.indptr.tolist()))
        self._alive = np.concatenate([self._alive, np.ones(len(ids), dtype=bool)])
        self._bury(replaced)

    def _checked(self, ids: Sequence[str], tokens: Sequence[Mapping[str, float]], texts: Sequence[str]) -> csr_array:
        """Return the weights, shape `(n, tokens)`, or raise an error that names the document."""
        try:
            for key in (key for document in tokens for key in document if key not in self._columns):
                self._columns[key] = len(self._keys)
                self._keys.append(key)
            rows = dicts_to_rows(tokens, self._columns)
            check_weights(rows.data)
            if self._bm25 is not None:
                check_texts(texts)
        except (ValueError, TypeError) as error:
            if len(ids) == 1:
                msg = f"Document '{ids[0]}' cannot be indexed. {error}"
                raise type(error)(msg) from error
            for i in range(len(ids)):
                self._checked(ids[i : i + 1], tokens[i : i + 1], texts[i : i + 1])
            raise
        return rows

    def tokens_of(self, document_id: str) -> dict[str, float]:
        """
        Return the key tokens that a document was added with.

        :raises KeyError: The id is unknown.
        """
        columns, weights = self._rows[self._position[document_id]]
        return {self._keys[column]: weight for column, weight in zip(columns.tolist(), weights.tolist(), strict=True)}

    def remove(self, ids: Sequence[str]) -> None:
        """
        Remove documents.

        :raises KeyError: An id is unknown or given twice; nothing is removed then.
        """
        if len(self._position.keys() & set(ids)) < len(ids):
            msg = f"Unknown document: {next((i for i in ids if i not in self._position), 'one is given twice')}."
            raise KeyError(msg)
        self._bury([self._position.pop(document_id) for document_id in ids])

    def _bury(self, positions: Sequence[int]) -> None:
        """Take documents out of every search; their postings go when half of the space is wasted."""
        self._alive[positions] = False
        # with BM25 at once, since its idf and mean length count documents
        if positions and (self._bm25 is not None or 2 * len(self) < len(self._ids)):
            self._compact()

    def _compact(self) -> None:
        kept = np.flatnonzero(self._alive)
        self._postings.keep(self._alive)
        if self._bm25 is not None:
            self._bm25.keep(self._alive)
        self._ids = [self._ids[i] for i in kept]
        self._rows = [self._rows[i] for i in kept]
        self._position = {document_id: position for position, document_id in enumerate(self._ids)}
        self._alive = np.ones(len(kept), dtype=bool)

    def search(
        self,
        tokens: Mapping[str, float],
        top_k: int,
        *,
        text: str = "",
        bm25_weight: float = 0.0,
        allowed_ids: Sequence[str] | None = None,
    ) -> list[tuple[str, float]]:
        """
        Find the documents with the highest scores, as `find` does.

        :returns: `(id, score)`, highest score first, equal scores by id.
        """
        hits = self.find(tokens, top_k, text=text, bm25_weight=bm25_weight, allowed_ids=allowed_ids)
        return [(hit.id, hit.score) for hit in hits]

    def find(
        self,
        tokens: Mapping[str, float],
        top_k: int,
        *,
        text: str = "",
        bm25_weight: float = 0.0,
        candidate_tokens: Mapping[str, float] | None = None,
        allowed_ids: Sequence[str] | None = None,
        extra_ids: Sequence[str] = (),
        bm25_candidates: bool = True,
    ) -> list[Hit]:
        """
        Find the documents with the highest scores.

        :param tokens: The query's `{key: weight}`; keys that no document has are ignored.
        :param top_k: Maximum number of documents to return; 0 for none.
        :param text: The query's text, for BM25.
        :param bm25_weight: Factor of BM25 scores in the sum.
        :param candidate_tokens: Tokens of the query that select the candidates, which are scored by all; None for all
            tokens.
        :param allowed_ids: Ids of the documents to search; None searches all.
        :param extra_ids: Ids of documents to add to the candidates, whatever they score.
        :param bm25_candidates: Whether BM25 selects candidates, too; otherwise it is only added to their scores.
        :returns: Hits, highest score first, equal scores by id. Other documents that share nothing with the query are
            not found.
        :raises ValueError: The index has no BM25, but there is a `bm25_weight`.
        """
        lexical = np.zeros(len(self._ids), dtype=np.float32)
        if bm25_weight:
            if self._bm25 is None:
                msg = "This index has no BM25: make it with `with_bm25=True`."
                raise ValueError(msg)
            lexical = self._bm25.score(text) * np.float32(bm25_weight)
        strongest = tokens if candidate_tokens is None else candidate_tokens
        columns, weights = self._known(strongest)
        scores = self._postings.score(columns, weights)
        candidates = self._candidates(scores + lexical if bm25_candidates else scores, top_k, allowed_ids)
        found = self._sums(candidates, strongest) + lexical[candidates] * bm25_candidates
        best = candidates[self._ranking(candidates, found)[:top_k]]
        others = [self._position[each] for each in extra_ids if each in self._position]
        returned = np.unique(np.concatenate([best, np.array(others, dtype=np.int64)]))
        key_tokens = self._sums(returned, tokens)
        order = self._ranking(returned, key_tokens + lexical[returned])
        return [Hit(self._ids[returned[i]], float(key_tokens[i]), float(lexical[returned[i]])) for i in order]

    def _known(self, tokens: Mapping[str, float]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the columns of those tokens that documents have, and their weights."""
        known = [(self._columns[key], weight) for key, weight in tokens.items() if key in self._columns]
        columns, weights = ([each[i] for each in known] for i in range(2))
        return np.array(columns, dtype=np.int64), np.array(weights, dtype=np.float64)

    def _sums(self, positions: NDArray[np.int64], tokens: Mapping[str, float]) -> NDArray[np.float64]:
        """Return the dot products of documents and a query in float64, as the contributions sum up."""
        weight_of = np.zeros(len(self._keys))
        columns, weights = self._known(tokens)
        weight_of[columns] = weights
        rows = [self._rows[i] for i in positions.tolist()]
        sums = [weight_of[row] @ truncate_weights(given).astype(np.float64) for row, given in rows]
        return np.array(sums, dtype=np.float64)

    def _ranking(self, positions: NDArray[np.int64], scores: NDArray[np.float64]) -> list[int]:
        """Return the order by scores, of equal ones by id; the last digits of a sum depend on its order."""
        rounded = scores.round(_DIGITS).tolist()
        return sorted(range(len(rounded)), key=lambda i: (-rounded[i], self._ids[positions[i]]))

    def _candidates(
        self, scores: NDArray[np.float32], top_k: int, allowed_ids: Sequence[str] | None
    ) -> NDArray[np.int64]:
        """Return the documents that may be among the best, allowing for what float32 sums are off by."""
        if top_k <= 0:
            return np.zeros(0, dtype=np.int64)
        eligible = self._alive
        if allowed_ids is not None:
            eligible = np.zeros_like(self._alive)
            eligible[[self._position[each] for each in allowed_ids if each in self._position]] = True
        if allowed_ids is not None or len(self) < len(self._ids):
            scores = np.where(eligible, scores, 0)
        bound = lower_bound_of_kth(scores, top_k) if top_k <= len(scores) else np.float32(0)
        threshold = max(bound * np.float32(1 - 1e-5), np.finfo(np.float32).tiny)
        candidates = np.flatnonzero(scores >= threshold)
        if top_k < len(candidates):
            kth = -np.partition(-scores[candidates], top_k - 1)[top_k - 1]
            candidates = candidates[scores[candidates] >= kth * np.float32(1 - 1e-5)]
        return candidates


def contributions(query: Mapping[str, float], document: Mapping[str, float]) -> list[tuple[str, float, float, float]]:
    """
    Return why a query finds a document: `(key, query weight, document weight, contribution)` of each shared token.

    Contributions are strongest first and sum to the score; the document weight is the one that Lucene stores.
    """
    shared = [key for key in query if key in document]
    stored = truncate_weights([document[key] for key in shared]).tolist()
    parts = [(key, query[key], weight, query[key] * weight) for key, weight in zip(shared, stored, strict=True)]
    return sorted(parts, key=lambda part: (-part[3], part[0]))
