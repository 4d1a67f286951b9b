# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Display of key tokens, for several commands."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from rich.console import Group
from rich.table import Table
from rich.text import Text

from keytok_haystack.confidence import note_of
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.sparse_vectors.rank_features import unescape_feature
from keytok_haystack.vocabulary import TokenizerVocabulary

_LITERAL, _ALIGNED = ("█", "#3d85c6"), ("▒", "#d9822b")  # told apart without colours, too
_BAR = 32


def token_table(model: KeyTokenModel, texts: Sequence[str], embeddings: NDArray[np.float32], top: int) -> Group:
    """
    Return the key tokens of texts as bars, as retrieval uses them, with the confidence of each text.

    :param model: Key-token model.
    :param texts: The `n` texts.
    :param embeddings: Shape `(n, d)`.
    :param top: Maximum number of tokens of a text.
    """
    grid = Table(show_header=False, box=None, padding=(0, 1))
    grid.add_column(justify="right", style="bold")
    grid.add_column(justify="right")
    grid.add_column()
    weights = model.encode_documents(embeddings, texts, top_k=top)
    strongest = weights.rows.data.max(initial=1e-9)
    for i, (text, tokens) in enumerate(zip(texts, model.document_tokens(weights), strict=True)):
        about = Text(text[:90] + ("…" if len(text) > 90 else ""), style="dim")
        if weights.confidences is not None:
            about.append(f"  {note_of(float(weights.confidences[i]))}", style="not dim")
        grid.add_row("", "", about)
        literals = with_whole_words(model, text, dict.fromkeys(model.literal_tokens(text), 0.0))
        for word, weight in with_whole_words(model, text, tokens).items():
            character, color = _LITERAL if word in literals else _ALIGNED
            bar = Text(character * max(1, round(_BAR * weight / strongest)), style=color)
            grid.add_row(Text(word), f"{weight:.2f}", bar)
    legend = Text.assemble(_LITERAL, " a word of the text   ", _ALIGNED, " read from its embedding alone")
    return Group(grid, legend)


def with_whole_words(model: KeyTokenModel, text: str, tokens: Mapping[str, float]) -> dict[str, float]:
    """Return the key tokens of a text for people: a word of the text in place of its pieces, strongest first."""
    vocabulary = model.vocabulary
    words = vocabulary.words_of_pieces(text) if isinstance(vocabulary, TokenizerVocabulary) else {}
    shown: dict[str, float] = {}
    for key, weight in tokens.items():
        feature = unescape_feature(key)
        shown.setdefault(words.get(feature, feature), weight)
    return shown
