# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from haystack import Document, component, default_to_dict

from haystack_integrations.components.embedders.keytok.conversion import check_documents, document_embeddings
from haystack_integrations.components.embedders.keytok.loading import load_model
from keytok_haystack import Spectrum


@component
class PC1Adjuster:
    """
    Takes the first principal component out of embeddings.

    The first principal component of a language model's embedding space is what all texts share; it decodes to stop
    words and punctuation and makes all cosine similarities alike. Use this component where the dense index should
    hold the adjusted vectors too. `KeyTokenSparseEmbedder` does not need it: its model knows how to prepare a raw
    embedding, and gives the same tokens for an adjusted one.

    ### Usage example
    ```python
    from haystack import Document
    from haystack_integrations.components.embedders.keytok import PC1Adjuster

    adjuster = PC1Adjuster(model="models/key-tokens")
    documents = [Document(content="shock waves", embedding=[0.1] * 384)]
    print(adjuster.run(documents=documents)["documents"][0].embedding[:3])
    ```
    """

    def __init__(self, model: str | Path, *, strength: float = 1.0) -> None:
        """
        Creates a PC1Adjuster component.

        :param model:
            The folder of a key-token model, as `keytok fit` writes it. Only its spectrum is used.
        :param strength:
            The share of the first principal component that is taken out: 1.0 removes it, 0.0 changes nothing.

        :raises ValueError:
            If `strength` is negative or not finite.
        """
        if not (strength >= 0 and math.isfinite(strength)):
            msg = f"strength must be a finite number and not negative, but got {strength}."
            raise ValueError(msg)
        self.model = str(model)
        self.strength = strength
        self._spectrum: Spectrum | None = None

    def to_dict(self) -> dict[str, Any]:
        """
        Serializes the component to a dictionary.

        :returns:
            Dictionary with serialized data.
        """
        return default_to_dict(self, model=self.model, strength=self.strength)

    def warm_up(self) -> None:
        """
        Loads the spectrum of the key-token model.

        :raises ValueError:
            If the model has no spectrum, because it was read from a checkpoint and not calibrated.
        """
        self._loaded_spectrum()

    def _loaded_spectrum(self) -> Spectrum:
        if self._spectrum is None:
            self._spectrum = load_model(self.model).spectrum
        if self._spectrum is None:
            msg = f"The key-token model '{self.model}' has no spectrum: calibrate it with embeddings of your corpus."
            raise ValueError(msg)
        return self._spectrum

    @component.output_types(documents=list[Document], embedding=list[float])
    def run(
        self, documents: list[Document] | None = None, embedding: list[float] | None = None
    ) -> dict[str, list[Document] | list[float]]:
        """
        Adjusts the embeddings of documents, or one embedding.

        :param documents:
            Documents with embeddings.
        :param embedding:
            The embedding of a query.
        :returns:
            A dictionary with one of the following keys, according to the input:
            - `documents`: Copies of the documents with adjusted embeddings.
            - `embedding`: The adjusted embedding.

        :raises ValueError:
            If not exactly one of `documents` and `embedding` is given, or an embedding is missing or unusable.
        :raises TypeError:
            If `documents` is not a list of Documents.
        """
        if embedding is not None and documents is None:
            return {"embedding": self._loaded_spectrum().adjust([embedding], self.strength)[0].tolist()}
        if documents is None or embedding is not None:
            msg = "PC1Adjuster needs exactly one of `documents` and `embedding`."
            raise ValueError(msg)
        check_documents(documents, "PC1Adjuster")
        if not documents:
            return {"documents": []}
        spectrum = self._loaded_spectrum()
        adjusted = spectrum.adjust(document_embeddings(documents, spectrum.dimension), self.strength)
        return {"documents": [replace(d, embedding=e) for d, e in zip(documents, adjusted.tolist(), strict=True)]}
