# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""From a text and what stands around it to the token ids that a model sees."""

from dataclasses import dataclass

from tokenizers import Encoding, Tokenizer

from keytok_haystack.encoders.presets import Prompt

_AT_A_TIME = 1024  # what a tokenizer gives of a text takes up many times the text's memory


@dataclass(frozen=True)
class Input:
    """
    A text as a model sees it.

    :param ids: The token ids, the prompt's and special ones included.
    :param text_start: The position of the first token that has a character of the text, or of what is after it.
    """

    ids: list[int]
    text_start: int


class InputBuilder:
    """
    Put texts between the parts of a prompt, and cut those that are too long.

    The end of a text is cut off, never that of the prompt: where the last token is pooled, it is what makes the
    embedding.

    :param tokenizer: It adds special tokens by its own rules; it is copied, and the copy neither truncates nor pads.
    :param max_tokens: How long an input may be.
    :param ending: The id that inputs end with, if the tokenizer does not put it there itself.
    """

    def __init__(self, tokenizer: Tokenizer, max_tokens: int, ending: int | None = None) -> None:
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._max_tokens = max_tokens
        self._ending = ending

    def __call__(self, texts: list[str], prompt: Prompt) -> list[Input]:
        """
        Return the inputs of texts.

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
        """Leave out as many of a text's last tokens as are too many; `room` are left by the prompt alone."""
        ends = [0, *(end for _, end in self._tokenizer.encode(text, add_special_tokens=False).offsets)]
        room = min(room, len(ends) - 1)
        while True:
            (built,) = self._inputs([text[: ends[room]]], prompt)
            excess = len(built.ids) - self._max_tokens
            if excess <= 0:
                return built
            room = max(0, room - excess)  # beside the prompt or a cut, other tokens come out

    def _inputs(self, texts: list[str], prompt: Prompt) -> list[Input]:
        if not prompt.apart:
            whole = self._tokenizer.encode_batch([f"{prompt.before}{text}{prompt.after}" for text in texts])
            start = len(prompt.before.rstrip(" "))  # the space before a text is in its first token, or is that
            return [Input(self._ended(each.ids), _first_behind(each, start)) for each in whole]
        before, after = (
            self._tokenizer.encode(part, add_special_tokens=False).ids for part in (prompt.before, prompt.after)
        )
        return [
            Input(self._ended([*before, *encoding.ids, *after]), len(before))
            for encoding in self._tokenizer.encode_batch(texts)
        ]

    def _ended(self, ids: list[int]) -> list[int]:
        return ids if self._ending is None or ids[-1:] == [self._ending] else [*ids, self._ending]


def _first_behind(encoding: Encoding, position: int) -> int:
    """Return the first token that reaches beyond a character's position."""
    return next((i for i, (_, end) in enumerate(encoding.offsets) if end > position), len(encoding.ids))
