# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Conversions between Haystack's documents and sparse embeddings and the library's arrays."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from haystack import Document, logging
from haystack.dataclasses import SparseEmbedding

from keytok_haystack import EmbeddingError, KeyTokenModel, TokenRows, Vocabulary
from keytok_haystack.inverted_index import contributions
from keytok_haystack.sparse_vectors.rank_features import escape_feature, unescape_feature
from keytok_haystack.utils.checks import check_embeddings, check_texts

_logger = logging.getLogger(__name__)


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
    embeddings = []
    for document in documents:
        if document.embedding is None:
            msg = f"Document '{document.id}' has no embedding: run a document embedder first."
            raise EmbeddingError(msg)
        embeddings.append(document.embedding)
    return embeddings


@contextmanager
def naming_document(documents: Sequence[Document], dimension: int) -> Iterator[None]:
    """
    Name the document in an error about its embedding or its text.

    :param documents: Documents whose embeddings, and texts, are processed as a batch in the block.
    :param dimension: Dimension of the embeddings.
    :raises EmbeddingError: The embedding of a document is unusable.
    :raises ValueError: The content of a document is not of whole characters.
    """
    try:
        yield
    except ValueError:
        for document in documents:
            try:
                check_embeddings([document.embedding or []], dimension)
            except EmbeddingError as error:
                msg = f"The embedding of document '{document.id}' is unusable. {error}"
                raise EmbeddingError(msg) from error
        for document in documents:
            try:
                check_texts([document.content or ""])
            except ValueError as error:
                msg = f"The content of document '{document.id}' has half a surrogate pair: replace it."
                raise ValueError(msg) from error
        raise


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


def sparse_embeddings(weights: TokenRows, vocabulary: Vocabulary) -> list[SparseEmbedding]:
    """Turn each row into a sparse embedding whose indices are features, or hashes of words that are not known."""
    indices = weights.columns(map(vocabulary.unseen_index, weights.unseen)).tolist()
    values = weights.rows.data.tolist()
    return [SparseEmbedding(indices[i:j], values[i:j]) for i, j in pairwise(weights.rows.indptr.tolist())]


def stringified(sparse_embedding: SparseEmbedding) -> dict[str, float]:
    """Turn any sparse embedder's vector into key tokens whose keys are its indices; repeated ones are summed."""
    tokens: dict[str, float] = {}
    for index, value in zip(sparse_embedding.indices, sparse_embedding.values, strict=True):
        tokens[str(index)] = tokens.get(str(index), 0.0) + float(value)
    return {key: value for key, value in tokens.items() if value != 0}


def encode_query(
    model: KeyTokenModel, embedding: list[float], text: str | None, top_k: int | None = None
) -> tuple[dict[str, float], SparseEmbedding]:
    """
    Return the key tokens of a query, strongest first, and the same as a sparse embedding over the model's features.

    :param model: Key-token model.
    :param embedding: Dense embedding of the query.
    :param text: Text of the query, whose literal tokens join the aligned ones.
    :param top_k: Number of aligned tokens; by default the model's.
    :raises ValueError: The embedding or the text is unusable.
    """
    weights = model.encode_queries([embedding], None if text is None else [text], top_k)
    return model.query_tokens(weights)[0], sparse_embeddings(weights, model.vocabulary)[0]


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
