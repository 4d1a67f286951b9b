# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import asyncio
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
from haystack import Document
from haystack.document_stores.in_memory import InMemoryDocumentStore
from numpy.typing import NDArray

from haystack_integrations.components.embedders.keytok.conversion import matched_tokens
from haystack_integrations.components.retrievers.keytok.adapters.in_memory_index import StoreIndex, index_of
from haystack_integrations.components.retrievers.keytok.adapters.store import (
    SearchQuery,
    SearchSettings,
    StoreAdapter,
    set_score_parts,
)
from keytok_haystack import KeyTokenModel
from keytok_haystack.embedding_space import cosine
from keytok_haystack.inverted_index import Hit
from keytok_haystack.weighting import rescore_window, strongest_tokens


class InMemoryAdapter(StoreAdapter):
    """Search of an `InMemoryDocumentStore` through an inverted index that is kept in step with it."""

    def __init__(self, document_store: InMemoryDocumentStore, settings: SearchSettings) -> None:
        self._store = document_store
        self._settings = settings
        self._index: StoreIndex | None = None

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
        window = rescore_window(self._settings.rescored, top_k)
        strongest = strongest_tokens(query.tokens, query.first_phase)
        nearest = self._nearest(query, filters) if with_dense else []
        kept = self._index
        if kept is None:
            kept = self._index = index_of(self._store, self._settings.field, with_bm25=query.bm25_weight > 0)
        with kept.lock:
            index = kept.current()
            if query.required:
                having = kept.ids_with(query.required)
                among = list(having if among is None else having.intersection(among))
                nearest = [each for each in nearest if each in having][: self._settings.nearest]

            def found_by(tokens: Mapping[str, float]) -> list[Hit]:
                return index.find(
                    query.tokens,
                    window,
                    candidate_tokens=tokens,
                    text=query.text,
                    bm25_weight=query.bm25_weight,
                    allowed_ids=among,
                    extra_ids=nearest,
                    bm25_candidates=not (with_dense and query.tokens),
                )

            hits = found_by(strongest)
            if len(hits) < top_k and len(strongest) < len(query.tokens):
                hits = found_by(query.tokens)
            # others may write and delete meanwhile, so each document is looked up once
            storage = self._store.storage
            found = {hit.id: document for hit in hits if (document := storage.get(hit.id)) is not None}
            hits = [hit for hit in hits if hit.id in found]
            dense = [0.0] * len(hits)
            if with_dense:
                embedding = np.asarray(query.embedding, dtype=np.float64)
                dense = [query.dense_weight * _cosine(embedding, found[hit.id]) for hit in hits]
            scores = [hit.score + more for hit, more in zip(hits, dense, strict=True)]
            best = sorted(range(len(hits)), key=lambda i: (-round(scores[i], 12), hits[i].id))[:top_k]
            documents = [self._hit(found[hits[i].id], scores[i], query.tokens, kept) for i in best]
        parts = {
            "key_tokens": [hits[i].key_tokens for i in best],
            **({"bm25": [hits[i].bm25 for i in best]} if query.bm25_weight else {}),
            **({"dense": [dense[i] for i in best]} if with_dense else {}),
        }
        if len(parts) > 1:
            set_score_parts(documents, parts)
        return documents

    def _nearest(self, query: SearchQuery, filters: dict[str, Any] | None) -> list[str]:
        """Return the ids of the nearest documents, by the store's own search; all if those needed are sieved out."""
        if not self._settings.nearest:
            return []
        number = len(self._store.storage) if query.required else self._settings.nearest
        embedding = list(query.embedding or ())
        return [each.id for each in self._store.embedding_retrieval(embedding, filters, max(number, 1))]

    async def search_async(self, query: SearchQuery, filters: dict[str, Any] | None, top_k: int) -> list[Document]:
        """Search in a thread, as the store's own asynchronous methods do."""
        return await asyncio.to_thread(self.search, query, filters, top_k)

    def close(self) -> None:
        """Free the index, unless other retrievers use it; a later search builds it again."""
        self._index = None

    async def close_async(self) -> None:
        """Free the index, which synchronous and asynchronous searches share."""
        self.close()

    def _hit(self, document: Document, score: float, asked: Mapping[str, float], index: StoreIndex) -> Document:
        embedding = document.embedding if self._store.return_embedding else None
        # a deep copy, as the store's own retrievers make it, so that changing a hit does not change the store
        meta = {
            key: deepcopy(value)
            for key, value in document.meta.items()
            if key != self._settings.field or self._settings.return_key_tokens
        }
        meta["matched_tokens"] = matched_tokens(asked, index.tokens(document))
        return replace(document, score=score, meta=meta, embedding=embedding)


def _cosine(query: NDArray[np.float64], document: Document) -> float:
    """Return the cosine of the query's embedding and a document's, 0 if there is none."""
    if document.embedding is None:
        return 0.0
    if len(document.embedding) != len(query):
        msg = (
            f"The embedding of document '{document.id}' has {len(document.embedding)} dimensions, but the query's "
            f"{len(query)}: use the embedder that the documents were embedded with."
        )
        raise ValueError(msg)
    return cosine(query, document.embedding)
