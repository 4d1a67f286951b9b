# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Servers of OpenSearch and Elasticsearch, found by the document store: one module for each engine."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from http import HTTPStatus
from pkgutil import resolve_name
from typing import Any, ClassVar, NamedTuple

from haystack import logging
from haystack.document_stores.errors import DocumentStoreError
from haystack.document_stores.types import DocumentStore

from keytok_haystack.engines.failures import Location, clear_errors, is_transient_status
from keytok_haystack.engines.mapping import Engine, FieldType
from keytok_haystack.utils.classes import entry_for

logger = logging.getLogger(__name__)

TIMEOUT = 60.0
"""Seconds until a request fails, if the document store names no timeout; OpenSearch's client would wait for ever."""
CONNECTIONS = 4
"""Number of connections of a client that threads share; OpenSearch's client would have one."""
_UNKNOWN = (0, 0)

_SERVERS = {
    "haystack_integrations.document_stores.opensearch.document_store.OpenSearchDocumentStore": (
        "keytok_haystack.engines.opensearch:OpenSearchServer"
    ),
    "haystack_integrations.document_stores.elasticsearch.document_store.ElasticsearchDocumentStore": (
        "keytok_haystack.engines.elasticsearch:ElasticsearchServer"
    ),
}


class NamedScores(NamedTuple):
    """
    Which scores of named queries a server tells for each hit.

    :param tokens: Those of queries that find documents, as each token's.
    :param rescoring: Those of queries by which the best are scored again, as BM25 beside cosines.
    """

    tokens: bool
    rescoring: bool


class Hidden(NamedTuple):
    """
    What a server hides of indices.

    :param fields: Indices whose documents come without some of their fields.
    :param documents: Indices of which some documents are not to be seen.
    """

    fields: list[str]
    documents: list[str]


class Server(ABC):
    """
    Server that holds the index of a document store: all that is particular to its engine and the engine's client.

    :param store: Document store, whose address and credentials are used. Nothing is connected to until `connected`.
    """

    engine: ClassVar[Engine]
    name: ClassVar[str]
    """Name of the engine, for messages."""
    client_errors: ClassVar[tuple[type[Exception], ...]]
    """Errors that the engine's client raises."""
    field_types: ClassVar[tuple[FieldType, ...]]
    """Types of fields that can be searched for key tokens."""
    bm25_factor: ClassVar[float]
    """Divisor of the engine's BM25 scores that makes a share of BM25 mean the same for every store."""
    first_with_named_scores: ClassVar[tuple[tuple[int, int], tuple[int, int]]]
    """First versions that tell the scores of named queries, and those of rescoring."""

    def __init__(self, store: Any) -> None:
        self._store = store

    @property
    def location(self) -> Location:
        """Location of the index, for messages."""
        hosts = self._store._hosts
        if not hosts and "cloud_id" in self._store._kwargs:
            hosts = {"cloud_id": self._store._kwargs["cloud_id"]}
        return Location(self.name, hosts, self.index)

    @property
    def index(self) -> str:
        """Name of the index, or of an alias of several."""
        return str(self._store._index)

    @abstractmethod
    def connect(self, **options: Any) -> Any:
        """
        Return a new client with the store's address and credentials, which unlike the store's own creates no index.

        :param options: Further options of the client.
        """

    @property
    def is_unverified(self) -> bool:
        """Whether the store does not verify the server's certificate, though nobody has asked for that."""
        return False

    def leaves_vectors_out(self, client: Any, *, unasked: bool = False) -> bool:  # noqa: ARG002
        """
        Return whether the index leaves vectors out of the `_source` of documents.

        :param client: Client of the engine.
        :param unasked: Whether only that counts which no setting of the index asks for.
        """
        return False

    def past_processing(self, version: tuple[int, ...]) -> dict[str, Any]:  # noqa: ARG002
        """
        Return options of a search that returns documents as they are stored, whatever the index does to hits.

        :param version: Version of the server.
        """
        return {}

    def hidden(self, client: Any, indices: Collection[str]) -> Hidden:  # noqa: ARG002
        """
        Return what the server hides from these credentials, as far as it tells them.

        :param client: Client of the engine.
        :param indices: Names of the indices themselves behind the name of the store.
        """
        return Hidden(fields=[], documents=[])

    def check_cosines(self, version: tuple[int, int]) -> None:  # noqa: B027
        """
        Check that the server scores cosines as `DenseShare` expects.

        :param version: Version of the server, as `version` returns it.
        :raises MappingError: It does not.
        """

    def version(self, client: Any) -> tuple[int, int]:
        """Return the version of the server, major and minor; (0, 0) if it does not tell it to these credentials."""
        try:
            number = str(client.info()["version"]["number"])
        except self.client_errors as error:
            if getattr(error, "status_code", None) not in (HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND):
                raise
            return _UNKNOWN
        major, minor = number.split(".")[:2]
        return int(major), int(minor)

    def named_scores(self, version: tuple[int, int]) -> NamedScores:
        """Return which scores of named queries the server tells; none if its version is not known."""
        return NamedScores(*(version >= first for first in self.first_with_named_scores))

    @contextmanager
    def connected(self, **options: Any) -> Iterator[Any]:
        """
        Open a client with the store's address and credentials, and close it in the end.

        :param options: Further options of the client.
        :raises DocumentStoreError: Something goes wrong; the message is one sentence without credentials.
        """
        if self.is_unverified:
            logger.warning(
                "The document store does not verify the certificate of {location}: whoever answers there gets "
                "credentials and documents. Set `verify_certs` to True, or to False if that is what you want.",
                location=str(self.location),
            )
        try:
            client = self.connect(**options)
        except ValueError:
            msg = (
                f"{self.location} cannot be addressed: check the address, such as "
                "http://localhost:9200, and the credentials."
            )
            raise DocumentStoreError(msg) from None  # the cause may show a password
        with closing(client), self.clear_errors():
            yield client

    @contextmanager
    def tolerating_refusals(self) -> Iterator[None]:
        """Go on behind a request that the server does not know, or does not allow to these credentials."""
        try:
            yield
        except self.client_errors as error:
            status = getattr(error, "status_code", None)
            if not isinstance(status, int) or is_transient_status(status) or status == HTTPStatus.UNAUTHORIZED:
                raise

    def clear_errors(self) -> AbstractContextManager[None]:
        """Turn errors of the client into a `DocumentStoreError` of one sentence without credentials."""
        return clear_errors(self.client_errors, self.location)


def server_of(store: DocumentStore) -> Server:
    """
    Return the server of a document store.

    :param store: An `OpenSearchDocumentStore` or `ElasticsearchDocumentStore`.
    :raises TypeError: The store is of another kind.
    """
    path = entry_for(store, _SERVERS)
    if path is None:
        msg = f"A {type(store).__name__} is not an index of OpenSearch or Elasticsearch."
        raise TypeError(msg)
    server: Server = resolve_name(path)(store)
    return server
