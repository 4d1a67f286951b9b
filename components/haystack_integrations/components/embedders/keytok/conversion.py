# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Conversions between Haystack's documents and sparse embeddings and the library's arrays."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from numbers import Real
from typing import Any, NamedTuple, TypeVar

from haystack import Document, logging
from haystack.dataclasses import SparseEmbedding

from keytok_haystack import EmbeddingError, KeyTokenModel, TokenRows, Vocabulary
from keytok_haystack.confidence import as_floats
from keytok_haystack.inverted_index import contributions
from keytok_haystack.sparse_vectors.rank_features import (
    LARGEST_WEIGHT,
    SMALLEST_WEIGHT,
    escape_feature,
    rounded_weights,
    truncate_weights,
    unescape_feature,
)
from keytok_haystack.utils.checks import check_embeddings, check_texts

_logger = logging.getLogger(__name__)
_SHOWN = 10  # documents that a warning names

T = TypeVar("T")


def check_documents(documents: object, component: str) -> None:
    """Raise a `TypeError` unless the input is a list of documents."""
    if not isinstance(documents, list) or not all(isinstance(document, Document) for document in documents):
        msg = f"{component} expects a list of Documents as `documents`."
        raise TypeError(msg)


def document_embeddings(documents: Sequence[Document]) -> list[list[float]]:
    """
    Return the embeddings of documents.

    :raises EmbeddingError: A document has no embedding; the message names it.
    """
    return [_embedding_of(document) for document in documents]


def _embedding_of(document: Document) -> list[float]:
    if document.embedding is None:
        msg = f"Document '{document.id}' has no embedding: run a document embedder first."
        raise EmbeddingError(msg)
    return document.embedding


def _check_document(document: Document, dimension: int, *, with_text: bool) -> None:
    """
    Require a document that can be processed.

    :param with_text: Whether its content is processed, too.
    :raises EmbeddingError: Its embedding is missing or unusable; the message names it.
    :raises ValueError: Its content is not of whole characters.
    """
    embedding = _embedding_of(document)
    try:
        check_embeddings([embedding], dimension)
    except EmbeddingError as error:
        msg = f"The embedding of document '{document.id}' is unusable. {error}"
        raise EmbeddingError(msg) from error
    if not with_text:
        return
    try:
        check_texts([document.content or ""])
    except ValueError as error:
        msg = f"The content of document '{document.id}' has half a surrogate pair: replace it."
        raise ValueError(msg) from error


@contextmanager
def naming_document(documents: Sequence[Document], dimension: int, *, with_text: bool = True) -> Iterator[None]:
    """
    Name the document in an error about its embedding or its text.

    :param documents: Documents whose embeddings, and texts, are processed as a batch in the block.
    :param dimension: Dimension of the embeddings.
    :param with_text: Whether the content of documents is processed, too.
    :raises EmbeddingError: The embedding of a document is unusable.
    :raises ValueError: The content of a document is not of whole characters.
    """
    try:
        yield
    except ValueError:
        for document in documents:
            _check_document(document, dimension, with_text=with_text)
        raise


def process_usable(
    documents: Sequence[Document],
    dimension: int,
    process: Callable[[list[Document]], list[T]],
    unchanged: Callable[[Document], T],
    component: str,
    *,
    with_text: bool = True,
) -> list[T]:
    """
    Process the documents that can be processed, and leave the others unchanged, with a warning that names them.

    :param documents: Documents of a batch.
    :param dimension: Dimension of the embeddings.
    :param process: Function that returns a result for each document.
    :param unchanged: Function that returns the result for one that cannot be processed.
    :param component: Name of the component, for the warning.
    :param with_text: Whether the content of documents is processed, too.
    """
    failures: dict[int, str] = {}
    for position, document in enumerate(documents):
        try:
            _check_document(document, dimension, with_text=with_text)
        except ValueError as error:
            failures[position] = str(error)
    if failures:
        _logger.warning(
            "{component} returns {count} of {total} documents unchanged: {reasons}",
            component=component,
            count=len(failures),
            total=len(documents),
            reasons=" ".join(list(failures.values())[:_SHOWN]) + (" ..." if len(failures) > _SHOWN else ""),
        )
    usable = [document for position, document in enumerate(documents) if position not in failures]
    done = iter(process(usable) if usable else [])
    return [unchanged(document) if position in failures else next(done) for position, document in enumerate(documents)]


def checked_key_tokens(tokens: object, owner: str) -> dict[str, float]:
    """
    Return key tokens with their weights as Python's floats.

    :param tokens: What is given as key tokens.
    :param owner: Whose they are, for messages.
    :raises TypeError: They are not a dict of strings and numbers.
    :raises ValueError: A weight is not positive and finite, as float32.
    """
    if not isinstance(tokens, Mapping):
        msg = f"Key tokens of {owner} must be a dict of tokens and weights, but they are of type {_type(tokens)}."
        raise TypeError(msg)
    checked: dict[str, float] = {}
    for token, weight in tokens.items():
        if not isinstance(token, str) or isinstance(weight, bool) or not isinstance(weight, Real):
            msg = (
                f"Key tokens of {owner} must be strings with numbers as weights, but {token!r} is of type "
                f"{_type(token)} and its weight of type {_type(weight)}."
            )
            raise TypeError(msg)
        try:
            number = float(weight)
        except OverflowError:
            number = math.inf
        if not SMALLEST_WEIGHT <= number <= LARGEST_WEIGHT:
            msg = (
                f"Weights of key tokens must be positive and finite, as float32, but that of '{token}' of {owner} is "
                f"{number}."
            )
            raise ValueError(msg)
        checked[token] = number
    return checked


def _type(value: object) -> str:
    return type(value).__name__


def stored_key_tokens(document: Document, field: str) -> Mapping[str, float]:
    """
    Return the key tokens that a document was written with, or else its sparse embedding under stringified indices.

    :raises TypeError: The field holds something else; the message names the document.
    """
    tokens = document.meta.get(field)
    if tokens is None:
        return {} if document.sparse_embedding is None else stringified(document.sparse_embedding)
    if not isinstance(tokens, Mapping):
        msg = (
            f"meta['{field}'] of document '{document.id}' is of type {type(tokens).__name__}, but key tokens are a "
            "dict of tokens and weights."
        )
        raise TypeError(msg)
    return tokens


def matched_tokens(query: Mapping[str, float], document: Mapping[str, float]) -> list[dict[str, Any]]:
    """
    Describe the tokens that a query and a document share, the strongest contribution first.

    :param query: Key tokens of the query, `{key: weight}`.
    :param document: Those of the document; others than the query's may be missing.
    """
    return [
        {
            "token": unescape_feature(key),
            "query_weight": query_weight,
            "document_weight": document_weight,
            "contribution": contribution,
        }
        for key, query_weight, document_weight, contribution in contributions(query, document)
    ]


def sparse_embeddings(
    weights: TokenRows, vocabulary: Vocabulary, *, of_documents: bool = False
) -> list[SparseEmbedding]:
    """
    Turn each row into a sparse embedding whose indices are features, or hashes of words that are not known.

    :param weights: Weights of queries or documents.
    :param vocabulary: Vocabulary that they belong to.
    :param of_documents: Whether they are rounded and truncated as key tokens of documents are stored, so that every
        store has the same scores.
    """
    indices = weights.columns(map(vocabulary.unseen_index, weights.unseen)).tolist()
    data = weights.rows.data
    values = (truncate_weights(rounded_weights(data)) if of_documents else data).tolist()
    return [SparseEmbedding(indices[i:j], values[i:j]) for i, j in pairwise(weights.rows.indptr.tolist())]


def stringified(sparse_embedding: SparseEmbedding) -> dict[str, float]:
    """Turn any sparse embedder's vector into key tokens whose keys are its indices; repeated ones are summed."""
    tokens: dict[str, float] = {}
    for index, value in zip(sparse_embedding.indices, sparse_embedding.values, strict=True):
        tokens[str(index)] = tokens.get(str(index), 0.0) + float(value)
    return {key: value for key, value in tokens.items() if value != 0}


class EncodedQuery(NamedTuple):
    """
    A query as retrievers take it.

    :param key_tokens: Its key tokens, `{key: weight}`, strongest first.
    :param sparse_embedding: The same over the features of the model.
    :param meta: What is known of its key tokens: their `confidence`, if the model knows it, and the `literal_tokens`,
        those that are words of its text.
    """

    key_tokens: dict[str, float]
    sparse_embedding: SparseEmbedding
    meta: dict[str, Any]


def encode_query(
    model: KeyTokenModel, embedding: list[float], text: str | None, top_k: int | None = None
) -> EncodedQuery:
    """
    Encode a query.

    :param model: Key-token model.
    :param embedding: Dense embedding of the query.
    :param text: Text of the query, whose literal tokens join the aligned ones.
    :param top_k: Number of aligned tokens; by default the model's.
    :raises ValueError: The embedding or the text is unusable.
    """
    weights = model.encode_queries([embedding], None if text is None else [text], top_k)
    (confidence,) = as_floats(weights.confidences, 1)
    (key_tokens,) = model.query_tokens(weights)
    literals = {} if weights.literals is None else model.query_tokens(weights.with_rows(weights.literals))[0]
    meta = {"confidence": confidence, "literal_tokens": list(map(unescape_feature, literals))}
    return EncodedQuery(key_tokens, sparse_embeddings(weights, model.vocabulary)[0], meta)


def named_tokens(
    sparse_embedding: SparseEmbedding, model: KeyTokenModel | None, text: str | None = None
) -> dict[str, float]:
    """
    Turn a sparse embedding of a query into key tokens.

    :param sparse_embedding: Sparse embedding over the features of the model, or of any sparse embedder.
    :param model: Model whose features the indices are; without one, the indices are the keys, as strings.
    :param text: Text of the query, which names words that the model does not know, and of which indices are hashes.
    :raises ValueError: An index is neither a feature of the model nor a word of the text. Without a text it may be such
        a word, so it is left out, with a warning.
    """
    by_index = stringified(sparse_embedding)
    if model is None:
        return by_index
    vocabulary = model.vocabulary
    unseen = () if text is None else vocabulary.literal_counts([text]).unseen
    key_of_hash = {vocabulary.unseen_index(word): escape_feature(word) for word in unseen}
    named, nameless = {}, 0
    for spelled, weight in by_index.items():
        index = int(spelled)
        if 0 <= index < len(vocabulary):
            named[vocabulary.keys[index]] = weight
        elif index in key_of_hash:
            named[key_of_hash[index]] = weight
        elif text is None and vocabulary.may_be_unseen(index):
            nameless += 1
        else:
            msg = (
                f"The sparse embedding has the index {index}, which is neither one of the {len(vocabulary)} features "
                "of the key-token model nor a word of `query`: make it with this model, from this text."
            )
            raise ValueError(msg)
    if nameless:
        _logger.warning(
            "{count} words of the query are left out, since the key-token model does not know them: pass `query`, too, "
            "which names them.",
            count=nameless,
        )
    return named
