# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
from typing import Any

from haystack import Document
from haystack_integrations.document_stores.opensearch import OpenSearchDocumentStore
from haystack_integrations.document_stores.opensearch.filters import normalize_filters

from haystack_integrations.components.retrievers.keytok.adapters.engine import EngineAdapter
from keytok_haystack.engines import KeyTokenField


class OpenSearchAdapter(EngineAdapter):
    """Search of an `OpenSearchDocumentStore`."""

    _store: OpenSearchDocumentStore

    def _client(self) -> Any:
        self._store._ensure_initialized()
        return self._store._client

    async def _async_client(self) -> Any:
        store = self._store_of_loop()
        await store._ensure_initialized_async()
        return store._async_client

    def _options(self) -> dict[str, Any]:
        return {"request_timeout": self._settings.timeout}

    def _engine_filters(self, filters: dict[str, Any]) -> dict[str, Any]:
        return normalize_filters(filters, nested_fields=self._store._resolved_nested_fields)

    def _returned(self, field: KeyTokenField, *, with_tokens: bool) -> dict[str, Any]:  # noqa: ARG002
        excluded = [*([] if self._store._return_embedding else ["embedding"]), *([] if with_tokens else [self._name])]
        return {"_source": {"excludes": excluded}} if excluded else {}

    def _document(self, hit: dict[str, Any]) -> Document:
        return self._store._deserialize_document(hit)
