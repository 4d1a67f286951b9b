# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
from typing import Any

from elasticsearch import ApiError, Elasticsearch, TransportError
from haystack import Document, logging
from haystack_integrations.document_stores.elasticsearch import ElasticsearchDocumentStore
from haystack_integrations.document_stores.elasticsearch.filters import _normalize_filters

from haystack_integrations.components.retrievers.keytok.adapters.engine import TIMEOUT, EngineAdapter
from keytok_haystack.engines import KeyTokenField
from keytok_haystack.inverted_index import BM25_K1

logger = logging.getLogger(__name__)

_EXCLUDED = "index.mapping.exclude_source_vectors"


class ElasticsearchAdapter(EngineAdapter):
    """Search an `ElasticsearchDocumentStore`."""

    engine = "Elasticsearch"
    client_errors = (ApiError, TransportError)
    field_types = ("rank_features", "sparse_vector")
    bm25_factor = BM25_K1 + 1  # which Lucene's formula had before version 8, and Elasticsearch has kept
    _store: ElasticsearchDocumentStore

    @staticmethod
    def _connect(document_store: ElasticsearchDocumentStore, **options: Any) -> Elasticsearch:
        return Elasticsearch(
            document_store._hosts,
            api_key=document_store._handle_auth(),
            headers=document_store._headers,
            **{"request_timeout": TIMEOUT, **document_store._kwargs, **options},
        )

    @staticmethod
    def leaves_vectors_out(client: Elasticsearch, index: str) -> bool:
        """Tell whether vectors are left out of the `_source` of documents, as by default from version 9.2 on."""
        described = client.indices.get_settings(index=index, include_defaults=True, flat_settings=True)
        values = [
            {**settings.get("defaults", {}), **settings["settings"]}.get(_EXCLUDED) for settings in described.values()
        ]
        return "true" in values

    def _warn_about_mapping(self, client: Elasticsearch) -> None:
        if self.leaves_vectors_out(client, self._store._index):
            logger.warning(
                "The index '{index}' leaves vectors out of _source (index.mapping.exclude_source_vectors): key tokens "
                "do not come back with the hits of other retrievers, which cannot be explained then, and documents "
                "that are read and written back lose their vectors. `keytok mapping --create` makes an index that "
                "keeps them.",
                index=self._store._index,
            )

    def _client(self) -> Any:
        return self._store.client

    async def _async_client(self) -> Any:
        await self._store._ensure_initialized_async()
        return self._store.async_client

    def _engine_filters(self, filters: dict[str, Any]) -> dict[str, Any]:
        return _normalize_filters(filters)

    def _returned(self, field: KeyTokenField) -> dict[str, Any]:
        # Elasticsearch 9 leaves vectors out of `_source` unless the index says otherwise; `fields` has them always
        name = self._name
        return {"_source": {"excludes": [name]}, "fields": [name]} if field.type == "sparse_vector" else {}

    def _document(self, hit: dict[str, Any]) -> Document:
        tokens = hit.get("fields", {}).get(self._name)
        document = self._store._deserialize_document(hit)
        if tokens and not (self._store._sparse_vector_field == self._name and document.sparse_embedding):
            return replace(document, meta={**document.meta, self._name: tokens[0]})
        return document
