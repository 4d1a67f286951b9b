# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from haystack import Document, component, default_to_dict
from haystack.components.embedders.types import TextEmbedder

from haystack_integrations.components.embedders.keytok.conversion import encode_query
from haystack_integrations.components.embedders.keytok.loading import load_model
from haystack_integrations.components.retrievers.keytok.explainer import KeyTokenExplainer
from haystack_integrations.components.retrievers.keytok.lifecycle import call_each
from haystack_integrations.components.retrievers.keytok.sparse_retriever import SparseRetriever
from keytok_haystack import KeyTokenModel
from keytok_haystack.explanation import without_tokens
from keytok_haystack.sparse_vectors.rank_features import unescape_feature

_BOOST = 2.0  # times the strongest token of the query
_SHOWN = 12  # tokens of the query that the text shows


@component
class EditableQueryRetriever:
    """
    Retrieves documents by a query whose key tokens can be edited: a search tool for agents.

    The query is embedded and read as key tokens. Then words are muted, boosted or required, and `SparseRetriever`
    searches with the rest. The output `text` describes the search to a language model: the tokens of the
    query, each hit with its id and the reason for it, and edits that had no effect, with alternatives. Wrap it in a
    `ComponentTool` to make it a tool.

    ### Usage example
    ```python
    from haystack.document_stores.in_memory import InMemoryDocumentStore
    from haystack.tools import ComponentTool
    from haystack_integrations.components.embedders.sentence_transformers import SentenceTransformersTextEmbedder
    from haystack_integrations.components.retrievers.keytok import EditableQueryRetriever, SparseRetriever

    store = InMemoryDocumentStore(index="keytok")
    search = EditableQueryRetriever(
        SparseRetriever(store, model="models/key-tokens", dense_weight=1.5, bm25_weight=0.05, top_k=5),
        text_embedder=SentenceTransformersTextEmbedder(model="sentence-transformers/all-MiniLM-L6-v2"),
    )
    tool = ComponentTool(search, name="search", outputs_to_string={"source": "text"}, description="Searches articles.")
    print(tool.invoke(query="shock waves in air", mute=["air"], require=["wave"])["text"])
    ```
    """

    def __init__(self, retriever: SparseRetriever, *, text_embedder: TextEmbedder) -> None:
        """
        Creates an EditableQueryRetriever component.

        :param retriever:
            The retriever to search with, which has a `model`.
        :param text_embedder:
            The text embedder for queries. Its embeddings must be of the kind that the documents and the key-token model
            have.

        :raises ValueError:
            If the retriever has no `model`.
        """
        if retriever.model is None:
            msg = "EditableQueryRetriever reads the tokens of a query by the retriever's model: set its `model`."
            raise ValueError(msg)
        self.retriever = retriever
        self.text_embedder = text_embedder
        self._model_path = retriever.model
        self._explainer = KeyTokenExplainer(field=retriever.field)

    def to_dict(self) -> dict[str, Any]:
        """
        Serializes the component to a dictionary.

        :returns:
            Dictionary with serialized data.
        """
        return default_to_dict(self, retriever=self.retriever, text_embedder=self.text_embedder)

    def warm_up(self) -> None:
        """
        Warms up the text embedder and the retriever.
        """
        call_each("warm_up", self.text_embedder, self.retriever)

    def close(self) -> None:
        """
        Frees what the text embedder and the retriever hold; a later run restores it.
        """
        call_each("close", self.text_embedder, self.retriever)

    @component.output_types(
        text=str, documents=list[Document], key_tokens=dict[str, float], meta=dict[str, Any], notes=list[str]
    )
    def run(
        self,
        query: str,
        boost: list[str] | None = None,
        mute: list[str] | None = None,
        require: list[str] | None = None,
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
    ) -> dict[str, Any]:
        """
        Searches documents by meaning and by words.

        :param query:
            What to search for, in a phrase or a sentence. Words that mean the same are searched for, too, and the
            answer lists all of them as the tokens of the query.
        :param boost:
            Words that matter most: each counts twice as much as the strongest other token. They need not be in the
            query.
        :param mute:
            Words to leave out of the query. Use it for tokens of the query that an earlier search has listed and that
            lead to wrong documents.
        :param require:
            Words that every returned document must have. Use it if too much is found, and only for single words that
            are indispensable.
        :param filters:
            Conditions on the metadata of documents, such as {"field": "meta.year", "operator": ">=", "value": 1960};
            several are joined as {"operator": "AND", "conditions": [...]}. Operators are ==, !=, >, >=, <, <=, in and
            not in.
        :param top_k:
            Maximum number of documents to return.
        :returns:
            A dictionary with the following keys:
            - `text`: The tokens of the query, the documents with ids, scores and reasons, and the notes, for a language
                model to read.
            - `documents`: The documents, best first, explained as by `KeyTokenExplainer`.
            - `key_tokens`: Key tokens of the query, as edited.
            - `meta`: What is known of them, as `SparseRetriever` tells it.
            - `notes`: Sentences about edits that had no effect, and what to try instead.

        :raises ValueError:
            If the query's embedding or text is unusable, or `top_k` is negative.
        :raises FilterError:
            If the filters are invalid.
        :raises DocumentStoreError:
            If an engine cannot be reached or cannot answer.
        """
        self.warm_up()
        model = load_model(self._model_path)
        embedding = self.text_embedder.run(text=query)["embedding"]
        asked, _, meta = encode_query(model, embedding, query)
        boosted, muted, required = (_keys(model, words) for words in (boost, mute, require))
        strongest = max(asked.values(), default=1.0)
        tokens = {key: weight for key, weight in asked.items() if key not in muted}
        tokens = {**dict.fromkeys(required, strongest), **tokens, **dict.fromkeys(boosted, _BOOST * strongest)}
        found = self.retriever.run(
            key_tokens=tokens,
            query=without_tokens(model, query, muted),
            query_embedding=embedding if self.retriever.dense_weight else None,
            filters=filters,
            top_k=top_k,
            required_tokens=required,
        )
        literals = [*meta["literal_tokens"], *map(unescape_feature, (*boosted, *required))]
        meta = {**meta, "literal_tokens": literals, **found["meta"]}
        documents = self._explainer.run(found["documents"], tokens, meta)["documents"]
        matched = {match["token"] for hit in found["documents"] for match in hit.meta["matched_tokens"]}
        wanted = dict.fromkeys((*boosted, *required))
        unmatched = [key for key in wanted if unescape_feature(key) not in matched and (documents or not filters)]
        notes = [
            *(note for words in (boost, mute, require) for note in _not_words(model, words)),
            *(_not_muted(key, asked) for key in muted if key not in asked),
            *(_not_muted_but_wanted(key) for key in muted if key in wanted),
            *(_not_found(key, model) for key in unmatched),
        ]
        return {
            "text": _as_text(documents, tokens, meta, notes),
            "documents": documents,
            "key_tokens": tokens,
            "meta": meta,
            "notes": notes,
        }


def _keys(model: KeyTokenModel, words: Iterable[str] | None) -> list[str]:
    """Return the tokens of words that were given one by one, each once."""
    return list(dict.fromkeys(key for word in words or () for key in model.literal_tokens(word)))


def _not_words(model: KeyTokenModel, words: Iterable[str] | None) -> list[str]:
    return [
        f"'{word}' cannot be searched for and was ignored." for word in words or () if not model.literal_tokens(word)
    ]


def _not_muted(key: str, asked: dict[str, float]) -> str:
    return f"'{unescape_feature(key)}' was not muted: the tokens of this query are {_listed(asked)}."


def _not_muted_but_wanted(key: str) -> str:
    return f"'{unescape_feature(key)}' was not muted, since it is boosted or required, too."


def _not_found(key: str, model: KeyTokenModel) -> str:
    word = unescape_feature(key)
    similar = [each for each in get_close_matches(key, model.vocabulary.keys, n=4) if each != key]
    instead = f" Similar tokens of the model: {', '.join(map(unescape_feature, similar))}." if similar else ""
    return f"None of the returned documents has '{word}'.{instead}"


def _listed(tokens: dict[str, float]) -> str:
    best = sorted(tokens.items(), key=lambda item: -item[1])[:_SHOWN]
    return ", ".join(f"{unescape_feature(key)} {weight:.2f}" for key, weight in best) or "none"


def _as_text(documents: list[Document], tokens: dict[str, float], meta: dict[str, Any], notes: list[str]) -> str:
    """Return the result of a search as a language model reads it."""
    confidence = "" if meta.get("confidence") is None else f"; confidence {meta['confidence']:.2f}"
    lines = [f"Tokens of the query: {_listed(tokens)}{confidence}"]
    if not documents:
        lines.append(f"Nothing found. {meta.get('empty', '')}".strip())
    for position, document in enumerate(documents, start=1):
        parts = document.meta.get("score_parts", {})
        of_parts = ", ".join(f"{name} {part['score']:.2f}" for name, part in parts.items())
        score = f"{document.score or 0:.2f}{f' ({of_parts})' if of_parts else ''}"
        lines += ["", f"{position}. id {document.id}, score {score}, {document.meta['why']}", document.content or ""]
    return "\n".join([*lines, *(["", *(f"Note: {note}" for note in notes)] if notes else [])])
