# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pkgutil import resolve_name
from typing import Any

from haystack import Document
from haystack.document_stores.types import DocumentStore

from keytok_haystack import KeyTokenModel
from keytok_haystack.utils.classes import entry_for


@dataclass(frozen=True)
class _Store:
    """
    Classes that go with a kind of document store, by their paths, so that they are imported only when they are used.

    :param adapter: Adapter of the store.
    :param dense_retriever: The store's own retriever by dense vectors.
    :param bm25_retriever: The store's own retriever by BM25.
    :param bm25_options: Init parameters of the BM25 retriever.
    """

    adapter: str
    dense_retriever: str
    bm25_retriever: str
    bm25_options: Mapping[str, Any] = field(default_factory=dict)


_STORES = {
    "haystack.document_stores.in_memory.document_store.InMemoryDocumentStore": _Store(
        "haystack_integrations.components.retrievers.keytok.adapters.in_memory:InMemoryAdapter",
        "haystack.components.retrievers.in_memory:InMemoryEmbeddingRetriever",
        "haystack.components.retrievers.in_memory:InMemoryBM25Retriever",
    ),
    "haystack_integrations.document_stores.opensearch.document_store.OpenSearchDocumentStore": _Store(
        "haystack_integrations.components.retrievers.keytok.adapters.opensearch:OpenSearchAdapter",
        "haystack_integrations.components.retrievers.opensearch:OpenSearchEmbeddingRetriever",
        "haystack_integrations.components.retrievers.opensearch:OpenSearchBM25Retriever",
    ),
    "haystack_integrations.document_stores.elasticsearch.document_store.ElasticsearchDocumentStore": _Store(
        "haystack_integrations.components.retrievers.keytok.adapters.elasticsearch:ElasticsearchAdapter",
        "haystack_integrations.components.retrievers.elasticsearch:ElasticsearchEmbeddingRetriever",
        "haystack_integrations.components.retrievers.elasticsearch:ElasticsearchBM25Retriever",
        {"fuzziness": "0"},  # its default, AUTO, matches words of other spelling and meaning
    ),
}


@dataclass(frozen=True)
class SparseQuery:
    """
    Query of a search.

    :param tokens: Key tokens of the query, `{key: weight}` with positive weights.
    :param text: Text of the query, for BM25.
    :param bm25_weight: Factor of the BM25 scores that are added.
    """

    tokens: Mapping[str, float]
    text: str = ""
    bm25_weight: float = 0.0


class StoreAdapter(ABC):
    """Search of one document store for the documents whose key tokens have the largest dot products with a query's."""

    @abstractmethod
    def __init__(self, document_store: Any, field: str) -> None:
        """
        Create an adapter. Nothing is read or connected to.

        :param document_store: Document store to search.
        :param field: Field of the documents' key tokens, a key of `meta`.
        """

    @abstractmethod
    def warm_up(self, model: KeyTokenModel | None) -> None:
        """
        Check that the store can be searched.

        :param model: Model of the retriever, if it has one.
        """

    @abstractmethod
    def search(self, query: SparseQuery, filters: dict[str, Any] | None, top_k: int) -> list[Document]:
        """Return the best documents with their scores, best first."""

    @abstractmethod
    async def search_async(self, query: SparseQuery, filters: dict[str, Any] | None, top_k: int) -> list[Document]:
        """Return the best documents with their scores, best first."""

    @abstractmethod
    def search_many(
        self, queries: Sequence[SparseQuery], filters: dict[str, Any] | None, top_k: int
    ) -> list[list[Document]]:
        """Return the best documents for each of many queries."""

    @abstractmethod
    def close(self) -> None:
        """Release the resources of `warm_up` and `search`."""

    @abstractmethod
    async def close_async(self) -> None:
        """Release the resources of `search_async`."""


def adapter_for(document_store: DocumentStore, field: str) -> StoreAdapter:
    """
    Return the adapter of a document store, or of the class that it derives from.

    :param document_store: Document store to search.
    :param field: Field of the documents' key tokens, a key of `meta`.
    :raises TypeError: There is no adapter for this kind of store.
    """
    adapter: StoreAdapter = resolve_name(_entry(document_store).adapter)(document_store, field)
    return adapter


def store_retrievers(document_store: DocumentStore) -> tuple[Any, Any]:
    """
    Return the constructors of a document store's own dense and BM25 retrievers.

    :param document_store: Document store to search.
    :raises TypeError: The kind of store is not known.
    """
    entry = _entry(document_store)
    return resolve_name(entry.dense_retriever), partial(resolve_name(entry.bm25_retriever), **entry.bm25_options)


def _entry(document_store: DocumentStore) -> _Store:
    if (entry := entry_for(document_store, _STORES)) is None:
        supported = ", ".join(name.rpartition(".")[2] for name in _STORES)
        kind = type(document_store).__name__
        msg = f"SparseRetriever cannot search a {kind}. Supported document stores: {supported}."
        raise TypeError(msg)
    return entry
