# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Connections to OpenSearch and Elasticsearch, with the credentials that Haystack's document stores use."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from haystack import logging
from haystack.document_stores.errors import DocumentStoreError
from haystack.document_stores.types import DocumentStore
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from haystack_integrations.components.retrievers.keytok.adapters import adapter_class
from haystack_integrations.components.retrievers.keytok.adapters.engine import EngineAdapter
from keytok_haystack.engines.failures import addresses, is_transient
from keytok_haystack.engines.json_text import members
from keytok_haystack.engines.mapping import Engine

logger = logging.getLogger(__name__)

PATIENCE = 300.0
_LONGEST_WAIT = 15.0

T = TypeVar("T")


class BusyError(DocumentStoreError):
    """An engine has turned away a part of what it was given, and may take it later."""


class _Serializer:
    """
    JSON as the engines' clients need it, except that the hits of a search stay bytes.

    So the sources of documents are passed on as the engine spells them, and parsed only where they are read.
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
        is_search = "_shards" in parts  # not what tells of an index that is called "hits"
        return {
            name: part if is_search and name == "hits" else msgspec.json.decode(part) for name, part in parts.items()
        }

    def dumps(self, data: Any) -> Any:
        return data if isinstance(data, str | bytes) else msgspec.json.encode(data)


@dataclass(frozen=True)
class Connection:
    """
    An open connection to an engine.

    :param client: The engine's client. It retries nothing by itself, and leaves the hits of searches as bytes.
    :param engine: The engine.
    :param version: The version of the server, such as `(9, 5, 3)`.
    :param index: The index in question, or an alias of several.
    :param adapter: What is particular to the engine and its client.
    :param patience: For how many seconds an engine that is away or busy is waited for.
    """

    client: Any
    engine: Engine
    version: tuple[int, ...]
    index: str
    adapter: type[EngineAdapter]
    patience: float = PATIENCE

    def retry(self, call: Callable[[], T]) -> T:
        """
        Call again, with back-off, what can be called again, until it succeeds or the patience is at its end.

        :raises Exception: What the last call has raised.
        """
        return Retrying(
            retry=retry_if_exception(self._is_retryable),
            wait=wait_random_exponential(multiplier=0.2, max=_LONGEST_WAIT),
            stop=stop_after_delay(self.patience),
            before_sleep=self._log_waiting,
            reraise=True,
        )(call)

    def is_transient(self, error: BaseException) -> bool:
        """Whether an error of the client may be gone after a while: 429, a connection that was lost, no answer."""
        return isinstance(error, self.adapter.client_errors) and is_transient(error)

    def _is_retryable(self, error: BaseException) -> bool:
        return isinstance(error, BusyError) or self.is_transient(error)

    def _log_waiting(self, state: RetryCallState) -> None:
        if state.attempt_number == 4:  # a hiccup is over by then
            logger.warning(
                "{engine} is away or busy: it is asked again for up to {patience:.0f} s.",
                engine=self.engine,
                patience=self.patience,
            )


def document_store(engine: Engine, url: str, index: str) -> DocumentStore:
    """
    Return a document store of an index, which connects to nothing yet.

    Credentials are taken from the URL, or from the environment variables that Haystack's document stores read:
    OPENSEARCH_USERNAME and OPENSEARCH_PASSWORD, or ELASTIC_API_KEY and ELASTIC_API_KEY_ID.
    """
    if engine == "opensearch":
        from haystack_integrations.document_stores.opensearch import OpenSearchDocumentStore  # noqa: PLC0415  # an extra

        return OpenSearchDocumentStore(hosts=url, index=index)
    from haystack_integrations.document_stores.elasticsearch import ElasticsearchDocumentStore  # noqa: PLC0415

    return ElasticsearchDocumentStore(hosts=url, index=index)


@contextmanager
def connected(store: DocumentStore, patience: float = PATIENCE) -> Iterator[Connection]:
    """
    Connect to the index of a document store, without creating it as the store itself would.

    :param store: An `OpenSearchDocumentStore` or `ElasticsearchDocumentStore`.
    :param patience: For how many seconds an engine that goes away or is busy is waited for.
    :raises TypeError: The store is of another kind.
    :raises DocumentStoreError: What goes wrong with the engine, in one sentence without credentials.
    """
    adapter = adapter_class(store)
    if not issubclass(adapter, EngineAdapter):
        msg = f"A {type(store).__name__} is no index of OpenSearch or Elasticsearch."
        raise TypeError(msg)
    with adapter.connected(store, serializer=_Serializer(), max_retries=0) as client:
        engine: Engine = "opensearch" if adapter.engine == "OpenSearch" else "elasticsearch"
        about = client.info()["version"]
        # Elasticsearch's client notices the other way round by itself
        if engine == "opensearch" and about.get("distribution") != "opensearch":
            msg = f"The server at {addresses(store._hosts)} is not OpenSearch."  # type: ignore[attr-defined]
            raise DocumentStoreError(msg)
        version = tuple(int(part) for part in re.findall(r"\d+", about["number"])[:3])
        yield Connection(client, engine, version, store._index, adapter, patience)  # type: ignore[attr-defined]
