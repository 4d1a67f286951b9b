# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING, Any, overload

from haystack import Document, component, default_to_dict
from haystack.utils import ComponentDevice, Secret

from haystack_integrations.components.embedders.keytok.conversion import check_documents
from keytok_haystack.encoders import PRESETS, find_preset, load_encoder

if TYPE_CHECKING:
    from keytok_haystack.encoders.language_model import LanguageModelEncoder

_LOADING = Lock()


@component
class LanguageModelEmbedder:
    """
    Embeds documents or queries with a language model as its authors run it: prompts, attention and pooling.

    Use it for embedders that sentence-transformers cannot run: PromptEOL (a prompt that continues after the text),
    GritLM and LLM2Vec (attention in both directions, pooling without the instruction), SGPT, adapters, and GGUF files.
    Pass `documents` in an indexing pipeline, and `text` in a query pipeline.

    ### Usage example
    ```python
    from haystack import Document
    from haystack_integrations.components.embedders.keytok import LanguageModelEmbedder

    embedder = LanguageModelEmbedder(model="prompt-eol:HuggingFaceTB/SmolLM2-135M-Instruct")

    print(embedder.run(documents=[Document(content="shock waves")])["documents"][0].embedding[:3])
    print(embedder.run(text="hypersonic flow")["embedding"][:3])
    ```
    """

    def __init__(
        self,
        model: str,
        *,
        instruction: str | None = None,
        device: ComponentDevice | None = None,
        dtype: str | None = None,
        token: Secret | None = Secret.from_env_var(["HF_API_TOKEN", "HF_TOKEN"], strict=False),  # noqa: B008
        max_tokens: int | None = None,
        batch_tokens: int | None = None,
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
        progress_bar: bool = True,
    ) -> None:
        """
        Creates a LanguageModelEmbedder component.

        :param model:
            The name of a preset, such as "gritlm-7b" or "qwen3-embedding-0.6b" (see `keytok_haystack.encoders.PRESETS`
            for all names), or `NAME:CHECKPOINT` to run another checkpoint like a preset: a hub id, a folder, a PEFT
            adapter or a GGUF file.
        :param instruction:
            The instruction for queries, in place of the preset's own. If the preset takes instructions, an empty one
            embeds queries as documents.
        :param device:
            The device to run the model on. By default, Haystack's default device.
        :param dtype:
            The type of the model's weights, such as "bfloat16". By default, float32 on a CPU, and bfloat16 or float16
            on a GPU.
        :param token:
            The API token for downloading gated models from Hugging Face.
        :param max_tokens:
            The maximum length of the whole input in tokens, prompt included. The end of a longer text is cut off; the
            prompt stays whole. By default, the preset's maximum length.
        :param batch_tokens:
            The maximum number of tokens in a batch. By default, 4,096 on a CPU and 32,768 on a GPU.
        :param meta_fields_to_embed:
            List of metadata fields to embed along with the document's content.
        :param embedding_separator:
            Separator used to concatenate the metadata fields and the content.
        :param progress_bar:
            If `True`, shows a progress bar when embedding documents.

        :raises ValueError:
            If the model is not a preset, the preset takes no instruction, or a number is not positive.
        """
        preset = find_preset(model)
        if preset is None:
            msg = (
                f"'{model}' is not the name of a preset: {', '.join(PRESETS)}. Models that sentence-transformers can "
                "run are for SentenceTransformersDocumentEmbedder and SentenceTransformersTextEmbedder."
            )
            raise ValueError(msg)
        preset.prompt("query", instruction)  # raises an error if the preset takes no instruction
        for name, value in (("max_tokens", max_tokens), ("batch_tokens", batch_tokens)):
            if value is not None and value <= 0:
                msg = f"{name} must be greater than 0, but got {value}."
                raise ValueError(msg)
        self.model = model
        self.instruction = instruction
        self.device = ComponentDevice.resolve_device(device)
        self.dtype = dtype
        self.token = token
        self.max_tokens = max_tokens
        self.batch_tokens = batch_tokens
        self.meta_fields_to_embed = meta_fields_to_embed or []
        self.embedding_separator = embedding_separator
        self.progress_bar = progress_bar
        self._encoder: LanguageModelEncoder | None = None

    def to_dict(self) -> dict[str, Any]:
        """
        Serializes the component to a dictionary.

        :returns:
            Dictionary with serialized data.
        """
        return default_to_dict(
            self,
            model=self.model,
            instruction=self.instruction,
            device=self.device,
            dtype=self.dtype,
            token=self.token,
            max_tokens=self.max_tokens,
            batch_tokens=self.batch_tokens,
            meta_fields_to_embed=self.meta_fields_to_embed,
            embedding_separator=self.embedding_separator,
            progress_bar=self.progress_bar,
        )

    def warm_up(self) -> None:
        """
        Loads the language model, and downloads it if necessary.

        :raises ValueError:
            If it cannot be loaded, or not be run like the preset.
        :raises ModuleNotFoundError:
            If torch or transformers is not installed.
        """
        self._loaded_encoder()

    def close(self) -> None:
        """
        Frees the language model; a later run loads it again.
        """
        self._encoder = None

    def _loaded_encoder(self) -> "LanguageModelEncoder":
        encoder = self._encoder  # a name of its own, which no `close` elsewhere takes away
        if encoder is None:
            with _LOADING:  # once, however many ask at first
                encoder = self._encoder
                if encoder is None:
                    encoder = self._encoder = load_encoder(
                        self.model,
                        max_tokens=self.max_tokens,
                        device=self.device.to_torch_str(),
                        dtype=self.dtype,
                        batch_tokens=self.batch_tokens,
                        token=self.token.resolve_value() if self.token else None,
                    )
        return encoder

    @overload  # as Haystack's protocols of document embedders and of text embedders have it
    def run(self, documents: list[Document]) -> dict[str, Any]: ...

    @overload
    def run(self, text: str) -> dict[str, Any]: ...

    @component.output_types(documents=list[Document], embedding=list[float])  # type: ignore[misc]
    def run(self, documents: list[Document] | None = None, text: str | None = None) -> dict[str, Any]:
        """
        Embeds a list of documents or a query, each also as the only positional argument.

        :param documents:
            The documents to embed. A document without `content` is embedded as an empty text.
        :param text:
            The query to embed.
        :returns:
            A dictionary with one of the following keys, depending on the input:
            - `documents`: Copies of the documents with embeddings.
            - `embedding`: The embedding of the query.

        :raises ValueError:
            If not exactly one of `documents` and `text` is given, or a text cannot be embedded: it has half a
            surrogate pair, or it is empty although the prompt is not pooled.
        :raises TypeError:
            If `documents` is not a list of Documents, or `text` is not a string.
        """
        if isinstance(documents, str) and text is None:
            documents, text = None, documents
        if text is not None and documents is None:
            return {"embedding": self._loaded_encoder().encode([text], "query", self.instruction)[0].tolist()}
        if documents is None or text is not None:
            msg = "LanguageModelEmbedder needs exactly one of `documents` and `text`."
            raise ValueError(msg)
        check_documents(documents, "LanguageModelEmbedder")
        if not documents:
            return {"documents": []}
        texts = [self._text(document) for document in documents]
        embeddings = self._loaded_encoder().encode(texts, "document", progress_bar=self.progress_bar)
        return {"documents": [replace(d, embedding=e) for d, e in zip(documents, embeddings.tolist(), strict=True)]}

    def _text(self, document: Document) -> str:
        values = (document.meta.get(field) for field in self.meta_fields_to_embed)
        fields = [str(value) for value in values if value is not None and value != ""]  # 0 and False say something
        return self.embedding_separator.join([*fields, document.content or ""])
