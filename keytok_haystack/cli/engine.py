# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Indices of OpenSearch and Elasticsearch, reached with the credentials that Haystack's document stores use."""

import re
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, Literal

from haystack.document_stores.errors import DocumentStoreError

from haystack_integrations.components.retrievers.keytok.adapters.failures import addresses, clear_errors
from keytok_haystack.engines import Engine, MappingError, has_field, key_token_field, merged_meta, written_with


@contextmanager
def connected(engine: Engine, url: str, index: str) -> Iterator[Any]:
    """
    Give an engine's client, whose errors become one sentence.

    Credentials are taken from the URL, or from the environment variables that Haystack's document stores read:
    OPENSEARCH_USERNAME and OPENSEARCH_PASSWORD, or ELASTIC_API_KEY and ELASTIC_API_KEY_ID.

    :raises ValueError: The engine cannot be reached or cannot do what it is asked.
    """
    name = {"opensearch": "OpenSearch", "elasticsearch": "Elasticsearch"}[engine]
    try:
        client, errors = _client(engine, url)
    except (ValueError, DocumentStoreError) as error:
        place = f"{name} at {addresses(url)}"
        msg = f"{place} cannot be addressed: check the URL, such as http://localhost:9200, and the credentials."
        raise ValueError(msg) from (None if isinstance(error, ValueError) else error)  # the cause may hold a password
    try:
        with closing(client), clear_errors(errors, name, url, index):
            if engine == "opensearch" and client.info()["version"].get("distribution") != "opensearch":
                msg = f"The server at {addresses(url)} is not OpenSearch."
                raise ValueError(msg)
            yield client
    except DocumentStoreError as error:
        raise ValueError(str(error)) from error


def _client(engine: Engine, url: str) -> tuple[Any, tuple[type[Exception], ...]]:
    """Return a client, which has not connected yet, and the errors that it raises."""
    if engine == "opensearch":
        from haystack_integrations.document_stores.opensearch import OpenSearchDocumentStore  # noqa: PLC0415  # an extra
        from opensearchpy import OpenSearch  # noqa: PLC0415
        from opensearchpy.exceptions import OpenSearchException  # noqa: PLC0415

        return OpenSearch(url, http_auth=OpenSearchDocumentStore()._resolve_http_auth()), (OpenSearchException,)
    from elasticsearch import ApiError, Elasticsearch, TransportError  # noqa: PLC0415
    from haystack_integrations.document_stores.elasticsearch import ElasticsearchDocumentStore  # noqa: PLC0415

    return Elasticsearch(url, api_key=ElasticsearchDocumentStore()._handle_auth()), (ApiError, TransportError)


def server_version(client: Any) -> tuple[int, ...]:
    """Return the version of the server, such as `(9, 5, 3)`."""
    return tuple(int(part) for part in re.findall(r"\d+", client.info()["version"]["number"])[:3])


def create_index(
    client: Any, index: str, definition: Mapping[str, Any], field: str
) -> Literal["created", "extended", "marked", "kept"]:
    """
    Create an index, or add a field of key tokens to one that exists, or to all behind an alias.

    Of an index that exists nothing else is changed: neither its settings nor its other fields. Where the field is
    there already, its model is noted in the mapping.

    :param definition: What `index_definition` returns.
    :raises MappingError: The index has the field, of another type or for another model; nothing is changed then.
    :raises ValueError: The name is a pattern that matches no index.
    """
    if not client.indices.exists(index=index):
        client.indices.create(index=index, body=definition)
        return "created"
    wanted = definition["mappings"]
    fields, marks = {}, {}
    indices = client.indices.get_mapping(index=index)
    if not indices:
        msg = f"No index matches '{index}'."
        raise ValueError(msg)
    for name, described in indices.items():
        existing = described["mappings"]
        meta = merged_meta(existing.get("_meta", {}), wanted["_meta"])
        if not has_field(existing, field):
            fields[name] = {"properties": {field: wanted["properties"][field]}, "_meta": meta}
            continue
        fingerprint = key_token_field(existing, field, name).fingerprint
        if fingerprint is None:
            marks[name] = {"_meta": meta}
        elif fingerprint != written_with(wanted, field):
            msg = (
                f"The field '{field}' of the index '{name}' is written with the key-token model {fingerprint}, not "
                f"{written_with(wanted, field)}. Add another field beside it: --field {field}_v2."
            )
            raise MappingError(msg)
    for name, change in {**fields, **marks}.items():
        client.indices.put_mapping(index=name, body=change)
    return "extended" if fields else "marked" if marks else "kept"
