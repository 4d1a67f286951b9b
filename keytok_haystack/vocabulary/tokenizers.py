# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Tokenizers, and the surface forms of their tokens."""

import json
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from keytok_haystack.utils.artefacts import ArtefactError, is_file, json_object, one_line, read_file, refused_as
from keytok_haystack.utils.patterns import check_patterns

_UNUSED = re.compile(
    r"[\[<]\|?(unused|reserved|extra_id|pad|unk|cls|sep|mask|placeholder)[_ ]?(special_token_)?\d*\|?[\]>]",
    re.IGNORECASE,
)
WHITE_SPACE = "␣⏎␍⇥"  # what is shown in its place
_VISIBLE = str.maketrans(" \n\r\t", WHITE_SPACE)
_BYTE_FALLBACK = re.compile(r"<0x[0-9A-F]{2}>")
_TEXT = 1000  # characters, for which expressions must not take long: those of known tokenizers take its square
# nested repetitions that do not explode, since each begins with another character: of EXAONE 4
_HARMLESS = r"(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+"
_LARGEST_GAPS = 1 << 16  # ids without a token
_LARGEST_RULES = 1 << 18  # characters, without a map of characters
_LARGEST_GROWTH = 1 << 12  # of a text by replacements
_LONGEST_TEMPLATE = 64


class TokenizerError(ArtefactError):
    """A tokenizer that cannot be read, or that fails."""


def load_tokenizer(path: Path) -> Tokenizer:
    """
    Read a tokenizer.

    :param path: A `tokenizer.json`, or the folder that holds it.
    :raises FileNotFoundError: There is no `tokenizer.json` at the path.
    :raises TokenizerError: The file is not a tokenizer, or one that texts could keep busy without end.
    """
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        msg = f"No tokenizer at '{file}'. A fast tokenizer's 'tokenizer.json' is needed."
        raise FileNotFoundError(msg)
    try:
        return parsed_tokenizer(read_file(file))
    except (ValueError, OSError) as error:
        msg = f"'{file}' is not a tokenizer that the `tokenizers` package can read: {one_line(error)}"
        raise TokenizerError(msg) from error


def check_tokenizer(checkpoint: str) -> None:
    """
    Check the tokenizer of a folder that another library is going to read, if it has one.

    :param checkpoint: Path of the folder; anything else passes.
    :raises TokenizerError: As `load_tokenizer`.
    """
    file = Path(checkpoint) / "tokenizer.json"
    if is_file(file):
        load_tokenizer(file)


def parsed_tokenizer(content: bytes) -> Tokenizer:
    """
    Parse a tokenizer.

    What it does with texts cannot be interrupted, so its rules are looked through before: expressions that could take
    longer than the square of a text's length, and replacements that make texts grow.

    :param content: The content of a `tokenizer.json`.
    :raises TokenizerError: It is not a tokenizer, or has such rules.
    """
    with refused_as(TokenizerError):
        _check_rules(json_object(content, "it"))
    with panics_as_errors():
        tokenizer: Tokenizer = Tokenizer.from_buffer(content)
    checked_ids(tokenizer)
    return tokenizer


def checked_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """
    Return the ids of all tokens, which a table of all ids up to the largest can hold, as `tokenizers` makes one, too.

    :raises TokenizerError: There are too many ids without a token.
    """
    ids: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
    largest = max(ids.values(), default=-1)
    if largest >= len(ids) + max(_LARGEST_GAPS, len(ids)):
        msg = f"The ids of the tokenizer go up to {largest:,}, but it has only {len(ids):,} tokens."
        raise TokenizerError(msg)
    return ids


def copied_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """
    Return a copy of a tokenizer that neither truncates nor pads.

    :raises TokenizerError: It is one that can be read, but not written and read again, as with two tokens of one id.
    """
    with panics_as_errors():
        copy: Tokenizer = Tokenizer.from_str(tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """
    Turn what the Rust side of `tokenizers` raises into an error.

    :raises TokenizerError: It raises a bare exception, or panics, which is no `Exception`.
    """
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        msg = f"The tokenizer fails, so it is damaged, or not for such texts: {one_line(error)}"
        raise TokenizerError(msg) from error


def _check_rules(spec: dict[str, Any]) -> None:
    """Refuse a tokenizer whose rules could keep a process busy without end, or fill its memory."""
    rules = [value for name, value in spec.items() if name not in ("model", "added_tokens")]
    patterns: list[str] = []
    size, growth = 0, 1
    while rules:
        rule = rules.pop()
        if isinstance(rule, list):
            rules += rule
        elif isinstance(rule, str):
            size += len(rule)
        elif isinstance(rule, dict):
            size += sum(map(len, rule))
            rules += [value for name, value in rule.items() if name != "precompiled_charsmap"]
            patterns.append(str(rule.get("Regex", "")).replace(_HARMLESS, "x+"))
            if rule.get("type") == "Replace":
                growth *= 1 + len(str(rule.get("content")))
            if any(
                len(rule[name]) > _LONGEST_TEMPLATE for name in ("single", "pair") if isinstance(rule.get(name), list)
            ):
                msg = "its template repeats texts"
                raise TokenizerError(msg)
        if size > _LARGEST_RULES or growth > _LARGEST_GROWTH:
            msg = "its rules are too large" if size > _LARGEST_RULES else "its replacements make texts grow"
            raise TokenizerError(msg)
    check_patterns(patterns, _TEXT)


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
