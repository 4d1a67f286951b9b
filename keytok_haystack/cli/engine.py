# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Indices of OpenSearch and Elasticsearch, reached with the credentials that Haystack's document stores use."""

import re
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, Literal

from haystack.document_stores.errors import DocumentStoreError

from haystack_integrations.components.retrievers.keytok.adapters.failures import clear_errors
from keytok_haystack.engines import Engine, MappingError, key_token_field, merged_meta


@contextmanager
def connected(engine: Engine, url: str, index: str) -> Iterator[Any]:
    """
    Give an engine's client, whose errors become one sentence.

    Credentials are taken from the URL, or from the environment variables that Haystack's document stores read:
    OPENSEARCH_USERNAME and OPENSEARCH_PASSWORD, or ELASTIC_API_KEY and ELASTIC_API_KEY_ID.

    :raises ValueError: The engine cannot be reached or cannot do what it is asked.
    """
    if engine == "opensearch":
        from haystack_integrations.document_stores.opensearch import OpenSearchDocumentStore  # noqa: PLC0415  # an extra
        from opensearchpy import OpenSearch  # noqa: PLC0415
        from opensearchpy.exceptions import OpenSearchException  # noqa: PLC0415

        name = "OpenSearch"
        errors: tuple[type[Exception], ...] = (OpenSearchException,)
        client: Any = OpenSearch(url, http_auth=OpenSearchDocumentStore()._resolve_http_auth())
    else:
        from elasticsearch import ApiError, Elasticsearch, TransportError  # noqa: PLC0415
        from haystack_integrations.document_stores.elasticsearch import ElasticsearchDocumentStore  # noqa: PLC0415

        name, errors = "Elasticsearch", (ApiError, TransportError)
        client = Elasticsearch(url, api_key=ElasticsearchDocumentStore()._handle_auth())
    try:
        with closing(client), clear_errors(errors, name, url, index):
            yield client
    except DocumentStoreError as error:
        raise ValueError(str(error)) from error


def server_version(client: Any) -> tuple[int, ...]:
    """Return the version of the server, such as `(9, 5, 3)`."""
    return tuple(int(part) for part in re.findall(r"\d+", client.info()["version"]["number"])[:3])


def create_index(
    client: Any, index: str, definition: Mapping[str, Any], field: str
) -> Literal["created", "extended", "kept"]:
    """
    Create an index, or add a field of key tokens to one that exists.

    Of an index that exists nothing else is changed: neither its settings nor its other fields.

    :param definition: What `index_definition` returns.
    :raises MappingError: The index has the field, of another type or for another model.
    """
    if not client.indices.exists(index=index):
        client.indices.create(index=index, body=definition)
        return "created"
    wanted = definition["mappings"]
    added = {"properties": {field: wanted["properties"][field]}}
    answer: Literal["extended", "kept"] = "kept"
    for name, described in client.indices.get_mapping(index=index).items():
        mappings, meta = described["mappings"], merged_meta(described["mappings"].get("_meta", {}), wanted["_meta"])
        if field in mappings.get("properties", {}):
            _check_same_model(key_token_field(mappings, field, name).fingerprint, wanted, field, name)
        if field not in mappings.get("properties", {}) or mappings.get("_meta") != meta:
            client.indices.put_mapping(index=name, body={**added, "_meta": meta})
            answer = "extended"
    return answer


def _check_same_model(fingerprint: str | None, wanted: Mapping[str, Any], field: str, index: str) -> None:
    wanted_fingerprint = key_token_field(wanted, field, index).fingerprint
    if fingerprint not in (None, wanted_fingerprint):
        msg = (
            f"The field '{field}' of the index '{index}' is written with the key-token model {fingerprint}, not "
            f"{wanted_fingerprint}. Add another field beside it: --field {field}_v2."
        )
        raise MappingError(msg)
