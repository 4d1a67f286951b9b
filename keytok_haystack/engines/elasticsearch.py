# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Servers of Elasticsearch: all that is particular to it and its client."""

from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from elasticsearch import ApiError, Elasticsearch, TransportError
from haystack_integrations.document_stores.elasticsearch import ElasticsearchDocumentStore

from keytok_haystack.engines.server import TIMEOUT, Hidden, Server
from keytok_haystack.inverted_index import BM25_K1

_EXCLUDE_VECTORS = "index.mapping.exclude_source_vectors"


class ElasticsearchServer(Server):
    """Elasticsearch server of an `ElasticsearchDocumentStore`."""

    engine = "elasticsearch"
    name = "Elasticsearch"
    client_errors = (ApiError, TransportError)
    field_types = ("rank_features", "sparse_vector")
    bm25_factor = BM25_K1 + 1  # which Lucene's formula had before version 8, and Elasticsearch has kept
    first_with_named_scores = ((8, 8), (8, 8))
    _store: ElasticsearchDocumentStore

    def connect(self, **options: Any) -> Elasticsearch:
        """Return a new client."""
        return Elasticsearch(
            self._store._hosts,
            api_key=self._store._handle_auth(),
            headers=self._store._headers,
            **{"request_timeout": TIMEOUT, **self._store._kwargs, **options},
        )

    def hidden(self, client: Elasticsearch, indices: Collection[str]) -> Hidden:
        """Return what field-level and document-level security hide: no role of this user shows it."""
        privileges: list[Mapping[str, Any]] = []
        with self.tolerating_refusals():  # without the security features, or with an API key
            privileges = client.security.get_user_privileges()["indices"]
        hidden = Hidden(fields=[], documents=[])
        for index in indices:
            reads = [each for each in privileges if _allows_reading(each, (index, self.index))]
            if reads and not any(_shows_all_fields(each.get("field_security", ())) for each in reads):
                hidden.fields.append(index)
            if reads and all(each.get("query") for each in reads):
                hidden.documents.append(index)
        return hidden

    def leaves_vectors_out(self, client: Elasticsearch, *, unasked: bool = False) -> bool:
        """Return whether vectors are left out of the `_source` of documents, as by default from version 9.2 on."""
        described = client.indices.get_settings(index=self.index, include_defaults=True, flat_settings=True)
        return any(
            not (unasked and _EXCLUDE_VECTORS in settings["settings"])
            and {**settings.get("defaults", {}), **settings["settings"]}.get(_EXCLUDE_VECTORS) == "true"
            for settings in described.values()
        )


def _allows_reading(privileges: Mapping[str, Any], names: tuple[str, str]) -> bool:
    """Return whether privileges are for an index, by its own name or another one, and allow to read it."""
    patterns = privileges["names"]
    is_for = any(fnmatchcase(name, pattern) for name in names for pattern in patterns) or any(
        pattern.startswith("/")
        for pattern in patterns  # a regular expression of Lucene's
    )
    return is_for and any(each in ("all", "read") or each.startswith("indices:") for each in privileges["privileges"])


def _shows_all_fields(security: Iterable[Mapping[str, Any]]) -> bool:
    return all("*" in each.get("grant", ["*"]) and not each.get("except") for each in security)
