# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Change of documents that get key tokens: the projection of their embeddings."""

from collections.abc import Sequence
from contextlib import suppress

import msgspec
import numpy as np

from keytok_haystack.confidence import warning_of
from keytok_haystack.live_index.changes import Change, Failure, Rewritten, Skipped
from keytok_haystack.live_index.documents import StoredDocument
from keytok_haystack.live_index.fields import Fields
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.sparse_vectors.rank_features import truncate_weights


def warning_about_embeddings(model: KeyTokenModel, fields: Fields, documents: Sequence[StoredDocument]) -> str | None:
    """
    Return what seems to be wrong with the embeddings of a sample of documents, and the remedy; None if nothing.

    :param model: Model that is to read them.
    :param fields: Fields of the index.
    :param documents: The sample.
    """
    embeddings = []
    for document in documents:
        if document.has(fields.embedding):
            with suppress(ValueError):  # reported when the document is projected
                embeddings.append(fields.embedding_of(document, model.dimension))
    return warning_of(model.encode_documents(np.array(embeddings), top_k=1).confidences) if embeddings else None


class Projection:
    """
    Changes that give documents the key tokens of their embeddings and texts.

    :param model: Model of the key tokens.
    :param fields: Fields of the index.
    :param resume: Whether to skip documents that have any key tokens, without projecting their embeddings.
    """

    def __init__(self, model: KeyTokenModel, fields: Fields, *, resume: bool = False) -> None:
        self._model = model
        self._fields = fields
        self._resume = resume

    def __call__(self, documents: Sequence[StoredDocument]) -> list[Change]:
        """Return the change of each document."""
        changes: list[Change] = []
        projected: list[int] = []
        embeddings, texts = [], []
        for position, document in enumerate(documents):
            if self._resume and self._has_tokens(document):
                changes.append(Skipped.UP_TO_DATE)
            elif not document.has(self._fields.embedding):
                changes.append(Skipped.WITHOUT_EMBEDDING)
            else:
                try:
                    embedding = self._fields.embedding_of(document, self._model.dimension)
                    text = self._fields.text_of(document)
                except ValueError as error:
                    changes.append(Failure(document.id, str(error)))
                    continue
                changes.append(Skipped.UP_TO_DATE)
                projected.append(position)
                embeddings.append(embedding)
                texts.append(text)
        if projected:
            tokens = self._model.document_tokens(self._model.encode_documents(np.array(embeddings), texts))
            for position, new in zip(projected, tokens, strict=True):
                if not self._are_stored(new, documents[position]):
                    changes[position] = self._with_tokens(documents[position], new)
        return changes

    def _has_tokens(self, document: StoredDocument) -> bool:
        field = self._fields.key_tokens
        return document.has(field) and bytes(document.source[field]) != b"{}"

    def _are_stored(self, tokens: dict[str, float], document: StoredDocument) -> bool:
        """Return whether a document has these tokens, with weights that score the same."""
        stored = self._fields.key_tokens_of(document)
        if stored is None or stored.keys() != tokens.keys():
            return False
        same = truncate_weights([stored[key] for key in tokens]) == truncate_weights(list(tokens.values()))
        return bool(same.all())

    def _with_tokens(self, document: StoredDocument, tokens: dict[str, float]) -> Rewritten:
        return Rewritten({**document.source, self._fields.key_tokens: msgspec.Raw(msgspec.json.encode(tokens))})
