# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Mappings of indices with key tokens: the definition of a new index, and the field of a live mapping."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from keytok_haystack.model import KeyTokenModel

Engine = Literal["opensearch", "elasticsearch"]
FieldType = Literal["rank_features", "sparse_vector"]
_META = "keytok"
_OTHER_FIELDS = ("id", "content", "dataframe", "blob", "meta", "score", "embedding", "sparse_embedding")
_DENSE_TYPES = ("knn_vector", "dense_vector")
_NEWEST_ELASTICSEARCH = (9, 5)
_FIRST_THAT_CHOOSES_VECTORS = (9, 2)


class MappingError(ValueError):
    """Mapping of an index that does not fit the key tokens of a search or a backfill."""


class LeanIndexError(MappingError):
    """Index whose documents come without their key tokens, although a search needs these."""


@dataclass(frozen=True)
class KeyTokenField:
    """
    Field of key tokens as an index maps it.

    :param type: Type of the field, which decides how it is searched.
    :param fingerprint: Fingerprint of the model that its documents are written with, if the mapping records it.
    :param in_source: Whether documents that are read have their key tokens, unless the engine leaves out all vectors.
    """

    type: FieldType
    fingerprint: str | None
    in_source: bool = True


def index_definition(
    engine: Engine,
    embedding_dimension: int | None,
    model: "KeyTokenModel | None",
    *,
    field: str = "key_tokens",
    graph: bool = True,
    lean: bool = False,
    version: tuple[int, ...] | None = None,
) -> dict[str, Any]:
    """
    Return the definition of an index for Haystack's documents with key tokens: `{"settings": ..., "mappings": ...}`.

    It maps the text, the dense vectors, the key tokens, and strings of `meta` as keywords, as Haystack's document
    stores do. The mappings go into `OpenSearchDocumentStore(mappings=..., settings=...)` or
    `ElasticsearchDocumentStore(custom_mapping=...)`; the latter takes no settings, so create the index beforehand
    (`keytok mapping --create`) for Elasticsearch 9.2 or later.

    :param engine: Engine of the index, "opensearch" or "elasticsearch".
    :param embedding_dimension: Dimension of the dense vectors; None for an index without dense vectors, which needs no
        k-NN plugin.
    :param model: Model that documents are written with; its fingerprint is recorded in the mapping's `_meta`. None for
        the vectors of another sparse embedder.
    :param field: Field of the key tokens, a key of `meta`.
    :param graph: Whether dense vectors have a graph (HNSW), by which the nearest are found. Without one, they are for
        the cosines of documents that are found otherwise (`SparseRetriever(dense_weight=...)`), and writing is faster.
        OpenSearch gets the smallest possible graph instead, since without any it keeps a second copy of each vector, as
        text in `_source`.
    :param lean: Whether the documents that the engine keeps beside its index (`_source`) come without key tokens, which
        saves three quarters of what these take. Hits of `SparseRetriever` are explained all the same, those of other
        retrievers are not. Elasticsearch 9.2 and later leaves out the dense vectors, too, and loses nothing by itself;
        any other engine loses a document's key tokens when a part of it is updated or it is indexed anew from
        `_source`, and `backfill` restores them. On all, documents that are read and written back lose what was left
        out.
    :param version: Version of the Elasticsearch server, such as `(8, 19)`; by default 9.5. Versions before 8.15 have no
        `sparse_vector` query, so key tokens are `rank_features` there; from 9.2 on, a setting is needed that keeps
        vectors in `_source`, without which hits could not be explained.
    :raises ValueError: The engine is unknown, the field is one that documents have anyway, the dimension is not
        positive or differs from the model's, or the index is to have dense vectors on Elasticsearch 7, which cannot
        search them.
    """
    if engine not in get_args(Engine):
        msg = f"Unknown engine '{engine}': use {' or '.join(get_args(Engine))}."
        raise ValueError(msg)
    check_field_name(field)
    if embedding_dimension is not None:
        _check_dimension(embedding_dimension, model)
    if engine == "opensearch":
        settings: dict[str, Any] = {}
        dense = None
        if embedding_dimension is not None:
            settings["index.knn"] = True
            # not the default engine, faiss: it needs native libraries, and without them writes hang
            method: dict[str, Any] = {"name": "hnsw", "engine": "lucene", "space_type": "cosinesimil"}
            if not graph:
                method["parameters"] = {"m": 2, "ef_construction": 2}
            dense = {"type": "knn_vector", "dimension": embedding_dimension, "method": method}
        return {"settings": settings, "mappings": _mappings("rank_features", dense, field, model, in_source=not lean)}
    version = version or _NEWEST_ELASTICSEARCH
    if version < (8,) and embedding_dimension is not None:
        msg = "Elasticsearch 7 cannot search dense vectors: leave the embedding dimension out (--no-dense)."
        raise ValueError(msg)
    chooses_vectors = version >= _FIRST_THAT_CHOOSES_VECTORS
    settings = {"index.mapping.exclude_source_vectors": lean} if chooses_vectors else {}
    field_type: FieldType = "sparse_vector" if version >= (8, 15) else "rank_features"
    dense = None
    if embedding_dimension is not None:
        dense = {"type": "dense_vector", "dims": embedding_dimension, "index": graph or chooses_vectors}
        if dense["index"]:
            dense["similarity"] = "cosine"
        if chooses_vectors and not graph:
            # vectors that are not indexed at all stay in `_source`, as text, whatever the setting
            dense["index_options"] = {"type": "flat"}
    in_source = chooses_vectors or not lean
    return {"settings": settings, "mappings": _mappings(field_type, dense, field, model, in_source=in_source)}


def check_field_name(field: str) -> None:
    """
    Require a name for the field of key tokens that Haystack's documents do not use otherwise.

    :param field: Name of the field.
    :raises ValueError: The field is one of a Haystack document's own, or the name is empty.
    """
    if field in _OTHER_FIELDS or not field:
        msg = f"The field of the key tokens cannot be '{field}': give it a name of its own, such as 'key_tokens'."
        raise ValueError(msg)


def _check_dimension(embedding_dimension: int, model: "KeyTokenModel | None") -> None:
    if embedding_dimension <= 0:
        msg = f"The embedding dimension must be positive, but it is {embedding_dimension}."
        raise ValueError(msg)
    if model is not None and model.dimension != embedding_dimension:
        msg = f"The model reads embeddings of {model.dimension} dimensions, but the index is for {embedding_dimension}."
        raise ValueError(msg)


def _mappings(
    field_type: FieldType, dense: dict[str, Any] | None, field: str, model: "KeyTokenModel | None", *, in_source: bool
) -> dict[str, Any]:
    properties: dict[str, Any] = {"content": {"type": "text"}}
    if dense is not None:
        properties["embedding"] = dense
    properties[field] = {"type": field_type}
    mappings: dict[str, Any] = {
        "properties": properties,
        "dynamic_templates": [{"strings": {"match_mapping_type": "string", "mapping": {"type": "keyword"}}}],
    }
    if not in_source:
        mappings["_source"] = {"excludes": [field]}
    if model is not None:
        mappings["_meta"] = {_META: {field: {"fingerprint": model.fingerprint, "embedder": model.embedder}}}
    return mappings


def key_token_field(
    mappings: Mapping[str, Any], field: str, index: str, types: Sequence[FieldType] = get_args(FieldType)
) -> KeyTokenField:
    """
    Find the field of key tokens in the live mapping of an index.

    :param mappings: Mappings of the index, as the engine returns them.
    :param field: Name of the field.
    :param index: Name of the index, for messages.
    :param types: Types that the field may have.
    :raises MappingError: The field is missing, or of a type that cannot be searched for key tokens.
    """
    found = _find(mappings, field)
    remedy = (
        "`keytok mapping --create` creates an index that has it, or adds it to one; write the documents after that."
    )
    if not found:
        msg = f"The index '{index}' has no field '{field}' for key tokens. {remedy}"
        raise MappingError(msg)
    field_type = found.get("type", "object")
    if field_type not in types:
        msg = f"The field '{field}' of the index '{index}' is of type '{field_type}', not {' or '.join(types)}."
        if field_type == "object":
            msg += " This happens when documents are written before the field is mapped."
        msg += f" Use another index or another `field`. {remedy}"
        raise MappingError(msg)
    if str(found.get("positive_score_impact", True)).lower() == "false":
        msg = f"The field '{field}' of the index '{index}' has positive_score_impact false, which reverses the weights."
        raise MappingError(msg)
    fingerprint = mappings.get("_meta", {}).get(_META, {}).get(field, {}).get("fingerprint")
    return KeyTokenField(field_type, fingerprint, not _is_left_out(mappings, field))


def _is_left_out(mappings: Mapping[str, Any], field: str) -> bool:
    """Return whether `_source` leaves a field out."""
    source = mappings.get("_source", {})
    included, excluded = source.get("includes") or ["*"], source.get("excludes") or []
    return not any(fnmatchcase(field, each) for each in included) or any(fnmatchcase(field, each) for each in excluded)


def has_field(mappings: Mapping[str, Any], field: str) -> bool:
    """Return whether a live mapping has a field, of whatever type."""
    return bool(_find(mappings, field))


def dense_fields(mappings: Mapping[str, Any]) -> list[str]:
    """Return the names of the fields of dense vectors at the root of a live mapping."""
    properties = mappings.get("properties", {})
    return [name for name, about in properties.items() if about.get("type") in _DENSE_TYPES]


def _find(mappings: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    found = mappings
    for part in field.split("."):
        found = found.get("properties", {}).get(part, {})
    return found


def merged_meta(existing: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `_meta` of a mapping with the models of further fields: engines replace `_meta` as a whole."""
    return {**existing, _META: {**existing.get(_META, {}), **added.get(_META, {})}}


def without_meta(existing: Mapping[str, Any], field: str) -> dict[str, Any]:
    """Return the `_meta` of a mapping without the model of one field."""
    others = {name: about for name, about in existing.get(_META, {}).items() if name != field}
    return {**existing, _META: others}
