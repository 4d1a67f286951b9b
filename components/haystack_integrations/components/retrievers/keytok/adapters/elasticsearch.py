# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
from typing import Any

from haystack import Document
from haystack_integrations.document_stores.elasticsearch import ElasticsearchDocumentStore
from haystack_integrations.document_stores.elasticsearch.filters import _normalize_filters

from haystack_integrations.components.retrievers.keytok.adapters.engine import EngineAdapter
from keytok_haystack.engines import KeyTokenField


class ElasticsearchAdapter(EngineAdapter):
    """Search of an `ElasticsearchDocumentStore`."""

    _store: ElasticsearchDocumentStore

    def _client(self) -> Any:
        return self._store.client.options(request_timeout=self._settings.timeout)

    async def _async_client(self) -> Any:
        store = self._store_of_loop()
        await store._ensure_initialized_async()
        return store.async_client.options(request_timeout=self._settings.timeout)

    def _options(self) -> dict[str, Any]:
        return {}

    def _engine_filters(self, filters: dict[str, Any]) -> dict[str, Any]:
        return _normalize_filters(filters)

    def _returned(self, field: KeyTokenField, *, with_tokens: bool) -> dict[str, Any]:
        name = self._name
        if not with_tokens:
            return {"_source": {"excludes": [name]}}
        # Elasticsearch 9 leaves vectors out of `_source` unless the index says otherwise; `fields` has them always
        return {"_source": {"excludes": [name]}, "fields": [name]} if field.type == "sparse_vector" else {}

    def _document(self, hit: dict[str, Any]) -> Document:
        tokens = hit.get("fields", {}).get(self._name)
        document = self._store._deserialize_document(hit)
        if tokens and not (self._store._sparse_vector_field == self._name and document.sparse_embedding):
            return replace(document, meta={**document.meta, self._name: tokens[0]})
        return document
