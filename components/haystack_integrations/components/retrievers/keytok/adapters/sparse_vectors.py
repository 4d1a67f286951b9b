# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Search of stores that keep sparse embeddings: all that their adapters have in common."""

import asyncio
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from haystack import Document
from haystack.dataclasses import SparseEmbedding

from haystack_integrations.components.embedders.keytok.conversion import matched_tokens
from haystack_integrations.components.retrievers.keytok.adapters.store import (
    SearchQuery,
    SearchSettings,
    StoreAdapter,
    set_score_parts,
)
from keytok_haystack import KeyTokenModel
from keytok_haystack.engines import MappingError
from keytok_haystack.sparse_vectors.rank_features import unescape_feature


class SparseVectorAdapter(StoreAdapter):
    """
    Search of a store that keeps `Document.sparse_embedding`, as `KeyTokenSparseEmbedder` makes it.

    Its indices are features of the model, or hashes of words that the model has not seen, so a model is needed. All
    tokens of a query find documents, whatever its `first_phase` is. The matched tokens of a hit are read from the
    vector that the store has scored.
    """

    has_cosines: bool
    """Whether a search can add cosines of dense vectors."""

    def __init__(self, document_store: Any, settings: SearchSettings) -> None:
        """Keep the store; nothing is connected to."""
        self._store = document_store
        self._settings = settings
        self._kind = type(document_store).__name__
        self._model: KeyTokenModel | None = None
        self._features: dict[str, int] = {}

    def warm_up(self, model: KeyTokenModel | None, *, with_dense: bool, with_bm25: bool) -> None:
        """
        Check that the store can be asked for all parts.

        :raises ValueError: There is no model, or a part is asked for that the store does not have.
        """
        if model is None:
            msg = (
                f"{self._kind} has the indices of a model's features in place of key tokens: set `model`, or use the "
                "store's own retriever for vectors of other sparse embedders."
            )
            raise ValueError(msg)
        if with_bm25:
            msg = f"{self._kind} has no BM25 to add: set `bm25_weight` to 0."
            raise ValueError(msg)
        if with_dense and not self.has_cosines:
            msg = (
                f"{self._kind} cannot add cosines to key tokens: set `dense_weight` to 0, or use its hybrid retriever."
            )
            raise ValueError(msg)
        self._model = model
        self._features = {key: index for index, key in enumerate(model.vocabulary.keys)}

    def search(self, query: SearchQuery, filters: dict[str, Any] | None, top_k: int) -> list[Document]:
        """
        Return the best documents with their scores and matched tokens, best first.

        :raises DocumentStoreError: The store cannot answer.
        :raises MappingError: A document that is found was written with another model.
        :raises ValueError: Tokens are required, which these stores cannot be asked for.
        """
        if query.required:
            msg = f"{self._kind} does not support required tokens: leave `required_tokens` out."
            raise ValueError(msg)
        keys = self._keys_of_indices(query.tokens)
        if top_k == 0 or not (keys or (query.dense_weight and self._settings.nearest)):
            return []
        vector = SparseEmbedding(list(keys), [query.tokens[key] for key in keys.values()])
        found = self._find(vector, query, filters, top_k)
        tokens = [self._tokens_of_query(document, keys) for document in found]
        documents = [self._hit(document, query, each) for document, each in zip(found, tokens, strict=True)]
        if query.dense_weight:
            keyed = [sum(match["contribution"] for match in document.meta["matched_tokens"]) for document in documents]
            dense = [(document.score or 0.0) - part for document, part in zip(documents, keyed, strict=True)]
            set_score_parts(documents, {"key_tokens": keyed, "dense": dense})
        return documents

    async def search_async(self, query: SearchQuery, filters: dict[str, Any] | None, top_k: int) -> list[Document]:
        """Search in a thread, since the asynchronous client of an embedded store would see another, empty one."""
        return await asyncio.to_thread(self.search, query, filters, top_k)

    @abstractmethod
    def _find(
        self, vector: SparseEmbedding, query: SearchQuery, filters: dict[str, Any] | None, top_k: int
    ) -> list[Document]:
        """
        Return the documents with the best sums, with their sparse embeddings, best first.

        :param vector: Key tokens of the query; it has none if only dense vectors find documents.
        :param query: The query, whose dense vector may have a weight.
        :param filters: Haystack's filters.
        :param top_k: Maximum number of documents, at least 1.
        """

    @property
    @abstractmethod
    def _returns_vectors(self) -> bool:
        """Whether hits of the store's own retrievers have their sparse embeddings."""

    def _keys_of_indices(self, tokens: Mapping[str, float]) -> dict[int, str]:
        """Return the tokens of a query by their indices, without those that no text of the model can have."""
        if self._model is None:
            msg = "The adapter is not warmed up."
            raise RuntimeError(msg)
        vocabulary = self._model.vocabulary
        indices = {
            key: vocabulary.unseen_index(unescape_feature(key)) if vocabulary.is_open else None
            for key in tokens.keys() - self._features.keys()
        } | {key: self._features[key] for key in tokens.keys() & self._features.keys()}
        return {index: key for key in tokens if (index := indices[key]) is not None}

    def _tokens_of_query(self, document: Document, keys: Mapping[int, str]) -> dict[str, float]:
        """
        Return the query's tokens that a document has, with its weights.

        :raises MappingError: They are not among the key tokens that the document tells, so other features of another
            model have been found.
        """
        vector = document.sparse_embedding
        pairs = [] if vector is None else zip(vector.indices, vector.values, strict=True)
        tokens = {keys[index]: weight for index, weight in pairs if index in keys}
        told = document.meta.get(self._settings.field)
        if isinstance(told, Mapping) and not tokens.keys() <= told.keys():
            msg = (
                f"The sparse embedding of document '{document.id}' is not of the model of this retriever, since its "
                "indices have other names: give it the model that the documents are written with."
            )
            raise MappingError(msg)
        return tokens

    def _hit(self, document: Document, query: SearchQuery, tokens: Mapping[str, float]) -> Document:
        meta = {
            key: value
            for key, value in document.meta.items()
            if key != self._settings.field or self._settings.return_key_tokens
        }
        meta["matched_tokens"] = matched_tokens(query.tokens, tokens)
        vector = document.sparse_embedding if self._returns_vectors else None
        return replace(document, meta=meta, sparse_embedding=vector)
