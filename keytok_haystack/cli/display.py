# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Display of key tokens, for several commands."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from keytok_haystack.model import KeyTokenModel
from keytok_haystack.sparse_vectors.rank_features import unescape_feature
from keytok_haystack.vocabulary import TokenizerVocabulary


def token_table(model: KeyTokenModel, texts: list[str], embeddings: NDArray[np.float32], top: int) -> Table:
    """Return the key tokens of texts as bars."""
    grid = Table(show_header=False, box=None, padding=(0, 1))
    grid.add_column(justify="right", style="bold")
    grid.add_column(justify="right")
    grid.add_column()
    weights = model.encode_documents(embeddings, top_k=top)
    for text, tokens in zip(texts, model.document_tokens(weights), strict=True):
        grid.add_row("", "", Text(text[:90] + ("…" if len(text) > 90 else ""), style="dim"))
        strongest = max(tokens.values(), default=1.0)
        for word, weight in with_whole_words(model, text, tokens).items():
            bar = Text("█" * round(32 * weight / strongest), style="#d9822b")
            grid.add_row(Text(word), f"{weight:.2f}", bar)
    return grid


def with_whole_words(model: KeyTokenModel, text: str, tokens: Mapping[str, float]) -> dict[str, float]:
    """Return the key tokens of a text for people: a word of the text in place of its pieces, strongest first."""
    vocabulary = model.vocabulary
    words = vocabulary.words_of_pieces(text) if isinstance(vocabulary, TokenizerVocabulary) else {}
    shown: dict[str, float] = {}
    for key, weight in tokens.items():
        feature = unescape_feature(key)
        shown.setdefault(words.get(feature, feature), weight)
    return shown
