# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Connections to OpenSearch and Elasticsearch, with the credentials that Haystack's document stores use."""

import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from haystack import logging
from haystack.document_stores.errors import DocumentStoreError
from haystack.document_stores.types import DocumentStore
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from keytok_haystack.engines.failures import addresses, is_transient
from keytok_haystack.engines.json_text import members
from keytok_haystack.engines.mapping import Engine
from keytok_haystack.engines.server import Server, server_of

logger = logging.getLogger(__name__)

PATIENCE = 300.0
"""Seconds to wait for an engine that is away or busy."""
_LONGEST_WAIT = 15.0

T = TypeVar("T")


class BusyError(DocumentStoreError):
    """A part of a request that an overloaded engine has turned away, and may accept later."""


class _Serializer:
    """
    JSON serializer for the engines' clients that leaves the hits of a search as bytes.

    The sources of documents are thus passed on as the engine spells them, and parsed only where they are read.
    """

    mimetype = "application/json"

    def loads(self, data: str | bytes) -> Any:
        try:
            parts = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        except msgspec.ValidationError:
            return msgspec.json.decode(data)
        except msgspec.DecodeError:
            text = data if isinstance(data, str) else data.decode()
            parts = {name: msgspec.Raw(part.encode()) for name, part in members(text).items()}
        is_search = "_shards" in parts  # and not a description of an index that is called "hits"
        return {
            name: part if is_search and name == "hits" else msgspec.json.decode(part) for name, part in parts.items()
        }

    def dumps(self, data: Any) -> Any:
        return data if isinstance(data, str | bytes) else msgspec.json.encode(data)


@dataclass(frozen=True)
class Connection:
    """
    Open connection to the index of a document store.

    :param client: Client of the engine. It retries nothing by itself, and leaves the hits of searches as bytes.
    :param server: Server of the document store.
    :param version: Version of the server, such as `(9, 5, 3)`.
    :param patience: Seconds to wait for an engine that is away or busy.
    """

    client: Any
    server: Server
    version: tuple[int, ...]
    patience: float = PATIENCE

    @property
    def engine(self) -> Engine:
        """Engine of the server."""
        return self.server.engine

    @property
    def index(self) -> str:
        """Name of the index, or of an alias of several."""
        return self.server.index

    def search(self, **options: Any) -> Any:
        """
        Search for documents as they are stored, in all shards or not at all.

        :param options: Options of the client's search.
        """
        stored = self.server.past_processing(self.version)
        return self.client.search(allow_partial_search_results=False, **stored, **options)

    def retry(self, call: Callable[[], T]) -> T:
        """
        Repeat a call with back-off until it succeeds or the patience is at its end.

        :param call: Call that may be repeated.
        :raises Exception: The last call has raised this.
        """
        return Retrying(
            retry=retry_if_exception(self._is_retryable),
            wait=wait_random_exponential(multiplier=0.2, max=_LONGEST_WAIT),
            stop=stop_after_delay(self.patience),
            before_sleep=self._log_waiting,
            reraise=True,
        )(call)

    def is_transient(self, error: BaseException) -> bool:
        """Return whether an error of the client may be gone after a while: 429, a lost connection, no answer."""
        return isinstance(error, self.server.client_errors) and is_transient(error)

    def _is_retryable(self, error: BaseException) -> bool:
        return isinstance(error, BusyError) or self.is_transient(error)

    def _log_waiting(self, state: RetryCallState) -> None:
        if state.attempt_number == 4:  # a hiccup is over by then
            logger.warning(
                "{engine} is away or busy: retrying for up to {patience:.0f} s.",
                engine=self.server.name,
                patience=self.patience,
            )


def document_store(
    engine: Engine,
    url: str,
    index: str,
    *,
    ca_cert: Path | None = None,
    verify: bool = True,
    return_embedding: bool = False,
) -> DocumentStore:
    """
    Return a document store over an index, which connects to nothing yet.

    Credentials are taken from the URL, or from the environment variables that Haystack's document stores read:
    OPENSEARCH_USERNAME and OPENSEARCH_PASSWORD, or ELASTIC_API_KEY and ELASTIC_API_KEY_ID.

    :param engine: Engine of the server.
    :param url: Address of the server.
    :param index: Name of the index, or of an alias of several.
    :param ca_cert: File with the certificates, PEM, of the authorities that may vouch for a server with https; by
        default those that the system trusts.
    :param verify: Whether a server with https has to prove who it is, before it is told credentials and documents.
    :param return_embedding: Whether documents of OpenSearch come with their embeddings, as those of Elasticsearch do.
    :raises ValueError: The file has no certificates.
    """
    tls: dict[str, Any] = {"verify_certs": verify}
    if ca_cert is not None:
        try:
            ssl.create_default_context(cafile=ca_cert)
        except OSError as error:
            msg = f"'{ca_cert}' is not a file with certificates in PEM format: {error.strerror or error}."
            raise ValueError(msg) from error
        tls["ca_certs"] = str(ca_cert)
    if not verify:
        tls["ssl_show_warn"] = False  # it was asked for
    if engine == "opensearch":
        from haystack_integrations.document_stores.opensearch import OpenSearchDocumentStore  # noqa: PLC0415  # an extra

        return OpenSearchDocumentStore(hosts=url, index=index, return_embedding=return_embedding, **tls)
    from haystack_integrations.document_stores.elasticsearch import ElasticsearchDocumentStore  # noqa: PLC0415

    # its client takes these options for https alone
    return ElasticsearchDocumentStore(hosts=url, index=index, **(tls if url.startswith("https:") else {}))


@contextmanager
def connected(store: DocumentStore, patience: float = PATIENCE) -> Iterator[Connection]:
    """
    Connect to the index of a document store, without creating it as the store itself would.

    :param store: An `OpenSearchDocumentStore` or `ElasticsearchDocumentStore`.
    :param patience: Seconds to wait for an engine that goes away or is busy.
    :raises TypeError: The store is of another kind.
    :raises DocumentStoreError: The engine cannot be reached or fails; the message is one sentence without credentials.
    """
    server = server_of(store)
    with server.connected(serializer=_Serializer(), max_retries=0) as client:
        about = client.info()["version"]
        # Elasticsearch's client notices by itself that a server is OpenSearch
        if server.engine == "opensearch" and about.get("distribution") != "opensearch":
            msg = f"The server at {addresses(server.location.hosts)} is not OpenSearch."
            raise DocumentStoreError(msg)
        version = tuple(int(part) for part in re.findall(r"\d+", about["number"])[:3])
        yield Connection(client, server, version, patience)
