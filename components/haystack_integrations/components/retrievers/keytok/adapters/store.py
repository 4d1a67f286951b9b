# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

from haystack import Document
from haystack.document_stores.types import DocumentStore

from keytok_haystack import KeyTokenModel
from keytok_haystack.utils.classes import entry_for

_ADAPTERS = {
    "haystack.document_stores.in_memory.document_store.InMemoryDocumentStore": (
        "haystack_integrations.components.retrievers.keytok.adapters.in_memory:InMemoryAdapter"
    ),
    "haystack_integrations.document_stores.opensearch.document_store.OpenSearchDocumentStore": (
        "haystack_integrations.components.retrievers.keytok.adapters.opensearch:OpenSearchAdapter"
    ),
    "haystack_integrations.document_stores.elasticsearch.document_store.ElasticsearchDocumentStore": (
        "haystack_integrations.components.retrievers.keytok.adapters.elasticsearch:ElasticsearchAdapter"
    ),
    "haystack_integrations.document_stores.qdrant.document_store.QdrantDocumentStore": (
        "haystack_integrations.components.retrievers.keytok.adapters.qdrant:QdrantAdapter"
    ),
    "milvus_haystack.document_store.MilvusDocumentStore": (
        "haystack_integrations.components.retrievers.keytok.adapters.milvus:MilvusAdapter"
    ),
}
"""Adapters by the class of the document store; paths, so that they are imported only when they are used."""


@dataclass(frozen=True)
class SearchQuery:
    """
    Query of a search: parts whose scores are added.

    :param tokens: Key tokens of the query, `{key: weight}` with positive weights.
    :param first_phase: Share of the query's weight whose tokens find documents (`strongest_tokens`). If fewer are found
        than asked for, all tokens find them.
    :param text: Text of the query, for BM25.
    :param bm25_weight: Factor of the BM25 scores.
    :param embedding: Dense vector of the query, shape `(d,)`, for cosines.
    :param dense_weight: Factor of the cosines.
    :param required: Keys that each hit has among its key tokens, whatever else it is found by.
    """

    tokens: Mapping[str, float]
    first_phase: float = 1.0
    text: str = ""
    bm25_weight: float = 0.0
    embedding: Sequence[float] | None = None
    dense_weight: float = 0.0
    required: tuple[str, ...] = ()


@dataclass(frozen=True)
class SearchSettings:
    """
    Settings of a retriever that are the same for each query.

    :param field: Field of the documents' key tokens, a key of `meta`.
    :param content_field: Field of an engine's index that BM25 searches.
    :param rescored: Number of documents, the best by the strongest tokens, that are scored by all parts; at least twice
        the number that is asked for.
    :param nearest: Number of documents, the nearest by dense vectors, that are found beside those.
    :param timeout: Seconds to wait for an engine's answer.
    :param return_key_tokens: Whether hits bring all their key tokens.
    """

    field: str
    content_field: str
    rescored: int
    nearest: int
    timeout: float
    return_key_tokens: bool


def set_score_parts(documents: Sequence[Document], parts: Mapping[str, Sequence[float]]) -> None:
    """
    Set `meta["score_parts"]` of hits: what each part gave to the score, and the rank among the hits by it.

    :param documents: The `n` hits.
    :param parts: The `n` scores of each part, by its name.
    """
    described: list[dict[str, dict[str, float]]] = [{} for _ in documents]
    for name, scores in parts.items():
        for rank, i in enumerate(sorted(range(len(scores)), key=lambda i: -scores[i]), start=1):
            described[i][name] = {"score": scores[i], "rank": rank}
    for document, each in zip(documents, described, strict=True):
        document.meta["score_parts"] = {name: each[name] for name in parts}


class StoreAdapter(ABC):
    """Search of one document store for the documents whose key tokens have the largest dot products with a query's."""

    @abstractmethod
    def __init__(self, document_store: Any, settings: SearchSettings) -> None:
        """
        Create an adapter. Nothing is read or connected to.

        :param document_store: Document store to search.
        :param settings: Settings of all searches.
        """

    @abstractmethod
    def warm_up(self, model: KeyTokenModel | None, *, with_dense: bool, with_bm25: bool) -> None:
        """
        Check that the store can be searched.

        :param model: Model of the retriever, if it has one.
        :param with_dense: Whether cosines of dense vectors will be asked for.
        :param with_bm25: Whether BM25 will be asked for.
        """

    @abstractmethod
    def search(self, query: SearchQuery, filters: dict[str, Any] | None, top_k: int) -> list[Document]:
        """Return the best documents with their scores and matched tokens, best first."""

    @abstractmethod
    async def search_async(self, query: SearchQuery, filters: dict[str, Any] | None, top_k: int) -> list[Document]:
        """Return the best documents with their scores and matched tokens, best first."""

    @abstractmethod
    def close(self) -> None:
        """Release the resources of `warm_up` and `search`."""

    @abstractmethod
    async def close_async(self) -> None:
        """Release the resources of `search_async`."""


def adapter_for(document_store: DocumentStore, settings: SearchSettings) -> StoreAdapter:
    """
    Return the adapter of a document store, or of the class that it derives from.

    :param document_store: Document store to search.
    :param settings: Settings of all searches.
    :raises TypeError: There is no adapter for this kind of store.
    """
    path = entry_for(document_store, _ADAPTERS)
    if path is None:
        supported = ", ".join(name.rpartition(".")[2] for name in _ADAPTERS)
        kind = type(document_store).__name__
        msg = f"SparseRetriever cannot search a {kind}. Supported document stores: {supported}."
        raise TypeError(msg)
    adapter: StoreAdapter = resolve_name(path)(document_store, settings)
    return adapter
