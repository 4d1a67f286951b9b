# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Documents as an engine has stored them: their fields stay as they are spelled."""

import json
from typing import Any

import msgspec

from keytok_haystack.engines.json_text import elements, members


class StoredDocument(msgspec.Struct, frozen=True, rename=lambda name: f"_{name}"):
    """
    Document as an engine returns it.

    :param version: Number that counts its changes, or is set by an outside system.
    :param source: Fields, as they are spelled in `_source`.
    :param sort: Position in the order of a scan.
    """

    id: str
    index: str
    seq_no: int
    primary_term: int
    version: int
    source: dict[str, msgspec.Raw] = {}
    routing: str | None = None
    sort: list[Any] = msgspec.field(default_factory=list, name="sort")

    def has(self, field: str) -> bool:
        """Return whether the document has a value, other than null, in a field."""
        return field in self.source and bytes(self.source[field]) != b"null"


class Hits(msgspec.Struct):
    """
    Hits of a search.

    :param hits: Documents of one page.
    :param total: Number of documents that match, as the engine describes it.
    """

    hits: list[StoredDocument]
    total: dict[str, Any] = {}


def hits_of(answer: Any) -> Hits:
    """Return the hits of a search whose client leaves them as bytes."""
    try:
        return msgspec.json.decode(answer["hits"], type=Hits)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        return _cut_hits(bytes(answer["hits"]).decode())


def _cut_hits(text: str) -> Hits:
    """Return hits that msgspec refuses to read."""
    parts = members(text)
    documents = []
    for hit in map(members, elements(parts["hits"])):
        about = {name: json.loads(value) for name, value in hit.items() if name != "_source"}
        source = {name: msgspec.Raw(value.encode()) for name, value in members(hit.get("_source", "{}")).items()}
        documents.append(
            StoredDocument(
                id=about["_id"],
                index=about["_index"],
                seq_no=about["_seq_no"],
                primary_term=about["_primary_term"],
                version=about["_version"],
                source=source,
                routing=about.get("_routing"),
                sort=about.get("sort", []),
            )
        )
    return Hits(documents, json.loads(parts.get("total", "{}")))
