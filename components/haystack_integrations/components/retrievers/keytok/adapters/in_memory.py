# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import asyncio
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from operator import itemgetter
from threading import Lock
from typing import Any

import numpy as np
from haystack import Document, logging
from haystack.document_stores.in_memory import InMemoryDocumentStore
from numpy.typing import NDArray

from haystack_integrations.components.embedders.keytok.conversion import matched_tokens, stored_key_tokens
from haystack_integrations.components.retrievers.keytok.adapters.store import (
    SearchQuery,
    SearchSettings,
    StoreAdapter,
    tell_parts,
)
from keytok_haystack import InvertedIndex, KeyTokenModel
from keytok_haystack.inverted_index import Hit
from keytok_haystack.weighting import strongest_tokens

_logger = logging.getLogger(__name__)


class InMemoryAdapter(StoreAdapter):
    """
    Search of an `InMemoryDocumentStore` through an inverted index that is kept in step with it.

    The store has neither a version nor a hook, and its `update_by_filter` changes documents in place. Each search
    therefore first compares the store's documents and their key tokens with those indexed, by identity, which takes 5
    to 7 ms for 100,000 documents, and indexes only the changed ones. Two changes are not noticed until the document is
    written again: an assignment to an attribute of a stored document (against which Haystack warns), and a change
    inside the dict of its key tokens.

    Documents without key tokens but with a `sparse_embedding` are indexed under its indices, as strings.
    """

    def __init__(self, document_store: InMemoryDocumentStore, settings: SearchSettings) -> None:
        self._store = document_store
        self._settings = settings
        self._field = settings.field
        self._lock = Lock()
        self._forget()

    def _forget(self) -> None:
        self._index: InvertedIndex | None = None
        self._documents: list[Document] = []
        self._metas: list[dict[str, Any]] = []
        self._fields: list[Any] = []
        self._unreadable: dict[str, Any] = {}

    def warm_up(self, model: KeyTokenModel | None, *, with_dense: bool, with_bm25: bool) -> None:
        """Do nothing: the first search builds the index."""

    def search(self, query: SearchQuery, filters: dict[str, Any] | None, top_k: int) -> list[Document]:
        """
        Return the best documents with their scores, best first, equal scores by id.

        :raises ValueError: The filters are invalid, or the embedding of a document has another dimension than the
            query's.
        """
        if top_k == 0:
            return []
        # the store's own filtering, so that filters mean exactly what they mean to its other retrievers
        among = [document.id for document in self._store.filter_documents(filters)] if filters else None
        with_dense = query.embedding is not None and query.dense_weight > 0
        window = max(self._settings.rescored, 2 * top_k)
        nearest = self._nearest(query, filters) if with_dense else []
        strongest = strongest_tokens(query.tokens, query.first_phase)
        with self._lock:
            index = self._current_index(with_bm25=query.bm25_weight > 0)
            if query.required:
                required = set(query.required)
                having = {each.id for each in self._documents if self._tokens(each).keys() >= required}
                among = list(having if among is None else having.intersection(among))
                nearest = [each for each in nearest if each in having]

            def found_by(tokens: Mapping[str, float]) -> list[Hit]:
                return index.find(
                    query.tokens,
                    window,
                    found_by=tokens,
                    text=query.text,
                    bm25_weight=query.bm25_weight,
                    among=among,
                    also=nearest,
                    by_bm25=not (with_dense and query.tokens),
                )

            hits = found_by(strongest)
            if len(hits) < top_k and len(strongest) < len(query.tokens):
                hits = found_by(query.tokens)
            storage = self._store.storage
            hits = [hit for hit in hits if hit.id in storage]
            dense = [0.0] * len(hits)
            if with_dense:
                unit = np.asarray(query.embedding, dtype=np.float64)
                unit /= np.linalg.norm(unit)
                dense = [query.dense_weight * _cosine(unit, storage[hit.id]) for hit in hits]
            scores = [hit.score + more for hit, more in zip(hits, dense, strict=True)]
            best = sorted(range(len(hits)), key=lambda i: (-round(scores[i], 12), hits[i].id))[:top_k]
            documents = [self._hit(storage[hits[i].id], scores[i], query) for i in best]
        parts = {
            "key_tokens": [hits[i].key_tokens for i in best],
            **({"bm25": [hits[i].bm25 for i in best]} if query.bm25_weight else {}),
            **({"dense": [dense[i] for i in best]} if with_dense else {}),
        }
        if len(parts) > 1:
            tell_parts(documents, parts)
        return documents

    def _nearest(self, query: SearchQuery, filters: dict[str, Any] | None) -> list[str]:
        """Return the ids of the nearest documents, by the store's own search."""
        if not self._settings.nearest:
            return []
        embedding = list(query.embedding or ())
        return [each.id for each in self._store.embedding_retrieval(embedding, filters, self._settings.nearest)]

    async def search_async(self, query: SearchQuery, filters: dict[str, Any] | None, top_k: int) -> list[Document]:
        """Search in a thread, as the store's own asynchronous methods do."""
        return await asyncio.to_thread(self.search, query, filters, top_k)

    def close(self) -> None:
        """Free the index; a later search builds it again."""
        with self._lock:
            self._forget()

    async def close_async(self) -> None:
        """Free the index, which synchronous and asynchronous searches share."""
        self.close()

    def _hit(self, document: Document, score: float, query: SearchQuery) -> Document:
        embedding = document.embedding if self._store.return_embedding else None
        # a deep copy, as the store's own retrievers make it, so that changing a hit does not change the store
        meta = {
            key: deepcopy(value)
            for key, value in document.meta.items()
            if key != self._field or self._settings.return_key_tokens
        }
        meta["matched_tokens"] = matched_tokens(query.tokens, self._tokens(document))
        return replace(document, score=score, meta=meta, embedding=embedding)

    def _current_index(self, *, with_bm25: bool) -> InvertedIndex:
        if self._index is None:
            self._index = InvertedIndex(with_bm25=with_bm25)
        documents = list(self._store.storage.values())
        if not self._is_current(self._index, documents):
            self._follow(self._index, documents)
        return self._index

    def _is_current(self, index: InvertedIndex, documents: list[Document]) -> bool:
        """Return whether the store's documents and their key tokens are the very objects that are indexed."""
        if len(documents) != len(self._documents):
            return False
        if not documents:
            return True
        # A write moves its document to the end, so only the last can have been written again in place. Checking it
        # first also avoids comparing equal copies below: comparing lists of the same objects is quick.
        last = documents[-1]
        if last is not self._documents[-1] or self._tokens(last) != index.tokens_of(last.id):
            return False
        return documents == self._documents and self._read_fields(self._metas) == self._fields

    def _read_fields(self, metas: list[dict[str, Any]]) -> list[Any]:
        try:
            return list(map(itemgetter(self._field), metas))
        except KeyError:
            return [meta.get(self._field) for meta in metas]

    def _follow(self, index: InvertedIndex, documents: list[Document]) -> None:
        """Add, replace and remove documents of the index that differ from the store's."""
        metas = [document.meta for document in documents]
        fields = self._read_fields(metas)
        unmoved = self._unmoved(documents, fields)
        contents = {document.id: document.content for document in self._documents}
        changed = [
            document
            for document, is_unmoved in zip(documents, unmoved, strict=True)
            if not is_unmoved
            and (
                document.id not in contents
                or self._tokens(document) != index.tokens_of(document.id)
                or (index.has_bm25 and document.content != contents[document.id])
            )
        ]
        try:
            self._add(index, changed)
        except (TypeError, ValueError):
            for document in changed:
                self._add_what_can_be_read(index, document)
        present = {document.id for document in documents}
        index.remove([document_id for document_id in contents if document_id not in present])
        self._documents, self._metas, self._fields = documents, metas, fields

    def _add(self, index: InvertedIndex, documents: list[Document]) -> None:
        index.add(
            [document.id for document in documents],
            [self._tokens(document) for document in documents],
            [document.content or "" for document in documents],
        )

    def _add_what_can_be_read(self, index: InvertedIndex, document: Document) -> None:
        """Add a document, without its key tokens if these are none: one must not stop the search for all others."""
        try:
            self._add(index, [document])
        except (TypeError, ValueError) as error:
            _logger.warning(
                "A document is not found by its key tokens until it is written with such: {error}", error=str(error)
            )
            self._unreadable[document.id] = document.meta.get(self._field)
            self._add(index, [document])

    def _tokens(self, document: Document) -> Mapping[str, float]:
        """Return the key tokens of a document; of one whose field holds something else none."""
        if document.id in self._unreadable:
            if document.meta.get(self._field) is self._unreadable[document.id]:
                return {}
            del self._unreadable[document.id]
        return stored_key_tokens(document, self._field)

    def _unmoved(self, documents: list[Document], fields: list[Any]) -> list[bool]:
        """Return whether each document is where it was, with its key tokens: writes move documents to the end."""
        unmoved = []
        previous = zip(self._documents, self._fields, strict=True)
        for document, field in zip(documents, fields, strict=True):
            for old, old_field in previous:
                if old is document:
                    unmoved.append(old_field is field)
                    break
            else:
                unmoved.append(False)
        return unmoved


def _cosine(unit: NDArray[np.float64], document: Document) -> float:
    """Return the cosine of a vector of length 1 and a document's embedding, 0 if there is none."""
    if document.embedding is None:
        return 0.0
    vector = np.asarray(document.embedding, dtype=np.float64)
    if vector.shape != unit.shape:
        msg = (
            f"The embedding of document '{document.id}' has {len(vector)} dimensions, but the query's {len(unit)}: use "
            "the embedder that the documents were embedded with."
        )
        raise ValueError(msg)
    norm = float(np.linalg.norm(vector))
    return float(vector @ unit) / norm if norm else 0.0
