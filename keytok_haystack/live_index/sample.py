# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Samples of the texts and embeddings of an index."""

from contextlib import suppress
from itertools import chain

import numpy as np
from haystack.document_stores.types import DocumentStore
from numpy.typing import NDArray

from keytok_haystack.engines.connection import connected
from keytok_haystack.live_index.fields import HAYSTACK_FIELDS, Fields
from keytok_haystack.live_index.mappings import embedding_dimension, mappings_of
from keytok_haystack.live_index.scan import scan
from keytok_haystack.utils.progress import progress_of


def sample(
    store: DocumentStore,
    size: int,
    fields: Fields = HAYSTACK_FIELDS,
    *,
    progress_bar: bool = True,
) -> tuple[list[str], NDArray[np.float32]]:
    """
    Draw documents of an index at random, to fit a model to their texts and embeddings.

    :param store: An `OpenSearchDocumentStore` or `ElasticsearchDocumentStore` over an index that exists.
    :param size: Maximum number of documents to draw.
    :param fields: Fields of the index.
    :param progress_bar: Whether to show a progress bar.
    :returns: The texts, and the embeddings, shape `(n, d)`. Documents that lack one of them are left out.
    :raises TypeError: The store is of another kind.
    :raises MappingError: The index has no such embeddings.
    :raises ValueError: No document has a text and a usable embedding.
    :raises DocumentStoreError: The engine cannot be reached, goes away, or refuses.
    """
    texts: list[str] = []
    embeddings: list[NDArray[np.float32]] = []
    random = {"function_score": {"random_score": {"seed": 0, "field": "_seq_no"}}}
    wanted = [fields.embedding, fields.content]
    with connected(store) as connection:
        dimension = embedding_dimension(mappings_of(connection), fields.embedding, connection.index)
        with (
            scan(connection, random, fields=wanted, by_score=True) as (total, pages),
            progress_of("Reading", "documents", shown=progress_bar, total=min(size, total)) as progress,
        ):
            for document in chain.from_iterable(pages):
                with suppress(ValueError):  # what cannot be read cannot be fitted to, either
                    if document.has(fields.embedding) and (text := fields.text_of(document)):
                        embeddings.append(fields.embedding_of(document, dimension))
                        dimension = len(embeddings[0])
                        texts.append(text)
                        progress.update()
                if len(texts) == size:
                    break
    if not texts:
        msg = f"No document has both '{fields.embedding}' and '{fields.content}', so nothing can be fitted."
        raise ValueError(msg)
    return texts, np.array(embeddings)
