# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
from contextlib import suppress
from typing import Any

from haystack import Document
from haystack_integrations.document_stores.opensearch import OpenSearchDocumentStore
from haystack_integrations.document_stores.opensearch.filters import normalize_filters
from opensearchpy.exceptions import OpenSearchException

from haystack_integrations.components.retrievers.keytok.adapters.engine import EngineAdapter
from keytok_haystack.engines import KeyTokenField


class OpenSearchAdapter(EngineAdapter):
    """
    Search an `OpenSearchDocumentStore`.

    The store has no public client: this is the one place that reaches into it.
    """

    engine = "OpenSearch"
    client_errors = (OpenSearchException,)
    bm25_factor = 1.0
    _store: OpenSearchDocumentStore

    def _client(self) -> Any:
        with suppress(StopIteration):  # of the store, where a pattern matches no index
            self._store._ensure_initialized()
        return self._store._client

    async def _async_client(self) -> Any:
        try:
            await self._store._ensure_initialized_async()
        except RuntimeError as error:
            if not isinstance(error.__cause__, StopIteration):
                raise
        return self._store._async_client

    def _engine_filters(self, filters: dict[str, Any]) -> dict[str, Any]:
        return normalize_filters(filters, nested_fields=self._store._resolved_nested_fields)

    def _returned(self, field: KeyTokenField) -> dict[str, Any]:  # noqa: ARG002
        return {} if self._store._return_embedding else {"_source": {"excludes": ["embedding"]}}

    def _document(self, hit: dict[str, Any]) -> Document:
        return self._store._deserialize_document(hit)
