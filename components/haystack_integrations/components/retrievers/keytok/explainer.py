# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
from typing import Any

from haystack import Document, component, default_to_dict

from haystack_integrations.components.embedders.keytok.conversion import (
    check_documents,
    checked_key_tokens,
    matched_tokens,
    stored_key_tokens,
)
from keytok_haystack.confidence import UNSURE
from keytok_haystack.explanation import sentence_of
from keytok_haystack.sparse_vectors.rank_features import unescape_feature


@component
class KeyTokenExplainer:
    """
    Explains hits by the tokens that they share with the query.

    Each document gets `meta["matched_tokens"]`, strongest first, and loses its bulky `meta["key_tokens"]`. Put it
    at the end of a pipeline: it explains any document that was written with key tokens, whichever retriever found it.
    `SparseRetriever` returns all matched tokens of its hits, of which the explainer keeps the strongest. The
    contributions of all of them sum to the hit's score, or to the part `key_tokens` of `meta["score_parts"]`.

    ### Usage example
    ```python
    from haystack import Document
    from haystack_integrations.components.retrievers.keytok import KeyTokenExplainer

    documents = [Document(content="shock waves", meta={"key_tokens": {"shock": 0.5, "wave": 1.0}})]
    explained = KeyTokenExplainer().run(documents=documents, key_tokens={"shock": 1.0, "boundary": 0.7})
    print(explained["documents"][0].meta["matched_tokens"])

    # [{'token': 'shock', 'query_weight': 1.0, 'document_weight': 0.5, 'contribution': 0.5}]
    ```
    """

    def __init__(self, *, top_k: int | None = 10, strip: bool = True, field: str = "key_tokens") -> None:
        """
        Creates a KeyTokenExplainer component.

        :param top_k:
            Maximum number of matched tokens, and of missing ones, to list; `None` lists all.
        :param strip:
            Whether to remove the document's key tokens from its `meta`, of which they take about 1 KB; hits of
            `SparseRetriever` come without.
        :param field:
            The key of `meta` that holds a document's key tokens.

        :raises ValueError:
            If `top_k` is not greater than 0.
        """
        if top_k is not None and top_k <= 0:
            msg = f"top_k must be greater than 0, but got {top_k}."
            raise ValueError(msg)
        self.top_k = top_k
        self.strip = strip
        self.field = field

    def to_dict(self) -> dict[str, Any]:
        """
        Serializes the component to a dictionary.

        :returns:
            Dictionary with serialized data.
        """
        return default_to_dict(self, top_k=self.top_k, strip=self.strip, field=self.field)

    @component.output_types(documents=list[Document])
    def run(
        self, documents: list[Document], key_tokens: dict[str, float], meta: dict[str, Any] | None = None
    ) -> dict[str, list[Document]]:
        """
        Explains documents.

        :param documents:
            Documents that any retriever has found.
        :param key_tokens:
            Key tokens of the query, `{token: weight}`: those that `SparseRetriever` has found its hits with.
        :param meta:
            What `SparseRetriever` or `KeyTokenSparseEmbedder` tells about them, their output `meta`: it is needed to
            tell the words of the query from what its embedding adds.
        :returns:
            A dictionary with the following keys:
            - `documents`: Copies of the documents, in the same order. `meta["matched_tokens"]` is a list of dicts with
                the keys `token`, `query_weight`, `document_weight` and `contribution`; it is empty for a document that
                shares no key token with the query or was written without any. `meta["missing"]` lists the tokens of the
                query that the document lacks, strongest first: dicts with the keys `token` and `query_weight`.
                With the input `meta`, `meta["added_by_meaning"]` lists those matched tokens that are not words of the
                query, `meta["why"]` is the explanation in a sentence, and `meta["query_confidence"]` the confidence of
                the query, if it is known. `meta["may_be_chance"]` is true if that is below 0.5 and the document has no
                word of the query.

        :raises TypeError:
            If `documents` is not a list of Documents, or the query's key tokens, or what a document's field holds, are
            not a dict of strings and numbers.
        :raises ValueError:
            If a weight is not positive and finite.
        """
        check_documents(documents, "KeyTokenExplainer")
        query = checked_key_tokens(key_tokens, "the query")
        return {"documents": [self._explain(document, query, meta or {}) for document in documents]}

    def _explain(self, document: Document, key_tokens: dict[str, float], about: dict[str, Any]) -> Document:
        stripped = {key: value for key, value in document.meta.items() if not (self.strip and key == self.field)}
        # a hit without its key tokens may have a sparse embedding all the same, whose indices the query's names are not
        matched = [] if self.field in document.meta else _matched_by_retriever(document, key_tokens)
        if not matched and (tokens := stored_key_tokens(document, self.field)):
            matched = matched_tokens(key_tokens, checked_key_tokens(tokens, f"document '{document.id}'"))
        shared = [each["token"] for each in matched]
        missing = [
            {"token": token, "query_weight": weight}
            for token, weight in ((unescape_feature(key), weight) for key, weight in key_tokens.items())
            if token not in shared
        ]
        explanation: dict[str, Any] = {"matched_tokens": matched[: self.top_k], "missing": missing[: self.top_k]}
        if (literals := about.get("literal_tokens")) is not None:
            explanation["added_by_meaning"] = [token for token in shared if token not in literals][: self.top_k]
            explanation["why"] = sentence_of(shared, literals)
        if (confidence := about.get("confidence")) is not None:
            explanation["query_confidence"] = confidence
            explanation["may_be_chance"] = confidence < UNSURE and not any(t in (literals or ()) for t in shared)
        return replace(document, meta={**stripped, **explanation})


def _matched_by_retriever(document: Document, key_tokens: dict[str, float]) -> list[dict[str, Any]]:
    """Return the matched tokens that a hit comes with; others than of this query may have been stored with it."""
    told = document.meta.get("matched_tokens")
    asked = [(unescape_feature(key), weight) for key, weight in key_tokens.items()]
    return [
        each
        for each in (told if isinstance(told, list) else [])
        if isinstance(each, dict) and (each.get("token"), each.get("query_weight")) in asked
    ]
