# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Inspection of an index before its documents are rewritten: what is respected, warned of, or refused."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from haystack.document_stores.types import DocumentStore

from keytok_haystack.engines import MappingError
from keytok_haystack.engines.connection import Connection, connected
from keytok_haystack.live_index.scan import LostScanError, scan
from keytok_haystack.live_index.templates import Kind, kind_of, warning_of_next

_PARTIAL = ("filter", "search_routing")
_FOLLOWS = ("index.xpack.ccr.following_index", "index.plugins.replication.follower.leader_index")
_FINAL_PIPELINE, _DEFAULT_PIPELINE = "index.final_pipeline", "index.default_pipeline"
_SEARCH_PIPELINE = "index.search.default_pipeline"
_NO_PIPELINE = "_none"
_RESIZED = ("index.shrink.source.uuid", "index.resize.source.uuid")
_REBUILT_MODES = ("synthetic", "disabled")
_EMBEDDING_TYPES = ("semantic", "semantic_text")


@dataclass(frozen=True)
class Inspection:
    """
    What an index is like, whose documents are about to be rewritten.

    :param name: Name that was asked for.
    :param kind: What has this name.
    :param documents: Number of documents.
    :param is_partial: Whether only part of the documents are to be seen, by a filter or a routing of an alias, or with
        these credentials.
    :param notes: What a rewrite respects, a sentence each.
    :param warnings: What a rewrite changes for others, or leaves undone, a sentence each.
    :param mappings: Live mappings by the names of the indices.
    """

    name: str
    kind: Kind
    documents: int
    is_partial: bool
    notes: list[str]
    warnings: list[str]
    mappings: dict[str, dict[str, Any]] = field(repr=False)

    @property
    def described(self) -> str:
        """The name with what has it, and the indices behind it, for a sentence."""
        indices = list(self.mappings)
        if self.kind == "index":
            return f"the index '{self.name}'"
        shown = ", ".join(f"'{index}'" for index in indices[:3]) + (", ..." if len(indices) > 3 else "")
        return f"the {self.kind} '{self.name}' of {shown}"


def inspect_index(store: DocumentStore, field: str = "key_tokens", *, keep_versions: bool = False) -> Inspection:
    """
    Inspect an index as `backfill` and `drop` do before they write anything.

    :param store: An `OpenSearchDocumentStore` or `ElasticsearchDocumentStore` over an index that exists.
    :param field: Field of the key tokens.
    :param keep_versions: Whether documents are to be written under the versions that they have.
    :raises TypeError: The store is of another kind.
    :raises MappingError: A rewrite would lose or change something; the message says what, and the remedy.
    :raises DocumentStoreError: The engine cannot be reached, or refuses.
    """
    with connected(store) as connection:
        return inspection_of(connection, field, keep_versions=keep_versions)


def inspection_of(connection: Connection, field: str, *, keep_versions: bool, wanted: bool = True) -> Inspection:
    """
    Inspect the index of a connection.

    :param connection: Connection to the index.
    :param field: Field that is rewritten.
    :param keep_versions: Whether documents are to be written under the versions that they have.
    :param wanted: Whether documents are to have the field then.
    :raises MappingError: A rewrite would lose or change something; the message says what, and the remedy.
    """
    check_one_name(connection.index)
    described = connection.client.indices.get(index=connection.index, flat_settings=True)
    notes: list[str] = []
    warnings: list[str] = []
    hidden = connection.server.hidden(connection.client, described.keys())
    for name, index in described.items():
        _check_settings(name, index["settings"])
        _check_source(name, index, besides=field)
        if name in hidden.fields:
            msg = (
                f"These credentials see documents of the index '{name}' without some of their fields (field-level "
                "security), which would be lost by writing them back: use credentials that see all."
            )
            raise MappingError(msg)
        notes += _notes(name, index)
        warnings += _warnings(name, index)
    views = [index["aliases"][connection.index] for index in described.values() if connection.index in index["aliases"]]
    is_partial = bool(hidden.documents) or any(part in view for view in views for part in _PARTIAL)
    if is_partial:
        warnings.append(
            f"'{connection.index}' shows only part of the documents, by a filter or a routing of the alias, or to "
            "these credentials: the others stay as they are."
        )
    if warning := warning_of_next(connection, described, field, wanted=wanted):
        warnings.append(warning)
    documents = connection.retry(lambda: connection.client.count(index=connection.index))["count"]
    if not keep_versions:
        _check_versions(connection, described, documents)
    mappings = {name: index["mappings"] for name, index in described.items()}
    kind = kind_of(connection.index, described)
    return Inspection(connection.index, kind, documents, is_partial, notes, warnings, mappings)


def check_one_name(name: str) -> None:
    """
    Require the name of one index, alias or data stream.

    :raises MappingError: The name is a pattern, a list, or that of another cluster's index.
    """
    if name in ("", "_all") or name.startswith("-") or any(character in name for character in "*?,:<"):
        msg = f"'{name}' may be several indices: name one index, alias or data stream, whose documents are rewritten."
        raise MappingError(msg)


def _check_settings(name: str, settings: Mapping[str, Any]) -> None:
    """Refuse an index that cannot be written, or changes documents whenever they are written."""
    if settings.get("index.verified_before_close") == "true":
        msg = f"The index '{name}' is closed: open it first."
        raise MappingError(msg)
    for key in _FOLLOWS:
        if key in settings:
            msg = f"The index '{name}' follows another one ({key}), which alone can change it: rewrite that one."
            raise MappingError(msg)
    for key, value in settings.items():
        if key.startswith("index.blocks.") and value == "true":
            msg = f"The index '{name}' cannot be rewritten while its setting {key} is on: switch it off first."
            raise MappingError(msg)
    if (pipeline := settings.get(_FINAL_PIPELINE, _NO_PIPELINE)) != _NO_PIPELINE:
        msg = (
            f"The index '{name}' runs its final pipeline '{pipeline}' at every write, so a rewrite would change other "
            f"fields, too: set {_FINAL_PIPELINE} to {_NO_PIPELINE} while documents are rewritten."
        )
        raise MappingError(msg)


def _check_source(name: str, index: Mapping[str, Any], *, besides: str) -> None:
    """Refuse an index that does not keep its documents as they were written, besides the field that is rewritten."""
    settings, source = index["settings"], index["mappings"].get("_source", {})
    is_rebuilt = (
        settings.get("index.derived_source.enabled") == "true"
        or settings.get("index.mapping.source.mode") in _REBUILT_MODES
        or source.get("mode") in _REBUILT_MODES
        or settings.get("index.mode") in ("time_series", "logsdb")
    )
    if is_rebuilt:
        msg = (
            f"The index '{name}' does not keep documents as they were written, but rebuilds them from its fields "
            "(synthetic or derived `_source`), so writing them back would change them. Index the documents anew, with "
            "KeyTokenSparseEmbedder in the pipeline."
        )
        raise MappingError(msg)
    is_cut = source.get("enabled") is False or source.get("excludes") or source.get("includes")
    if is_cut and not leaves_out(index["mappings"], besides):
        msg = (
            f"The index '{name}' does not keep whole documents (`_source` in its mapping): the part that it leaves "
            "out cannot be read and would be lost by writing a document back. Index the documents anew, with "
            "KeyTokenSparseEmbedder in the pipeline."
        )
        raise MappingError(msg)


def leaves_out(mappings: Mapping[str, Any], field: str) -> bool:
    """Return whether documents are kept without one field alone."""
    return bool(mappings.get("_source") == {"excludes": [field]})


def _notes(name: str, index: Mapping[str, Any]) -> Iterator[str]:
    settings, mappings = index["settings"], index["mappings"]
    if (pipeline := settings.get(_DEFAULT_PIPELINE, _NO_PIPELINE)) != _NO_PIPELINE:
        yield f"The ingest pipeline '{pipeline}' of '{name}' is not run again."
    if (pipeline := settings.get(_SEARCH_PIPELINE, _NO_PIPELINE)) != _NO_PIPELINE:
        yield f"Documents of '{name}' are read past its search pipeline '{pipeline}'."
    if mappings.get("_routing", {}).get("required"):
        yield f"Documents of '{name}' keep their routing."
    if (order := settings.get("index.sort.field")) is not None:
        yield f"Documents of '{name}' stay sorted by {order if isinstance(order, str) else ', '.join(order)}."
    for nested in _fields_of(mappings, ("nested",)):
        yield f"Nested documents of '{name}' in '{nested}' are written again with theirs."


def _warnings(name: str, index: Mapping[str, Any]) -> Iterator[str]:
    for embedded in _fields_of(index["mappings"], _EMBEDDING_TYPES):
        yield f"The engine itself embeds '{embedded}' of '{name}' anew whenever a document is written."


def _fields_of(mappings: Mapping[str, Any], types: tuple[str, ...], path: str = "") -> Iterator[str]:
    """Yield the paths of fields of some types."""
    for name, about in mappings.get("properties", {}).items():
        if about.get("type") in types:
            yield path + name
        yield from _fields_of(about, types, f"{path}{name}.")


def _check_versions(connection: Connection, described: Mapping[str, Any], documents: int) -> None:
    """
    Refuse documents whose versions an outside system sets.

    Versions that an engine counts itself cannot sum to more than the operations that its shards have seen: each of
    these has its sequence number, and raises one version by one.
    """
    if any(key in index["settings"] for index in described.values() for key in _RESIZED):
        return  # shards that were merged have counted for themselves
    operations = _operations(connection)
    if operations is None:
        return
    total, largest, seen = 0, (0, ""), 0
    with scan(connection, {"match_all": {}}, fields=[]) as (_, pages):
        try:
            for page in pages:
                seen += len(page)
                total += sum(document.version for document in page)
                largest = max(largest, *((document.version, document.id) for document in page))
                if total * documents <= operations * seen:  # as few as in the mean of all
                    return
        except LostScanError:  # which the rewrite will notice, too
            return
    if total > (_operations(connection) or total):  # meanwhile there may be more
        version, key = largest
        msg = (
            f"An outside system sets the versions of the documents of '{connection.index}' (such as {version} of "
            f"'{key}'): writing counts them up, and its next changes would be refused. `--keep-versions` writes "
            "documents under the versions that they have."
        )
        raise MappingError(msg)


def _operations(connection: Connection) -> int | None:
    """Return the number of writes that the shards of an index have seen; None if it is not told."""
    with connection.server.tolerating_refusals():
        stats = connection.client.indices.stats
        indices = connection.retry(lambda: stats(index=connection.index, level="shards", metric="docs"))["indices"]
        operations: int = sum(
            max(copy["seq_no"]["max_seq_no"] for copy in copies) + 1
            for index in indices.values()
            for copies in index["shards"].values()
        )
        return operations
    return None
