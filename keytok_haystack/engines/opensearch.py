# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Servers of OpenSearch: all that is particular to it and its client."""

from typing import Any

from haystack_integrations.document_stores.opensearch import OpenSearchDocumentStore
from opensearchpy import OpenSearch
from opensearchpy.exceptions import OpenSearchException

from keytok_haystack.engines.mapping import MappingError
from keytok_haystack.engines.server import CONNECTIONS, TIMEOUT, Server

_FIRST_WITH_COSINES = (2, 19)
_FIRST_WITH_SEARCH_PIPELINES = (2, 9)
_OF_ELASTICSEARCH = 7  # `compatibility.override_main_response_version`


class OpenSearchServer(Server):
    """OpenSearch server of an `OpenSearchDocumentStore`."""

    engine = "opensearch"
    name = "OpenSearch"
    client_errors = (OpenSearchException,)
    field_types = ("rank_features",)  # OpenSearch's own `sparse_vector` is another thing
    bm25_factor = 1.0
    first_with_named_scores = ((2, 13), (3, 2))
    _store: OpenSearchDocumentStore

    @property
    def is_unverified(self) -> bool:
        """Whether the store does not verify the server's certificate, as by its default."""
        store = self._store
        hosts = store._hosts if isinstance(store._hosts, list) else [store._hosts]
        is_secure = store._use_ssl or any(_is_secure(host) for host in hosts)
        return bool(is_secure and store._verify_certs is None and "ssl_context" not in store._kwargs)

    def version(self, client: OpenSearch) -> tuple[int, int]:
        """Return the version; (0, 0) also if it is that of Elasticsearch, as which OpenSearch 2 can answer."""
        version = super().version(client)
        return (0, 0) if version[0] == _OF_ELASTICSEARCH else version

    def past_processing(self, version: tuple[int, ...]) -> dict[str, Any]:
        """Return options of a search past the search pipeline that is the index's default."""
        return {"search_pipeline": "_none"} if version >= _FIRST_WITH_SEARCH_PIPELINES else {}

    def check_cosines(self, version: tuple[int, int]) -> None:
        """Check the version: before 2.19, k-NN's script scored cosines in another way."""
        if version < _FIRST_WITH_COSINES:
            major, minor = version
            found = f"this is {major}.{minor}" if major else "this server does not tell its version"
            msg = f"Cosines of vectors need OpenSearch 2.19 or later, but {found}: set `dense_weight` to 0."
            raise MappingError(msg)

    def connect(self, **options: Any) -> OpenSearch:
        """Return a new client."""
        return OpenSearch(
            hosts=self._store._hosts,
            http_auth=self._store._resolve_http_auth(),
            use_ssl=self._store._use_ssl,
            verify_certs=self._store._verify_certs,
            timeout=self._store._timeout or TIMEOUT,
            **{"pool_maxsize": CONNECTIONS, **self._store._kwargs, **options},
        )


def _is_secure(host: Any) -> bool:
    """Return whether an address, as document stores take them, is one of https."""
    if isinstance(host, dict):
        return host.get("scheme") == "https" or bool(host.get("use_ssl"))
    return str(host).startswith("https:")
