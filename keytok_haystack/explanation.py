# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Why a query finds a document, as data and as a sentence."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import regex
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import orth

from keytok_haystack.confidence import as_floats
from keytok_haystack.embedding_space import cosine
from keytok_haystack.encoders import embed
from keytok_haystack.inverted_index import contributions
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.sparse_vectors.rank_features import unescape_feature
from keytok_haystack.utils.checks import check_embeddings, check_same_number

_NAMED = 3  # tokens of each kind that a sentence names
_LETTERS = r"[\p{L}\p{M}\p{N}\u00ad\u200d]"  # and marks, and what is not seen inside words
_WORD = rf"\p{{L}}(?:\+\+|\#)(?!{_LETTERS})|{_LETTERS}+(?:['\u2019.,]{_LETTERS}+)*"
_WORDS = regex.compile(_WORD)
_COMPOUNDS = regex.compile(rf"(?:{_WORD})(?:[-_\u2010](?:{_WORD}))*")


@dataclass(frozen=True)
class SharedToken:
    """
    Token that a query and a document share.

    :param token: The token.
    :param is_literal: Whether it is a word of the query's text, and not of its embedding alone.
    :param query_weight: Its weight in the query.
    :param document_weight: Its weight in the document, as Lucene stores it.
    """

    token: str
    is_literal: bool
    query_weight: float
    document_weight: float

    @property
    def contribution(self) -> float:
        """What it adds to the score: the product of the weights."""
        return self.query_weight * self.document_weight


@dataclass(frozen=True)
class Explanation:
    """
    What a query and a document have in common, and what not, in tokens.

    :param shared: Tokens that they share, the largest contribution first.
    :param missing: Tokens of the query that the document lacks, with their weights, the strongest first.
    :param unasked: Tokens of the document that the query lacks, with their weights, the strongest first.
    """

    shared: list[SharedToken]
    missing: dict[str, float]
    unasked: dict[str, float]

    @classmethod
    def of(cls, query: Mapping[str, float], document: Mapping[str, float], literals: Collection[str]) -> Self:
        """
        Compare key tokens.

        :param query: Key tokens of the query, `{key: weight}`.
        :param document: Those of the document.
        :param literals: Keys of the literal tokens of the query's text.
        """
        return cls(
            shared=[
                SharedToken(unescape_feature(key), key in literals, query_weight, document_weight)
                for key, query_weight, document_weight, _ in contributions(query, document)
            ],
            missing=_without(query, document),
            unasked=_without(document, query),
        )

    @property
    def score(self) -> float:
        """Score of the document by key tokens: the sum of the contributions."""
        return sum(each.contribution for each in self.shared)

    @property
    def sentence(self) -> str:
        """The explanation in one sentence."""
        literals = [each.token for each in self.shared if each.is_literal]
        return sentence_of([each.token for each in self.shared], literals)


@dataclass(frozen=True)
class TextExplanation(Explanation):
    """
    Explanation of two texts whose embeddings are known.

    :param confidence: Confidence of the query, if the model knows it.
    :param cosine: Cosine of the embeddings.
    :param dense_share: Share of the dense similarity that the shared tokens account for (`dense_share`).
    """

    confidence: float | None
    cosine: float
    dense_share: float | None


def explain(
    model: KeyTokenModel,
    query: str,
    document: str,
    *,
    embedder: str | None = None,
    embeddings: ArrayLike | None = None,
) -> TextExplanation:
    """
    Explain how a query finds a document, without an index.

    :param model: Key-token model.
    :param query: Text of the query.
    :param document: Text of the document.
    :param embedder: Embedding model; by default the one that the model was fitted to.
    :param embeddings: Embeddings of the two texts, shape `(2, d)`, if they are there already.
    :raises EmbeddingError: The embeddings are unusable.
    :raises ValueError: It is not known which embedder to use, or the embedder cannot be run.
    """
    if embeddings is None:
        name = embedder or model.embedder
        if name is None:
            msg = "The model does not name its embedder: pass `embedder`, or the `embeddings` of both texts."
            raise ValueError(msg)
        asked = embed([query], name, role="query", progress_bar=False).embeddings
        embeddings = np.concatenate([asked, embed([document], name, progress_bar=False).embeddings])
    both = check_embeddings(embeddings, model.dimension)
    check_same_number(len(both), 2)
    queries = model.encode_queries(both[:1], [query])
    (query_tokens,) = model.query_tokens(queries)
    (document_tokens,) = model.document_tokens(model.encode_documents(both[1:], [document]))
    compared = Explanation.of(query_tokens, document_tokens, model.literal_tokens(query))
    return TextExplanation(
        **vars(compared),
        confidence=as_floats(queries.confidences, 1)[0],
        cosine=cosine(*both),
        dense_share=dense_share(model, both, [each.token for each in compared.shared]),
    )


def dense_share(model: KeyTokenModel, embeddings: NDArray[np.float32], tokens: Iterable[str]) -> float | None:
    """
    Return the share of the similarity of two embeddings that some tokens account for.

    It is what their product keeps if both prepared embeddings are projected onto the span of the tokens' rows in the
    decoder: 1 for tokens that say all that the embeddings have in common, about 0 for random tokens, and less than 0 if
    the embeddings differ in what the tokens say.

    :param model: Key-token model.
    :param embeddings: Shape `(2, d)`, checked.
    :param tokens: The tokens; those that the decoder has no row for count for nothing.
    :returns: None if the embeddings are not similar at all, so that there is nothing to account for.
    """
    prepared = model.decoder.preparation(embeddings).astype(np.float64)
    similarity = float(prepared[0] @ prepared[1])
    if similarity <= 0:
        return None
    columns = model.vocabulary.columns_of(tokens)
    rows = model.decoder.weight[[column for column in columns if column < len(model.decoder)]].astype(np.float64)
    if not len(rows):
        return 0.0
    basis = orth(rows.T)  # also of rows that are equal, as those of words that occur in the same texts
    return float((prepared[0] @ basis) @ (prepared[1] @ basis)) / similarity


def spans_of(
    text: str, keys: Collection[str], tokens_of: Callable[[str], Iterable[str]]
) -> Iterator[tuple[int, int, str]]:
    """
    Yield the places of a text that say some tokens: start, end and key, in their order.

    A compound is one place if it is a token as a whole, such as x-15, and otherwise its parts are.

    :param text: Text.
    :param keys: Keys of the tokens.
    :param tokens_of: Function from a word to the keys of its literal tokens (`KeyTokenModel.literal_tokens`).
    """
    for compound in _COMPOUNDS.finditer(text):
        parts = [(*word.span(), tokens_of(word.group())) for word in _WORDS.finditer(text, *compound.span())]
        of_parts = {key for _, _, tokens in parts for key in tokens}
        whole = [key for key in tokens_of(compound.group()) if key not in of_parts]
        for start, end, tokens in [(*compound.span(), whole)] if any(key in keys for key in whole) else parts:
            said = next((key for key in tokens if key in keys), None)
            if said is not None:
                yield start, end, said


def without_tokens(model: KeyTokenModel, text: str, keys: Collection[str]) -> str:
    """
    Return a text without the words that say some tokens, for BM25.

    :param model: Key-token model.
    :param text: Text.
    :param keys: Keys of the tokens.
    """
    left, end = [], 0
    for start, stop, _ in spans_of(text, keys, model.literal_tokens) if keys else ():
        left.append(text[end:start])
        end = stop
    return "".join([*left, text[end:]])


def sentence_of(tokens: Sequence[str], literals: Iterable[str]) -> str:
    """
    Say what a document is found for.

    :param tokens: Tokens that it shares with the query, the largest contribution first.
    :param literals: Words of the query's text.
    """
    words = set(literals)
    own = [token for token in tokens if token in words][:_NAMED]
    other = [token for token in tokens if token not in words][:_NAMED]
    parts = [f"{', '.join(named)} ({kind})" for named, kind in ((own, "your words"), (other, "its meaning")) if named]
    return f"found for {' and '.join(parts)}" if parts else "shares no token with the query"


def _without(tokens: Mapping[str, float], others: Mapping[str, Any]) -> dict[str, float]:
    return {unescape_feature(key): weight for key, weight in tokens.items() if key not in others}
