# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from haystack import Document
from haystack.document_stores.types import DocumentStore

from keytok_haystack import KeyTokenModel

# Stores are recognized by name, so that an adapter and its engine's client are imported only when they are used.
_ADAPTERS = {
    "haystack.document_stores.in_memory.document_store.InMemoryDocumentStore": (
        "haystack_integrations.components.retrievers.keytok.adapters.in_memory",
        "InMemoryAdapter",
    ),
}


@dataclass(frozen=True)
class SparseQuery:
    """
    What is searched for.

    :param tokens: The query's `{key: weight}`, positive weights.
    :param text: The query's text, for BM25.
    :param bm25_weight: What BM25 scores are multiplied by before they are added.
    """

    tokens: Mapping[str, float]
    text: str = ""
    bm25_weight: float = 0.0


class StoreAdapter(Protocol):
    """Search one document store for the documents whose key tokens have the largest dot product with a query's."""

    def __init__(self, document_store: Any, field: str) -> None:
        """
        Create an adapter. Nothing is read or connected to.

        :param document_store: The store.
        :param field: The field of the documents' key tokens: a key of `meta`.
        """

    def warm_up(self, model: KeyTokenModel | None) -> None:
        """Connect to the store and check that it can be searched. `model` is the one the retriever was given."""

    def search(self, query: SparseQuery, filters: dict[str, Any] | None, top_k: int) -> list[Document]:
        """Return the best documents with their scores, best first."""

    async def search_async(self, query: SparseQuery, filters: dict[str, Any] | None, top_k: int) -> list[Document]:
        """Return the best documents with their scores, best first."""

    def close(self) -> None:
        """Release what `warm_up` or `search` has made."""

    async def close_async(self) -> None:
        """Release what `search_async` has made."""


def adapter_for(document_store: DocumentStore, field: str) -> StoreAdapter:
    """
    Return the adapter of a document store, or of the class that it derives from.

    :raises TypeError: There is no adapter for this kind of store.
    """
    for cls in type(document_store).__mro__:
        if (location := _ADAPTERS.get(f"{cls.__module__}.{cls.__qualname__}")) is not None:
            module, name = location
            adapter: StoreAdapter = getattr(import_module(module), name)(document_store, field)
            return adapter
    supported = ", ".join(name.rpartition(".")[2] for name in _ADAPTERS)
    msg = f"SparseRetriever cannot search a {type(document_store).__name__}. Supported document stores: {supported}."
    raise TypeError(msg)
