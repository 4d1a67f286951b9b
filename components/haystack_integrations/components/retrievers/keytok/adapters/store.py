# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import Any

from haystack import Document
from haystack.document_stores.types import DocumentStore

from keytok_haystack import KeyTokenModel


@dataclass(frozen=True)
class _Store:
    """The classes that go with a document store, by their paths, so that they are imported only when they are used."""

    adapter: str
    dense_retriever: str
    bm25_retriever: str
    bm25_options: Mapping[str, Any] = field(default_factory=dict)


_STORES = {
    "haystack.document_stores.in_memory.document_store.InMemoryDocumentStore": _Store(
        "haystack_integrations.components.retrievers.keytok.adapters.in_memory.InMemoryAdapter",
        "haystack.components.retrievers.in_memory.InMemoryEmbeddingRetriever",
        "haystack.components.retrievers.in_memory.InMemoryBM25Retriever",
    ),
    "haystack_integrations.document_stores.opensearch.document_store.OpenSearchDocumentStore": _Store(
        "haystack_integrations.components.retrievers.keytok.adapters.opensearch.OpenSearchAdapter",
        "haystack_integrations.components.retrievers.opensearch.OpenSearchEmbeddingRetriever",
        "haystack_integrations.components.retrievers.opensearch.OpenSearchBM25Retriever",
    ),
    "haystack_integrations.document_stores.elasticsearch.document_store.ElasticsearchDocumentStore": _Store(
        "haystack_integrations.components.retrievers.keytok.adapters.elasticsearch.ElasticsearchAdapter",
        "haystack_integrations.components.retrievers.elasticsearch.ElasticsearchEmbeddingRetriever",
        "haystack_integrations.components.retrievers.elasticsearch.ElasticsearchBM25Retriever",
        {"fuzziness": "0"},  # its default, AUTO, matches words of other spelling and meaning
    ),
}


@dataclass(frozen=True)
class SparseQuery:
    """
    What is searched for.

    :param tokens: The query's `{key: weight}`, positive weights.
    :param text: The query's text, for BM25.
    :param bm25_weight: What BM25 scores are multiplied by before they are added.
    :param exact: Whether documents are looked for by all tokens, where an engine would begin with the strong ones.
    """

    tokens: Mapping[str, float]
    text: str = ""
    bm25_weight: float = 0.0
    exact: bool = False


class StoreAdapter(ABC):
    """Search one document store for the documents whose key tokens have the largest dot product with a query's."""

    @abstractmethod
    def __init__(self, document_store: Any, field: str) -> None:
        """
        Create an adapter. Nothing is read or connected to.

        :param document_store: The store.
        :param field: The field of the documents' key tokens: a key of `meta`.
        """

    @abstractmethod
    def warm_up(self, model: KeyTokenModel | None) -> None:
        """Check that the store can be searched. `model` is the one the retriever was given."""

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
        """Release what `warm_up` or `search` has made."""

    @abstractmethod
    async def close_async(self) -> None:
        """Release what `search_async` has made."""


def adapter_for(document_store: DocumentStore, field: str) -> StoreAdapter:
    """
    Return the adapter of a document store, or of the class that it derives from.

    :raises TypeError: There is no adapter for this kind of store.
    """
    adapter: StoreAdapter = adapter_class(document_store)(document_store, field)
    return adapter


def adapter_class(document_store: DocumentStore) -> type[StoreAdapter]:
    """
    Return the class of the adapter of a document store.

    :raises TypeError: There is no adapter for this kind of store.
    """
    cls: type[StoreAdapter] = _imported(_store(document_store).adapter)
    return cls


def store_retrievers(document_store: DocumentStore) -> tuple[Any, Any]:
    """
    Return what makes a document store's own dense and BM25 retrievers.

    :raises TypeError: The kind of store is not known.
    """
    store = _store(document_store)
    return _imported(store.dense_retriever), partial(_imported(store.bm25_retriever), **store.bm25_options)


def _store(document_store: DocumentStore) -> _Store:
    for cls in type(document_store).__mro__:
        if (store := _STORES.get(f"{cls.__module__}.{cls.__qualname__}")) is not None:
            return store
    supported = ", ".join(name.rpartition(".")[2] for name in _STORES)
    msg = f"SparseRetriever cannot search a {type(document_store).__name__}. Supported document stores: {supported}."
    raise TypeError(msg)


def _imported(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)
