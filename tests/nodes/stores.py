# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Document stores over indices of their own, on whatever engine a test asks for."""

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen
from uuid import uuid4

from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack_integrations.document_stores.elasticsearch import ElasticsearchDocumentStore
from haystack_integrations.document_stores.opensearch import OpenSearchDocumentStore

from keytok_haystack import KeyTokenModel
from keytok_haystack.engines import Engine, index_definition
from keytok_haystack.engines.connection import Connection, connected, document_store

STORES = ("in-memory", "opensearch", "opensearch-knn", "elasticsearch-7", "elasticsearch-8", "elasticsearch-9")
ENGINE_STORES = STORES[1:]
DENSE_STORES = ("opensearch-knn", "elasticsearch-8", "elasticsearch-9")
"""The test nodes that have dense vectors."""


def engine_of(kind: str) -> Engine:
    return "opensearch" if kind.startswith("opensearch") else "elasticsearch"


def connection_to(engine: Engine, url: str, index: str) -> AbstractContextManager[Connection]:
    return connected(document_store(engine, url, index))


class StoreFactory:
    """Makes document stores, each over a new index, and removes the indices in the end."""

    def __init__(self, engine_url: Callable[[str], str]) -> None:
        self._engine_url = engine_url
        self._cleanup = ExitStack()

    def url(self, kind: str) -> str:
        return self._engine_url(kind)

    def definition(
        self, kind: str, *, dimension: int | None, model: KeyTokenModel | None, field: str, **options: Any
    ) -> dict[str, Any]:
        """What `index_definition` says for the version of that engine, but quick to refresh."""
        with connection_to(engine_of(kind), self.url(kind), "any") as connection:
            version = connection.version
        definition = index_definition(engine_of(kind), dimension, model, field=field, version=version, **options)
        definition["settings"] |= {"index.refresh_interval": "50ms", "index.number_of_replicas": 0}
        return definition

    def __call__(
        self,
        kind: str,
        *,
        dimension: int | None = None,
        model: KeyTokenModel | None = None,
        field: str = "key_tokens",
        definition: dict[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """
        Return a document store over a new index.

        :param kind: One of `STORES`.
        :param dimension: The dimension of the dense vectors; only `DENSE_STORES` have any.
        :param model: The model of the key tokens.
        :param field: The field of the key tokens.
        :param definition: The index's definition, instead of the one that `index_definition` returns.
        :param options: Further init parameters of the document store.
        """
        index = f"test-{uuid4().hex[:12]}"
        if kind == "in-memory":
            return InMemoryDocumentStore(index=index, **options)
        definition = definition or self.definition(kind, dimension=dimension, model=model, field=field)
        with connection_to(engine_of(kind), self.url(kind), index) as connection:
            connection.client.indices.create(index=index, body=definition)
        self._cleanup.callback(self.delete, kind, index)
        store = OpenSearchDocumentStore if engine_of(kind) == "opensearch" else ElasticsearchDocumentStore
        return store(hosts=self.url(kind), index=index, **options)

    def delete(self, kind: str, index: str) -> None:
        with connection_to(engine_of(kind), self.url(kind), index) as connection:
            connection.client.indices.delete(index=index, ignore_unavailable=True)

    def close(self) -> None:
        self._cleanup.close()


class RawIndex:
    """
    An index as it is seen over HTTP without a client, which would parse documents: they are text here.

    :param kind: One of `ENGINE_STORES`.
    :param url: The engine's address.
    :param name: The name of an index, or of an alias.
    """

    def __init__(self, kind: str, url: str, name: str) -> None:
        self.kind = kind
        self.name = name
        self._address = f"{url}/{name}"

    def ask(self, method: str, path: str, body: str | None = None, **options: Any) -> bytes:
        """Return the answer to a request."""
        request = Request(
            f"{self._address}/{path}?{urlencode(options)}",
            None if body is None else body.encode(),
            {"Content-Type": "application/json"},
            method=method,
        )
        with urlopen(request, timeout=60) as answer:
            return bytes(answer.read())

    def write(self, sources: Mapping[str, str], **options: Any) -> None:
        """Index documents as others do: `{id: JSON}`. They are found at once."""
        lines = [line for key, source in sources.items() for line in (json.dumps({"index": {"_id": key}}), source)]
        answer = json.loads(self.ask("POST", "_bulk", "\n".join([*lines, ""]), **{"refresh": "true", **options}))
        assert not answer["errors"], answer

    def source(self, key: str, **options: Any) -> str:
        """Return a document as the engine spells it, vectors included."""
        if self.kind == "elasticsearch-9":
            options["_source_exclude_vectors"] = "false"
        return self.ask("GET", f"_source/{quote(key)}", **options).decode()

    def sources(self) -> dict[str, str]:
        """Return all documents of an index without custom routing, `{id: JSON}`."""
        return {key: self.source(key) for key in self.versions()}

    def versions(self) -> dict[str, int]:
        """Return how often documents have been written: `{id: number}`."""
        self.ask("POST", "_refresh")
        hits = json.loads(self.ask("POST", "_search", '{"size": 1000, "_source": false, "version": true}'))["hits"]
        return {hit["_id"]: hit["_version"] for hit in hits["hits"]}

    def mappings(self) -> dict[str, Any]:
        """Return the live mapping of an index."""
        (described,) = json.loads(self.ask("GET", "_mapping")).values()
        return dict(described["mappings"])

    def settings(self, **settings: Any) -> None:
        """Change settings of the index."""
        self.ask("PUT", "_settings", json.dumps({f"index.{name}": value for name, value in settings.items()}))
