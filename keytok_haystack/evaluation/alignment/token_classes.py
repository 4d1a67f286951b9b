# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Tokens for people: their classes, and the strongest ones of a text."""

import re
from collections.abc import Set as AbstractSet

import numpy as np
from bm25s.stopwords import STOPWORDS_EN_PLUS
from numpy.typing import NDArray

from keytok_haystack.evaluation.alignment.report import Token
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.vocabulary import WHITE_SPACE, is_readable

CLASSES = ("stop words", "punctuation", "content", "special")
N_SHOWN = 12
"""Maximum number of tokens shown of a text or a component."""
_SPECIAL = re.compile(r"[<\[]\S+[>\]]")


def token_class(token: str) -> str:
    """Return the class of a token, one of `CLASSES`; English stop words are those of NLTK's list."""
    surface = surface_form(token)
    if _SPECIAL.fullmatch(surface):
        return "special"
    if surface in STOPWORDS_EN_PLUS:
        return "stop words"
    return "content" if is_readable(surface) else "punctuation"


def class_positions(head: KeyTokenModel) -> NDArray[np.int64]:
    """Return the position in `CLASSES` of each feature, shape `(V,)`."""
    return np.array([CLASSES.index(token_class(feature)) for feature in head.vocabulary.features])


def class_shares(amounts: NDArray[np.number]) -> dict[str, float]:
    """Return the share of each class in amounts of shape `(len(CLASSES),)`."""
    total = amounts.sum() or 1.0
    return {name: float(amount / total) for name, amount in zip(CLASSES, amounts, strict=True)}


def strongest_tokens(head: KeyTokenModel, embedding: NDArray[np.float32], text: str) -> list[Token]:
    """Return the strongest tokens of one embedding, shape `(d,)`, and whether the text contains them."""
    return tokens_of(head, head.decoder.logits(embedding[None])[0], literal_forms(head, text))


def tokens_of(
    head: KeyTokenModel, values: NDArray[np.floating], literals: AbstractSet[str] = frozenset()
) -> list[Token]:
    """
    Return the features with the largest positive values, strongest first.

    :param head: The model with the features.
    :param values: A value of each feature, shape `(V,)`.
    :param literals: Surface forms of the literal tokens (`literal_forms`).
    """
    order = [i for i in np.argsort(-values, kind="stable")[:N_SHOWN].tolist() if values[i] > 0]
    features = head.vocabulary.features
    return [Token(features[i], float(values[i]), surface_form(features[i]) in literals) for i in order]


def literal_forms(head: KeyTokenModel, text: str) -> set[str]:
    """Return the surface forms of a text's literal tokens."""
    return {surface_form(head.vocabulary.features[i]) for i in head.vocabulary.literal_counts([text]).known.indices}


def surface_form(token: str) -> str:
    """Return a token without the white space around it and without case, as in a folded vocabulary."""
    return token.strip(WHITE_SPACE).casefold()
