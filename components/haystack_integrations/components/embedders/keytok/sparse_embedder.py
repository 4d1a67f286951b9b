# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from haystack import Document, component, default_to_dict, logging
from haystack.dataclasses import SparseEmbedding
from tqdm import tqdm

from haystack_integrations.components.embedders.keytok.alternatives import is_branch_not_taken
from haystack_integrations.components.embedders.keytok.conversion import (
    check_documents,
    document_embeddings,
    encode_query,
    naming_document,
    process_usable,
    sparse_embeddings,
)
from haystack_integrations.components.embedders.keytok.loading import load_model
from keytok_haystack import KeyTokenModel
from keytok_haystack.confidence import as_floats, warning_of
from keytok_haystack.engines import check_field_name

logger = logging.getLogger(__name__)

_Processed = tuple[Document, float | None]
"""Document, and its confidence if it is known."""


@component
class KeyTokenSparseEmbedder:
    """
    Turns dense embeddings into sparse vectors over readable tokens: the key tokens of a text.

    It follows any dense embedder and uses the embedding that is there, so a text is not embedded twice. A text's
    literal tokens join those that its embedding is aligned with. Give it `documents` in an indexing pipeline, and
    `embedding` and `text` in a query pipeline.

    ### Usage example
    ```python
    from haystack import Document
    from haystack_integrations.components.embedders.keytok import KeyTokenSparseEmbedder

    embedder = KeyTokenSparseEmbedder(model="models/key-tokens")

    documents = [Document(content="shock waves", embedding=[0.1] * 384)]
    print(embedder.run(documents=documents)["documents"][0].meta["key_tokens"])

    print(embedder.run(embedding=[0.1] * 384, text="shock waves")["key_tokens"])
    ```
    """

    def __init__(
        self,
        model: str | Path,
        *,
        top_k: int | None = None,
        query_top_k: int | None = None,
        field: str = "key_tokens",
        return_sparse_embedding: bool = False,
        batch_size: int = 1024,
        progress_bar: bool = True,
        raise_on_failure: bool = True,
    ) -> None:
        """
        Creates a KeyTokenSparseEmbedder component.

        :param model:
            Path of the folder of a key-token model, as `keytok fit` writes it. Documents and queries need the same
            model.
        :param top_k:
            Maximum number of key tokens of a document. By default, the model's `k_document` (64).
        :param query_top_k:
            Maximum number of aligned tokens of a query, beside its literal tokens. By default, the model's `m_query`
            (64); 0 leaves only the literal tokens. Of both,
            tokens of poor gain for the postings that they cost are left out.
        :param field:
            Key of `meta` that receives a document's key tokens. Document stores flatten `meta`, so it is also the name
            of the `rank_features` field.
        :param return_sparse_embedding:
            Whether documents also get a `sparse_embedding`, for stores that index those, such as Qdrant and Milvus. Its
            indices are features of the model, or hashes of words that it does not know.
        :param batch_size:
            Number of documents to process at once.
        :param progress_bar:
            Whether to show a progress bar if there is more than one batch.
        :param raise_on_failure:
            Whether to raise an error if a document cannot be processed: its embedding is missing or unusable, or its
            text is not of whole characters. If False, such documents are returned unchanged, and a warning names
            them.

        :raises ValueError:
            If `top_k` or `batch_size` is not positive, `query_top_k` is negative, or `field` is one of a document's own
            fields.
        """
        check_field_name(field)
        if top_k is not None and top_k <= 0:
            msg = f"top_k must be greater than 0, but got {top_k}."
            raise ValueError(msg)
        if query_top_k is not None and query_top_k < 0:
            msg = f"query_top_k must not be negative, but got {query_top_k}."
            raise ValueError(msg)
        if batch_size <= 0:
            msg = f"batch_size must be greater than 0, but got {batch_size}."
            raise ValueError(msg)
        self.model = str(model)
        self.top_k = top_k
        self.query_top_k = query_top_k
        self.field = field
        self.return_sparse_embedding = return_sparse_embedding
        self.batch_size = batch_size
        self.progress_bar = progress_bar
        self.raise_on_failure = raise_on_failure
        self._model: KeyTokenModel | None = None

    def to_dict(self) -> dict[str, Any]:
        """
        Serializes the component to a dictionary.

        :returns:
            Dictionary with serialized data.
        """
        return default_to_dict(
            self,
            model=self.model,
            top_k=self.top_k,
            query_top_k=self.query_top_k,
            field=self.field,
            return_sparse_embedding=self.return_sparse_embedding,
            batch_size=self.batch_size,
            progress_bar=self.progress_bar,
            raise_on_failure=self.raise_on_failure,
        )

    def warm_up(self) -> None:
        """
        Loads the key-token model.
        """
        self._loaded_model()

    def close(self) -> None:
        """
        Frees the key-token model, unless another component uses it; a later run loads it again.
        """
        self._model = None

    def _loaded_model(self) -> KeyTokenModel:
        model = self._model or load_model(self.model)  # a name of its own, which no `close` elsewhere takes away
        self._model = model
        return model

    @component.output_types(
        documents=list[Document], key_tokens=dict[str, float], sparse_embedding=SparseEmbedding, meta=dict[str, Any]
    )
    def run(
        self,
        documents: list[Document] | None = None,
        embedding: list[float] | None = None,
        text: str | None = None,
    ) -> dict[str, Any]:
        """
        Finds the key tokens of documents, or of one query.

        :param documents:
            Documents with embeddings. If a document has `content`, its literal tokens join the aligned ones.
        :param embedding:
            Embedding of a query.
        :param text:
            Text of the query, whose literal tokens join the aligned ones.
        :returns:
            A dictionary with the following keys for `documents`:
            - `documents`: Copies of the documents with key tokens, `{token: weight}`, in their `meta`.
            - `meta`: `confidences`, a number for each document: the share of random embeddings that decode to tokens
                more weakly, about 1 for what says something about the words that the model was fitted to. None for
                documents that are returned unchanged, and for models without that measure. If half of them are below
                0.5, a warning says so: another embedder's vectors look like that.

            And for `embedding`:
            - `key_tokens`: The query's `{token: weight}`, strongest first. It is empty for a text without any words but
                stop words.
            - `sparse_embedding`: The same; its indices are features of the model, or hashes of words that it does not
                know.
            - `meta`: `confidence`, that of the query, 0 for one without tokens; and `literal_tokens`, those that are
                words of its `text`.

            In a pipeline whose router has sent both elsewhere, it is empty.

        :raises ValueError:
            If not exactly one of `documents` and `embedding` is given, `text` is given with `documents`, or an
            embedding is missing or unusable, or a text not of whole characters, unless `raise_on_failure` is False.
        :raises TypeError:
            If `documents` is not a list of Documents, or `text` is not a string.
        """
        if embedding is not None and documents is None:
            query = encode_query(self._loaded_model(), embedding, text, self.query_top_k)
            return {
                "key_tokens": query.key_tokens,
                "sparse_embedding": query.sparse_embedding,
                "meta": query.meta,
            }
        if documents is None and embedding is None and is_branch_not_taken(self, "documents", "embedding"):
            return {}
        if documents is None or embedding is not None:
            msg = "KeyTokenSparseEmbedder needs exactly one of `documents` and `embedding`."
            raise ValueError(msg)
        if text is not None:
            msg = "`text` goes with `embedding`: documents bring their own text, their `content`."
            raise ValueError(msg)
        check_documents(documents, "KeyTokenSparseEmbedder")
        model = self._loaded_model()
        batches = range(0, len(documents), self.batch_size)
        show = self.progress_bar and len(batches) > 1
        processed = [
            result
            for start in tqdm(batches, desc="Finding key tokens", disable=not show)
            for result in self._processed(model, documents[start : start + self.batch_size])
        ]
        confidences = [confidence for _, confidence in processed]
        if warning := warning_of(np.array([each for each in confidences if each is not None], dtype=np.float32)):
            logger.warning(warning)
        return {"documents": [document for document, _ in processed], "meta": {"confidences": confidences}}

    def _processed(self, model: KeyTokenModel, documents: list[Document]) -> list[_Processed]:
        process = partial(self._with_key_tokens, model)
        if self.raise_on_failure:
            return process(documents)
        return process_usable(
            documents, model.dimension, process, lambda document: (document, None), type(self).__name__
        )

    def _with_key_tokens(self, model: KeyTokenModel, documents: list[Document]) -> list[_Processed]:
        embeddings = document_embeddings(documents)
        texts = [document.content or "" for document in documents]
        with naming_document(documents, model.dimension):
            weights = model.encode_documents(embeddings, texts, self.top_k)
        changes: list[dict[str, Any]] = [
            {"meta": {**document.meta, self.field: tokens}}
            for document, tokens in zip(documents, model.document_tokens(weights), strict=True)
        ]
        if self.return_sparse_embedding:
            vectors = sparse_embeddings(weights, model.vocabulary, of_documents=True)
            for change, sparse_embedding in zip(changes, vectors, strict=True):
                change["sparse_embedding"] = sparse_embedding
        changed = [replace(document, **change) for document, change in zip(documents, changes, strict=True)]
        return list(zip(changed, as_floats(weights.confidences, len(documents)), strict=True))
