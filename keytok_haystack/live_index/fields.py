# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Fields of an index that a backfill reads and writes, and their values in stored documents."""

from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from keytok_haystack.engines import check_field_name
from keytok_haystack.live_index.documents import StoredDocument
from keytok_haystack.utils.checks import check_embeddings, check_texts


@dataclass(frozen=True)
class Fields:
    """
    Names of the fields of an index.

    :param embedding: Field of the dense vectors, which stay as they are.
    :param content: Field of the texts, whose literal tokens join those of the embeddings. Documents may lack it.
    :param key_tokens: Field of the key tokens.
    :raises ValueError: A field is not at the root of documents, is one that documents have anyway, or is named twice.
    """

    embedding: str = "embedding"
    content: str = "content"
    key_tokens: str = "key_tokens"

    def __post_init__(self) -> None:
        """Check the names."""
        check_field_name(self.key_tokens)
        names = (self.embedding, self.content, self.key_tokens)
        check_root_fields(*names)
        if len({*names}) < len(names):
            msg = f"Embedding, content and key tokens must be three different fields, not {', '.join(names)}."
            raise ValueError(msg)

    def embedding_of(self, document: StoredDocument, dimension: int | None) -> NDArray[np.float32]:
        """
        Return the embedding of a document that has one, shape `(d,)`.

        :param document: Document to read.
        :param dimension: Expected dimension `d`, if known.
        :raises ValueError: The embedding is unusable.
        """
        try:
            numbers = msgspec.json.decode(document.source[self.embedding], type=list[float])
        except msgspec.MsgspecError as error:
            msg = f"'{self.embedding}' is not a list of numbers: {error}"
            raise ValueError(msg) from error
        embedding: NDArray[np.float32] = check_embeddings([numbers], dimension)[0]
        return embedding

    def text_of(self, document: StoredDocument) -> str:
        """
        Return the text of a document, "" if it has none.

        :param document: Document to read.
        :raises ValueError: The text is unusable.
        """
        if not document.has(self.content):
            return ""
        try:
            text = msgspec.json.decode(document.source[self.content], type=str)
        except msgspec.MsgspecError as error:
            msg = f"'{self.content}' is not a text: {error}"
            raise ValueError(msg) from error
        check_texts([text])
        return text

    def key_tokens_of(self, document: StoredDocument) -> dict[str, float] | None:
        """Return the key tokens of a document, or None if the field is missing or holds something else."""
        if not document.has(self.key_tokens):
            return None
        try:
            return msgspec.json.decode(document.source[self.key_tokens], type=dict[str, float])
        except msgspec.MsgspecError:
            return None


def check_root_fields(*names: str) -> None:
    """
    Require names of fields at the root of documents.

    :param names: Names of fields.
    :raises ValueError: A name is empty, or that of a field inside another one.
    """
    for name in names:
        if "." in name or not name:
            msg = f"'{name}' is not a field at the root of documents: fields inside others cannot be filled."
            raise ValueError(msg)


HAYSTACK_FIELDS = Fields()
"""Fields of an index that Haystack's document stores have written."""
