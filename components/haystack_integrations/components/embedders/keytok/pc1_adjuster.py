# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from haystack import Document, component, default_to_dict, logging

from haystack_integrations.components.embedders.keytok.conversion import check_documents, document_embeddings
from haystack_integrations.components.embedders.keytok.loading import load_model
from keytok_haystack import KeyTokenModel, Spectrum

logger = logging.getLogger(__name__)


@component
class PC1Adjuster:
    """
    Takes the first principal component out of embeddings.

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
        self._model: KeyTokenModel | None = None

    def to_dict(self) -> dict[str, Any]:
        """
        Serializes the component to a dictionary.

        :returns:
            Dictionary with serialized data.
        """
        return default_to_dict(self, model=self.model, strength=self.strength)

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
        if self._model is None:
            model = load_model(self.model)
            if model.spectrum is not None and model.decoder.preparation.removed is None:
                logger.warning(
                    "The key-token model '{model}' was fitted without removing the first principal component, so "
                    "adjusted embeddings have other key tokens than raw ones. Fit it with a spectrum.",
                    model=self.model,
                )
            self._model = model
        if self._model.spectrum is None:
            msg = f"The key-token model '{self.model}' has no spectrum: calibrate it with embeddings of your corpus."
            raise ValueError(msg)
        return self._model.spectrum

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
