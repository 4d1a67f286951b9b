# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""From a text and its prompt to the token ids that a model sees."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from keytok_haystack.encoders.presets import Prompt
from keytok_haystack.vocabulary import copied_tokenizer

_AT_A_TIME = 1024  # a tokenizer's encodings take many times the memory of the texts


@dataclass(frozen=True)
class Input:
    """
    Input of a model.

    :param ids: Token ids, those of the prompt and special tokens included.
    :param text_start: Position of the first token with a character of the text, or of what follows the text.
    """

    ids: list[int]
    text_start: int


class InputBuilder:
    """
    Builder of inputs: it puts texts between the parts of a prompt, and truncates those that are too long.

    The end of a text is cut off, never that of the prompt: where the last token is pooled, that token makes the
    embedding.

    :param tokenizer: Tokenizer, which adds special tokens by its own rules; a copy is used, without truncation and
        padding.
    :param max_tokens: Maximum length of an input.
    :param ending: Id that inputs end with, if the tokenizer does not add it itself.
    """

    def __init__(self, tokenizer: Tokenizer, max_tokens: int, ending: int | None = None) -> None:
        self._tokenizer = copied_tokenizer(tokenizer)
        self._max_tokens = max_tokens
        self._ending = ending

    def __call__(self, texts: list[str], prompt: Prompt) -> list[Input]:
        """
        Return the inputs for texts.

        :raises ValueError: The prompt leaves no room for a text.
        """
        room = self._max_tokens - len(self._inputs([""], prompt)[0].ids)
        if room < 1:
            msg = f"The prompt leaves no room for a text within {self._max_tokens} tokens: shorten it, or allow more."
            raise ValueError(msg)
        built = []
        for start in range(0, len(texts), _AT_A_TIME):
            some = texts[start : start + _AT_A_TIME]
            built += [
                whole if len(whole.ids) <= self._max_tokens else self._cut(text, prompt, room)
                for text, whole in zip(some, self._inputs(some, prompt), strict=True)
            ]
        return built

    def _cut(self, text: str, prompt: Prompt, room: int) -> Input:
        """Return the input of a text that is too long, its end cut off; the prompt leaves `room` tokens for it."""
        ends = [0, *(end for _, end in self._tokenizer.encode(text, add_special_tokens=False).offsets)]
        room = min(room, len(ends) - 1)
        while True:
            (built,) = self._inputs([text[: ends[room]]], prompt)
            excess = len(built.ids) - self._max_tokens
            if excess <= 0:
                return built
            room = max(0, room - excess)  # tokens may differ beside the prompt or the cut

    def _inputs(self, texts: list[str], prompt: Prompt) -> list[Input]:
        if not prompt.apart:
            whole = self._tokenizer.encode_batch([f"{prompt.before}{text}{prompt.after}" for text in texts])
            start = len(prompt.before.rstrip(" "))  # the space before a text belongs to its first token
            return [Input(self._with_ending(each.ids), _first_token_after(each, start)) for each in whole]
        before, after = (
            self._tokenizer.encode(part, add_special_tokens=False).ids for part in (prompt.before, prompt.after)
        )
        return [
            Input(self._with_ending([*before, *encoding.ids, *after]), len(before))
            for encoding in self._tokenizer.encode_batch(texts)
        ]

    def _with_ending(self, ids: list[int]) -> list[int]:
        return ids if self._ending is None or ids[-1:] == [self._ending] else [*ids, self._ending]


def _first_token_after(encoding: Encoding, position: int) -> int:
    """Return the first token that ends after a character's position."""
    return next((i for i, (_, end) in enumerate(encoding.offsets) if end > position), len(encoding.ids))


class NotFiniteError(ValueError):
    """
    An embedding that is not finite.

    :param position: Position of its text.
    :param dtype: Type of the weights of the embedder.
    """

    def __init__(self, position: int, dtype: str) -> None:
        super().__init__(
            f"The embedding of text {position} is not finite in {dtype}: use the dtype bfloat16 or float32."
        )
        self.position = position
        self.dtype = dtype


def check_finite(embeddings: NDArray[np.float32], dtype: str) -> None:
    """
    Require finite embeddings, shape `(n, d)`.

    :param dtype: Type of the weights of the embedder, for the message.
    :raises NotFiniteError: One is not.
    """
    finite = np.isfinite(embeddings).all(axis=1)
    if not finite.all():
        raise NotFiniteError(int(np.argmin(finite)), dtype)
