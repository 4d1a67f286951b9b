# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Key tokens for the documents of an index that has dense vectors, from these, without embedding anything again."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any

import msgspec
import numpy as np
from haystack.document_stores.types import DocumentStore
from numpy.typing import NDArray
from tqdm import tqdm

from keytok_haystack.engines import MappingError, check_field_name, index_definition, key_token_field
from keytok_haystack.engines.connection import PATIENCE, Connection, connected
from keytok_haystack.engines.mapping import dense_fields
from keytok_haystack.live_index.mappings import change_mappings, forget_model, mappings_of, planned_changes
from keytok_haystack.live_index.rewrite import AS_IT_SHOULD_BE, Change, Failure, Outcome, rewrite
from keytok_haystack.live_index.scan import StoredDocument, check_sources, scan
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.sparse_vectors.rank_features import truncate_weights
from keytok_haystack.utils.checks import check_embeddings, check_texts

_NO_EMBEDDING = "no embedding"


@dataclass(frozen=True)
class Fields:
    """
    Which fields of an index hold what.

    :param embedding: The dense vectors, which stay as they are.
    :param content: The texts; their own tokens join what the embeddings say. Documents may lack it.
    :param key_tokens: The key tokens.
    """

    embedding: str = "embedding"
    content: str = "content"
    key_tokens: str = "key_tokens"

    def __post_init__(self) -> None:
        """Refuse names that are no names of fields at the root of documents, or are the same."""
        check_field_name(self.key_tokens)
        names = (self.embedding, self.content, self.key_tokens)
        _check_root(*names)
        if len({*names}) < len(names):
            msg = f"Embedding, content and key tokens must be three different fields, not {', '.join(names)}."
            raise ValueError(msg)


@dataclass(frozen=True)
class Report:
    """
    What has become of the documents of an index.

    :param documents: How many there are.
    :param written: How many have been changed.
    :param already: How many were as they should be.
    :param without_embedding: How many have no embedding, and so were left alone.
    :param failed: How many could not be changed.
    :param failures: The first 1,000 of those, and why.
    :param seconds: How long it took.
    """

    documents: int
    written: int
    already: int
    without_embedding: int
    failed: int
    failures: list[Failure]
    seconds: float


@dataclass(frozen=True)
class Trial:
    """
    What a backfill would do, as its first documents show.

    :param documents: How many documents there are.
    :param tried: How many were tried.
    :param already: How many of those are as they should be.
    :param without_embedding: How many of those have no embedding.
    :param failures: Those that could not be changed, and why.
    :param examples: The texts of a few, and their key tokens.
    """

    documents: int
    tried: int
    already: int
    without_embedding: int
    failures: list[Failure]
    examples: list[tuple[str, dict[str, float]]]


def _check_root(*names: str) -> None:
    """Raise a `ValueError` where a name is not that of a field at the root of documents."""
    for name in names:
        if "." in name or not name:
            msg = f"'{name}' is no field at the root of documents: fields inside others cannot be filled."
            raise ValueError(msg)


def backfill(
    store: DocumentStore,
    model: KeyTokenModel,
    fields: Fields = Fields(),
    *,
    resume: bool = False,
    patience: float = PATIENCE,
    progress_bar: bool = True,
) -> Report:
    """
    Give the documents of an index key tokens, made of the dense vectors that are stored there.

    The field is added to the live mapping. Each document's other fields survive byte for byte; its field of key tokens
    is replaced as a whole. A document that others change meanwhile is read and written again. Running it twice changes
    nothing, and after whatever has ended it, it can be run again.

    :param store: An `OpenSearchDocumentStore` or `ElasticsearchDocumentStore` over an index that exists.
    :param model: The model, for embeddings of the kind that is stored.
    :param fields: Which fields hold what.
    :param resume: Leave documents alone that have key tokens, whatever these are, without projecting them: to go on
        quickly after an interruption.
    :param patience: For how many seconds an engine that goes away or is busy is waited for.
    :param progress_bar: Whether to show a progress bar.
    :raises TypeError: The store is of another kind.
    :raises MappingError: The index has no such embeddings, does not keep whole documents, or has the field already, of
        another type or for another model. Nothing is written then.
    :raises DocumentStoreError: The engine cannot be reached, stays away, or refuses.
    """
    started = time.perf_counter()
    with connected(store, patience) as connection:
        change_mappings(connection, _checked_changes(connection, model, fields))
        projection = _Projection(model, fields, resume=resume)
        outcome = rewrite(connection, projection, description="Finding key tokens", progress_bar=progress_bar)
    return _report(outcome, started)


def trial(
    store: DocumentStore,
    model: KeyTokenModel,
    fields: Fields = Fields(),
) -> Trial:
    """
    Say what a backfill would do, without changing anything.

    :param store: As for `backfill`.
    :param model: The model.
    :param fields: Which fields hold what.
    :raises MappingError: `backfill` would refuse the index.
    :raises DocumentStoreError: The engine cannot be reached, or refuses.
    """
    with connected(store, patience=0) as connection:
        _checked_changes(connection, model, fields)
        with scan(connection, {"match_all": {}}) as (total, pages):
            page = next(pages, [])
    projection = _Projection(model, fields, resume=False)
    changes = projection(page)
    changed = [(document, change) for document, change in zip(page, changes, strict=True) if isinstance(change, dict)]
    return Trial(
        documents=total,
        tried=len(page),
        already=changes.count(AS_IT_SHOULD_BE),
        without_embedding=changes.count(_NO_EMBEDDING),
        failures=[change for change in changes if isinstance(change, Failure)],
        examples=[
            (_text(document, fields), msgspec.json.decode(change[fields.key_tokens], type=dict[str, float]))
            for document, change in changed[:3]
        ],
    )


def drop(store: DocumentStore, field: str, *, patience: float = PATIENCE, progress_bar: bool = True) -> Report:
    """
    Take a field of key tokens out of all documents of an index, when another has taken its place.

    No engine can take the field out of the mapping, too; it is free there for another model.

    :param store: As for `backfill`.
    :param field: The field of key tokens.
    :param patience: For how many seconds an engine that goes away or is busy is waited for.
    :param progress_bar: Whether to show a progress bar.
    :raises MappingError: The index has no such field, or it is not one of key tokens.
    :raises DocumentStoreError: The engine cannot be reached, stays away, or refuses.
    """
    _check_root(field)
    started = time.perf_counter()
    with connected(store, patience) as connection:
        live = mappings_of(connection)
        for name, mappings in live.items():
            key_token_field(mappings, field, name)
        check_sources(live)

        def without_field(documents: Sequence[StoredDocument]) -> list[Change]:
            return [
                {name: value for name, value in document.source.items() if name != field}
                if field in document.source
                else AS_IT_SHOULD_BE
                for document in documents
            ]

        outcome = rewrite(connection, without_field, description="Dropping key tokens", progress_bar=progress_bar)
        if not outcome.failed:
            forget_model(connection, field)
    return _report(outcome, started)


def sample(
    store: DocumentStore,
    size: int,
    fields: Fields = Fields(),
    *,
    progress_bar: bool = True,
) -> tuple[list[str], NDArray[np.float32]]:
    """
    Draw documents of an index at random, to fit a model to their texts and embeddings.

    :param store: As for `backfill`.
    :param size: How many to draw at most.
    :param fields: Which fields hold what.
    :param progress_bar: Whether to show a progress bar.
    :returns: The texts, and the embeddings, shape `(n, d)`. Documents without either are left out.
    :raises MappingError: The index has no such embeddings.
    :raises ValueError: No document has a text and a usable embedding.
    :raises DocumentStoreError: The engine cannot be reached, goes away, or refuses.
    """
    texts: list[str] = []
    embeddings: list[NDArray[np.float32]] = []
    random = {"function_score": {"random_score": {"seed": 0, "field": "_seq_no"}}}
    wanted = [fields.embedding, fields.content]
    with connected(store) as connection:
        dimension = _embedding_dimension(mappings_of(connection), fields, connection.index)
        with (
            scan(connection, random, fields=wanted, by_score=True) as (total, pages),
            tqdm(total=min(size, total), desc="Reading", unit=" documents", disable=not progress_bar) as progress,
        ):
            for document in chain.from_iterable(pages):
                with suppress(ValueError):  # what cannot be read cannot be fitted to, either
                    if _has(document, fields.embedding) and (text := _text(document, fields)):
                        embeddings.append(_embedding(document, fields, dimension))
                        dimension = len(embeddings[0])
                        texts.append(text)
                        progress.update()
                if len(texts) == size:
                    break
    if not texts:
        msg = f"No document has both '{fields.embedding}' and '{fields.content}', so nothing can be fitted."
        raise ValueError(msg)
    return texts, np.array(embeddings)


class _Projection:
    """What becomes of documents that get key tokens."""

    def __init__(self, model: KeyTokenModel, fields: Fields, *, resume: bool) -> None:
        self._model = model
        self._fields = fields
        self._resume = resume

    def __call__(self, documents: Sequence[StoredDocument]) -> list[Change]:
        changes: list[Change] = []
        projected: list[int] = []
        embeddings, texts = [], []
        for position, document in enumerate(documents):
            if self._resume and _has_tokens(document, self._fields):
                changes.append(AS_IT_SHOULD_BE)
            elif not _has(document, self._fields.embedding):
                changes.append(_NO_EMBEDDING)
            else:
                try:
                    embedding = _embedding(document, self._fields, self._model.dimension)
                    text = _text(document, self._fields)
                except ValueError as error:
                    changes.append(Failure(document.id, str(error)))
                    continue
                changes.append(AS_IT_SHOULD_BE)
                projected.append(position)
                embeddings.append(embedding)
                texts.append(text)
        if projected:
            tokens = self._model.document_tokens(self._model.encode_documents(np.array(embeddings), texts))
            for position, new in zip(projected, tokens, strict=True):
                if not self._are_stored(new, documents[position]):
                    changes[position] = self._with_tokens(documents[position], new)
        return changes

    def _are_stored(self, tokens: dict[str, float], document: StoredDocument) -> bool:
        """Whether a document has these tokens, with weights that score the same."""
        if not _has(document, self._fields.key_tokens):
            return False
        try:
            stored = msgspec.json.decode(document.source[self._fields.key_tokens], type=dict[str, float])
        except msgspec.MsgspecError:
            return False
        if stored.keys() != tokens.keys():
            return False
        same = truncate_weights([stored[key] for key in tokens]) == truncate_weights(list(tokens.values()))
        return bool(same.all())

    def _with_tokens(self, document: StoredDocument, tokens: dict[str, float]) -> Change:
        return {**document.source, self._fields.key_tokens: msgspec.Raw(msgspec.json.encode(tokens))}


def _has(document: StoredDocument, field: str) -> bool:
    return field in document.source and bytes(document.source[field]) != b"null"


def _has_tokens(document: StoredDocument, fields: Fields) -> bool:
    return _has(document, fields.key_tokens) and bytes(document.source[fields.key_tokens]) != b"{}"


def _embedding(document: StoredDocument, fields: Fields, dimension: int | None) -> NDArray[np.float32]:
    """
    Return the embedding of a document, shape `(d,)`.

    :raises ValueError: It is unusable.
    """
    try:
        numbers = msgspec.json.decode(document.source[fields.embedding], type=list[float])
    except msgspec.MsgspecError as error:
        msg = f"'{fields.embedding}' is not a list of numbers: {error}"
        raise ValueError(msg) from error
    embedding: NDArray[np.float32] = check_embeddings([numbers], dimension)[0]
    return embedding


def _text(document: StoredDocument, fields: Fields) -> str:
    """
    Return the text of a document, "" if it has none.

    :raises ValueError: It is unusable.
    """
    if not _has(document, fields.content):
        return ""
    try:
        text = msgspec.json.decode(document.source[fields.content], type=str)
    except msgspec.MsgspecError as error:
        msg = f"'{fields.content}' is not a text: {error}"
        raise ValueError(msg) from error
    check_texts([text])
    return text


def _checked_changes(connection: Connection, model: KeyTokenModel, fields: Fields) -> dict[str, dict[str, Any]]:
    """Return the changes of mappings that a backfill needs, after it is known that nothing speaks against it."""
    live = mappings_of(connection)
    check_sources(live)
    dimension = _embedding_dimension(live, fields, connection.index)
    if dimension is not None and dimension != model.dimension:
        msg = (
            f"The field '{fields.embedding}' of '{connection.index}' has {dimension} dimensions, but the model reads "
            f"embeddings of {model.dimension}: it was made for another embedder."
        )
        raise MappingError(msg)
    definition = index_definition(connection.engine, None, model, field=fields.key_tokens, version=connection.version)
    return planned_changes(live, definition, fields.key_tokens, model.fingerprint)


def _embedding_dimension(live: Mapping[str, Mapping[str, Any]], fields: Fields, index: str) -> int | None:
    """
    Return the dimension of the embeddings, if the mapping says it.

    :param live: What `mappings_of` returns.
    :param fields: Which fields hold what.
    :param index: The name of the index, or of an alias, for messages.
    :raises MappingError: An index has no such field, or indices of an alias have different dimensions.
    """
    dimensions = set()
    for name, mappings in live.items():
        if (found := mappings.get("properties", {}).get(fields.embedding)) is None:
            vectors = ", ".join(f"'{field}'" for field in dense_fields(mappings)) or "none"
            msg = (
                f"The index '{name}' has no field '{fields.embedding}' for embeddings. Its fields of dense vectors: "
                f"{vectors}; --embedding-field names another."
            )
            raise MappingError(msg)
        dimensions |= {found[name] for name in ("dimension", "dims") if name in found}
    if len(dimensions) > 1:
        msg = f"The indices behind '{index}' have embeddings of different dimensions: {sorted(dimensions)}."
        raise MappingError(msg)
    return next(iter(dimensions), None)


def _report(outcome: Outcome, started: float) -> Report:
    return Report(
        documents=outcome.read,
        written=outcome.written,
        already=outcome.left[AS_IT_SHOULD_BE],
        without_embedding=outcome.left[_NO_EMBEDDING],
        failed=outcome.failed,
        failures=outcome.failures,
        seconds=time.perf_counter() - started,
    )
