# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import asyncio
from collections.abc import Mapping
from dataclasses import replace
from operator import itemgetter
from threading import Lock
from typing import Any

from haystack import Document
from haystack.document_stores.in_memory import InMemoryDocumentStore

from haystack_integrations.components.embedders.keytok.conversion import stored_key_tokens
from haystack_integrations.components.retrievers.keytok.adapters.protocol import SparseQuery
from keytok_haystack import InvertedIndex, KeyTokenModel, Vocabulary

_UNKNOWN = object()


class InMemoryAdapter:
    """
    Search an `InMemoryDocumentStore` through an inverted index that is kept in step with it.

    The store has neither a version nor a hook, and its `update_by_filter` changes documents in place. So each search
    first compares the store's documents and their key tokens with those indexed, by identity, which takes about 3 ms
    for 100,000 documents, and indexes only what has changed. What escapes it is an assignment to an attribute of a
    stored document (against which Haystack warns) or a change inside the dict of its key tokens.

    Documents without key tokens but with a `sparse_embedding` are indexed under its indices, as strings.
    """

    def __init__(self, document_store: InMemoryDocumentStore, field: str) -> None:
        self._store = document_store
        self._field = field
        self._lock = Lock()
        self._model: KeyTokenModel | None = None
        self._forget()

    def _forget(self) -> None:
        self._index: InvertedIndex | None = None
        self._documents: list[Document] = []
        self._metas: list[dict[str, Any]] = []
        self._fields: list[Any] = []

    def warm_up(self, model: KeyTokenModel | None) -> None:
        """Keep the model for BM25, which counts its tokens."""
        self._model = model

    def search(self, query: SparseQuery, filters: dict[str, Any] | None, top_k: int) -> list[Document]:
        """
        Return the best documents with their scores, best first, equal scores by id.

        :raises ValueError: The filters are invalid, there is a `bm25_weight` but no model, or a document of the store
            has a weight that no index can hold.
        :raises TypeError: The field of a document holds something else than key tokens.
        """
        # the store's own filtering, so that filters mean exactly what they mean to its other retrievers
        among = [document.id for document in self._store.filter_documents(filters)] if filters else None
        with self._lock:
            index = self._current_index(with_bm25=query.bm25_weight > 0)
            hits = index.search(query.tokens, top_k, text=query.text, bm25_weight=query.bm25_weight, among=among)
            storage = self._store.storage
            return [self._hit(storage[document_id], score) for document_id, score in hits if document_id in storage]

    async def search_async(self, query: SparseQuery, filters: dict[str, Any] | None, top_k: int) -> list[Document]:
        """Search in a thread, as the store's own asynchronous methods do."""
        return await asyncio.to_thread(self.search, query, filters, top_k)

    def close(self) -> None:
        """Free the index; a later search builds it again."""
        with self._lock:
            self._forget()
            self._model = None

    async def close_async(self) -> None:
        """Release nothing: searching asynchronously makes nothing that `close` does not free."""

    def _hit(self, document: Document, score: float) -> Document:
        embedding = document.embedding if self._store.return_embedding else None
        return replace(document, score=score, meta=dict(document.meta), embedding=embedding)

    def _current_index(self, *, with_bm25: bool) -> InvertedIndex:
        if self._index is None:
            self._index = InvertedIndex(self._bm25_vocabulary() if with_bm25 else None)
        documents = list(self._store.storage.values())
        if not self._is_current(documents):
            self._follow(self._index, documents)
        return self._index

    def _bm25_vocabulary(self) -> Vocabulary:
        if self._model is None:
            msg = "BM25 over an InMemoryDocumentStore counts the tokens of a key-token model: set `model`."
            raise ValueError(msg)
        return self._model.vocabulary.whole()

    def _is_current(self, documents: list[Document]) -> bool:
        """Whether the store's documents, and their key tokens, are the very objects that are indexed."""
        if len(documents) != len(self._documents):
            return False
        # A write puts its document last. Comparing equal lists of the same objects is quick; comparing copies is not.
        if documents and documents[-1] is not self._documents[-1]:
            return False
        return documents == self._documents and self._read_fields(self._metas) == self._fields

    def _read_fields(self, metas: list[dict[str, Any]]) -> list[Any]:
        try:
            return list(map(itemgetter(self._field), metas))
        except KeyError:
            return [meta.get(self._field) for meta in metas]

    def _follow(self, index: InvertedIndex, documents: list[Document]) -> None:
        """Add, replace and remove in the index what differs from the store."""
        metas = [document.meta for document in documents]
        fields = self._read_fields(metas)
        unchanged = dict(zip(map(id, self._documents), self._fields, strict=True))
        suspects = [
            d for d, field in zip(documents, fields, strict=True) if unchanged.get(id(d), _UNKNOWN) is not field
        ]
        if suspects:
            indexed = {d.id: (d, field) for d, field in zip(self._documents, self._fields, strict=True)}
            changed = [document for document in suspects if not self._is_indexed(document, indexed)]
            index.add(
                [document.id for document in changed],
                [stored_key_tokens(document, self._field) for document in changed],
                [document.content or "" for document in changed],
            )
        present = {document.id for document in documents}
        index.remove([document.id for document in self._documents if document.id not in present])
        self._documents, self._metas, self._fields = documents, metas, fields

    def _is_indexed(self, document: Document, indexed: Mapping[str, tuple[Document, Any]]) -> bool:
        """Whether a document that was written again is indexed as it is now."""
        if document.id not in indexed:
            return False
        old, field = indexed[document.id]
        return bool(
            field == document.meta.get(self._field)
            and old.content == document.content
            and old.sparse_embedding == document.sparse_embedding
        )
