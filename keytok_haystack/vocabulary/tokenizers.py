# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Tokenizers, and the surface forms of their tokens."""

import json
import re
import unicodedata
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

_UNUSED = re.compile(
    r"[\[<]\|?(unused|reserved|extra_id|pad|unk|cls|sep|mask|placeholder)[_ ]?(special_token_)?\d*\|?[\]>]",
    re.IGNORECASE,
)
WHITE_SPACE = "␣⏎␍⇥"  # what is shown in its place
_VISIBLE = str.maketrans(" \n\r\t", WHITE_SPACE)
_BYTE_FALLBACK = re.compile(r"<0x[0-9A-F]{2}>")


def load_tokenizer(path: Path) -> Tokenizer:
    """
    Read a tokenizer.

    :param path: A `tokenizer.json`, or the folder that holds it.
    :raises FileNotFoundError: There is no `tokenizer.json` at the path.
    :raises ValueError: The file is not a tokenizer.
    """
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        msg = f"No tokenizer at '{file}'. A fast tokenizer's 'tokenizer.json' is needed."
        raise FileNotFoundError(msg)
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the Rust side raises bare Exception
        msg = f"'{file}' is not a tokenizer that the `tokenizers` package can read: {error}"
        raise ValueError(msg) from error


class SurfaceForms:
    """How one tokenizer spells its tokens: calling it turns a token into its surface form, or None."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        spec = json.loads(tokenizer.to_str())
        steps = json.dumps([spec["decoder"], spec["pre_tokenizer"]])
        model = spec["model"]
        self._byte_level = '"ByteLevel"' in steps
        self._continuation = (model.get("continuing_subword_prefix") or "") if model["type"] == "WordPiece" else ""
        self._word_end = model.get("end_of_word_suffix") or ""
        self._special = {i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        unknown = model.get("unk_token") if model["type"] != "Unigram" else _piece(model["vocab"], model.get("unk_id"))
        if unknown is not None and (unknown_id := tokenizer.token_to_id(unknown)) is not None:
            self._special.add(unknown_id)
        self._added = set(tokenizer.get_added_tokens_decoder())

    def __call__(self, token: str, token_id: int) -> str | None:
        """Return the surface form of a token, or None if it has none."""
        if token_id in self._special or _UNUSED.fullmatch(token) or _BYTE_FALLBACK.fullmatch(token):
            return None
        prefix = ""
        if self._byte_level and token_id not in self._added:
            decoded = _decode_bytes(token)
            if decoded is None:
                return None
            token = decoded
        elif self._continuation and token.startswith(self._continuation):
            prefix, token = "##", token[len(self._continuation) :]
        if self._word_end and token.endswith(self._word_end):
            token = token[: -len(self._word_end)]
        token = token.replace("\u2581", " ").strip().casefold()
        return prefix + token if is_readable(token) else None

    def spelling(self, token: str, token_id: int) -> str:
        """Return the characters of a token, white space made visible; bytes that are no whole character as `<0x..>`."""
        if self._byte_level and token_id not in self._added:
            decoded = _decode_bytes(token)
            if decoded is None:
                return f"<0x{bytes(_BYTE_OF_CHARACTER.get(character, 0) for character in token).hex()}>"
            token = decoded
        return token.replace("\u2581", " ").translate(_VISIBLE)


def _piece(vocabulary: list[list[Any]], position: int | None) -> str | None:
    return None if position is None else str(vocabulary[position][0])


def is_readable(token: str) -> bool:
    """Return whether a token has a letter, a number, or a symbol such as an emoji."""
    return any((category := unicodedata.category(character))[0] in "LN" or category == "So" for character in token)


def _decode_bytes(token: str) -> str | None:
    """Undo the byte-to-character table of byte-level BPE; None if the bytes are not whole characters."""
    try:
        return bytes(_BYTE_OF_CHARACTER[character] for character in token).decode("utf-8")
    except (KeyError, UnicodeDecodeError):
        return None


def byte_level_table() -> dict[str, int]:
    """Byte-level BPE (GPT-2) writes printable bytes as themselves and the others as characters from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_BYTE_OF_CHARACTER = byte_level_table()
