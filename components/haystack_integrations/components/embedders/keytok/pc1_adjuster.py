# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
from haystack import Document, component, default_to_dict, logging
from numpy.typing import ArrayLike, NDArray

from haystack_integrations.components.embedders.keytok.conversion import (
    check_documents,
    document_embeddings,
    naming_document,
    process_usable,
)
from haystack_integrations.components.embedders.keytok.loading import load_model
from keytok_haystack import KeyTokenModel, Spectrum
from keytok_haystack.embedding_space import Method

logger = logging.getLogger(__name__)


@component
class PC1Adjuster:
    """
    Removes the first principal components from embeddings, by default one.

    The first principal component of a language model's embedding space is what all texts share; it decodes to stop
    words and punctuation and makes all cosine similarities alike. Use this component where the dense index should
    hold the adjusted vectors too. `KeyTokenSparseEmbedder` does not need it: its model knows how to prepare a raw
    embedding. A model that removes the component itself, as those of `keytok fit` do, gives the same tokens for both.

    ### Usage example
    ```python
    from haystack import Document
    from haystack_integrations.components.embedders.keytok import PC1Adjuster

    adjuster = PC1Adjuster(model="models/key-tokens")
    documents = [Document(content="shock waves", embedding=[0.1] * 384)]
    print(adjuster.run(documents=documents)["documents"][0].embedding[:3])
    ```
    """

    def __init__(
        self,
        model: str | Path,
        *,
        strength: float = 1.0,
        n_components: int = 1,
        method: Method = "remove",
        raise_on_failure: bool = True,
    ) -> None:
        """
        Creates a PC1Adjuster component.

        :param model:
            Path of the folder of a key-token model, as `keytok fit` writes it. Only its spectrum is used.
        :param strength:
            Share of the components to remove: 1.0 removes them, 0.0 changes nothing.
        :param n_components:
            Number of principal components to remove, strongest first.
        :param method:
            Way to adjust embeddings: "remove" subtracts each embedding's own projection on the components, "shift"
            moves all embeddings alike, by their mean projection (section 4 of the paper).
        :param raise_on_failure:
            Whether to raise an error if a document cannot be processed: its embedding is missing or
            unusable. If False, such documents are returned unchanged, and a warning names them.

        :raises ValueError:
            If `strength` is negative or not finite, `n_components` is not positive, or there is no such method.
        """
        if not (strength >= 0 and math.isfinite(strength)):
            msg = f"strength must be a finite number and not negative, but got {strength}."
            raise ValueError(msg)
        if n_components < 1:
            msg = f"n_components must be greater than 0, but got {n_components}."
            raise ValueError(msg)
        if method not in get_args(Method):
            msg = f"method must be one of {', '.join(map(repr, get_args(Method)))}, but got {method!r}."
            raise ValueError(msg)
        self.model = str(model)
        self.strength = strength
        self.n_components = n_components
        self.method = method
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
            strength=self.strength,
            n_components=self.n_components,
            method=self.method,
            raise_on_failure=self.raise_on_failure,
        )

    def warm_up(self) -> None:
        """
        Loads the key-token model, or shares the one that another component has loaded.

        :raises ValueError:
            If the model has no spectrum, because it was read from a checkpoint and not calibrated.
        """
        self._loaded_spectrum()

    def close(self) -> None:
        """
        Frees the key-token model, unless another component uses it; a later run loads it again.
        """
        self._model = None

    def _loaded_spectrum(self) -> Spectrum:
        model = self._model or load_model(self.model)
        spectrum = model.spectrum
        if spectrum is None:
            msg = f"The key-token model '{self.model}' has no spectrum: calibrate it with embeddings of your corpus."
            raise ValueError(msg)
        if self._model is None and not model.decoder.preparation.has_removed(spectrum.leading(self.n_components)):
            logger.warning(
                "The key-token model '{model}' was fitted without removing all of the components that are removed "
                "here, so adjusted embeddings have other key tokens than raw ones.",
                model=self.model,
            )
        self._model = model
        return spectrum

    def _adjusted(self, spectrum: Spectrum, embeddings: ArrayLike) -> NDArray[np.float32]:
        return spectrum.adjust(embeddings, self.strength, self.n_components, self.method)

    @component.output_types(documents=list[Document], embedding=list[float])
    def run(
        self, documents: list[Document] | None = None, embedding: list[float] | None = None
    ) -> dict[str, list[Document] | list[float]]:
        """
        Adjusts the embeddings of documents, or one embedding.

        :param documents:
            Documents with embeddings.
        :param embedding:
            Embedding of a query.
        :returns:
            A dictionary with one of the following keys, according to the input:
            - `documents`: Copies of the documents with adjusted embeddings.
            - `embedding`: The adjusted embedding.

        :raises ValueError:
            If not exactly one of `documents` and `embedding` is given, or an embedding is missing or unusable, unless
            `raise_on_failure` is False.
        :raises TypeError:
            If `documents` is not a list of Documents.
        """
        if embedding is not None and documents is None:
            return {"embedding": self._adjusted(self._loaded_spectrum(), [embedding])[0].tolist()}
        if documents is None or embedding is not None:
            msg = "PC1Adjuster needs exactly one of `documents` and `embedding`."
            raise ValueError(msg)
        check_documents(documents, "PC1Adjuster")
        if not documents:
            return {"documents": []}
        spectrum = self._loaded_spectrum()
        adjust = partial(self._with_adjusted, spectrum)
        if self.raise_on_failure:
            return {"documents": adjust(documents)}
        return {
            "documents": process_usable(
                documents, spectrum.dimension, adjust, lambda document: document, type(self).__name__, with_text=False
            )
        }

    def _with_adjusted(self, spectrum: Spectrum, documents: list[Document]) -> list[Document]:
        embeddings = document_embeddings(documents)
        with naming_document(documents, spectrum.dimension, with_text=False):
            adjusted = self._adjusted(spectrum, embeddings)
        return [replace(d, embedding=e) for d, e in zip(documents, adjusted.tolist(), strict=True)]
