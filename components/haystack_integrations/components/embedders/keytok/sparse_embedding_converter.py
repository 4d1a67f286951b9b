# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
from typing import Any

from haystack import Document, component, default_to_dict

from haystack_integrations.components.embedders.keytok.conversion import check_documents, stringified
from keytok_haystack.engines import check_field_name
from keytok_haystack.sparse_vectors.rank_features import check_weights, shortest_decimals


@component
class SparseEmbeddingConverter:
    """
    Moves the vectors of any sparse embedder into a field of key tokens, so that every engine can store them.

    OpenSearch's document store drops sparse embeddings. After this component they are written like key tokens, with the
    indices as keys, and `SparseRetriever` finds them by a `query_sparse_embedding` of the same embedder.

    ### Usage example
    ```python
    from haystack import Document
    from haystack.dataclasses import SparseEmbedding
    from haystack_integrations.components.embedders.keytok import SparseEmbeddingConverter

    document = Document(content="shock waves", sparse_embedding=SparseEmbedding(indices=[7, 12], values=[0.5, 1.0]))
    converted = SparseEmbeddingConverter(field="splade").run(documents=[document])["documents"]
    print(converted[0].meta)

    # {'splade': {'12': 1.0, '7': 0.5}}
    ```
    """

    def __init__(self, *, field: str = "key_tokens") -> None:
        """
        Creates a SparseEmbeddingConverter component.

        :param field:
            Key of `meta` that receives the vectors, and so the name of the field in the index.

        :raises ValueError:
            If `field` is one of a document's own fields.
        """
        check_field_name(field)
        self.field = field

    def to_dict(self) -> dict[str, Any]:
        """
        Serializes the component to a dictionary.

        :returns:
            Dictionary with serialized data.
        """
        return default_to_dict(self, field=self.field)

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        """
        Moves sparse embeddings into `meta`.

        :param documents:
            Documents with a `sparse_embedding`.
        :returns:
            A dictionary with the following keys:
            - `documents`: Copies of the documents, in the same order, with `{index: weight}` in their `meta`, strongest
                first, and without `sparse_embedding`. Weights of 0 are left out.

        :raises ValueError:
            If a document has no sparse embedding, or a weight that engines cannot store: negative or not finite.
        :raises TypeError:
            If `documents` is not a list of Documents.
        """
        check_documents(documents, "SparseEmbeddingConverter")
        return {"documents": [self._convert(document) for document in documents]}

    def _convert(self, document: Document) -> Document:
        if document.sparse_embedding is None:
            msg = f"Document '{document.id}' has no sparse embedding: run a sparse embedder first."
            raise ValueError(msg)
        tokens = stringified(document.sparse_embedding)
        try:
            weights = shortest_decimals(check_weights(list(tokens.values()))).tolist()
        except ValueError as error:
            msg = f"The sparse embedding of document '{document.id}' is unusable. {error}"
            raise ValueError(msg) from error
        strongest_first = sorted(zip(tokens, weights, strict=True), key=lambda item: -item[1])
        return replace(document, meta={**document.meta, self.field: dict(strongest_first)}, sparse_embedding=None)
