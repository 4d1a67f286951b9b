# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Damage: at random, and as by someone who means harm."""

import base64
import hashlib
import json
import os
import random
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from keytok_haystack import KeyTokenModel
from keytok_haystack.model_folder import read_model_folder

_DEEP = "\x01deep\x01"  # stands for what `json` does not write
_LARGEST = 1 << 20
_HUGE = 1 << 30  # bytes of a file that takes no room on the disk
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 3, 1.5, -0.0, 1e-320, 1e38, 1e308, -1e308, float("nan"), float("inf"), 10**400),
    *(2**31, 2**32 - 1, 2**62, 2**63, 2**64, -(2**63), [0], [-1], [2**62, 2**62], [1] * 70, [0, 2**63], [[0, 1], [2]]),
    *("", "x", "x" * 100_000, "\ud800", "a\nb", "\0", "NaN", "1", "none", "english", "words", "tokens", _DEEP),
    *("../../../../etc/passwd", "/etc/passwd", "/dev/zero", "/usr", ".", "..", "/"),
    *("model-1.safetensors", "config.json", "tokenizer.json", "F16", "BF16", "F64", "F8_E4M3", "I64"),
    *([], {}, [[]], [None], ["x", "x"], {"x": {}}, {"": None}),
)
_REGEXES = (
    *("(a+)+[xy]", r"(\w|i|f)*[xy]", "(?:f?){30}f{30}", "((a{900}){900}){900}", "(", "", "(?R)", r"(\w*)*\1", "[^"),
    *(".*.*.*.*x", r"(\w+\s?)*x"),
)
_GROWTH = [{"type": "Replace", "pattern": {"String": "i"}, "content": "ii"}] * 40
_CHARACTERS = base64.b64encode(struct.pack("<I", 400) + b"\xff" * 400 + b"x\0").decode()
_TEMPLATE = [{"Sequence": {"id": "A", "type_id": 0}}] * 9999
_WORD_PIECE = {"unk_token": "x", "continuing_subword_prefix": "", "max_input_chars_per_word": 9**9}
_PADDING = {"direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "x"}
_RULES: tuple[Any, ...] = (
    *({"type": "Split", "pattern": {"Regex": each}, "behavior": "Isolated", "invert": False} for each in _REGEXES),
    {"type": "Sequence", "normalizers": _GROWTH},
    {"type": "Replace", "pattern": {"String": ""}, "content": "xx"},
    {"type": "Replace", "pattern": {"Regex": "."}, "content": "x" * 5000},
    {"type": "Prepend", "prepend": "x" * 1_000_000},
    *({"type": "Precompiled", "precompiled_charsmap": each} for each in ("AAAA", _CHARACTERS)),
    {"type": "TemplateProcessing", "single": _TEMPLATE, "pair": [], "special_tokens": {}},
    {"type": "BPE", "vocab": {"a": 2**32 - 1}, "merges": []},
    {"type": "Unigram", "vocab": [["a", -1.0]], "unk_id": None},
    {"type": "WordPiece", "vocab": {"a": 0}, **_WORD_PIECE},
    {"strategy": {"Fixed": 2**31}, **_PADDING},
)
_FLOATS = (float("nan"), float("inf"), -1.0, 0.0, 1.0, 0.1, 1e4, 65504.0, 1e-8, 1e-40, 1e37)


def mutate(folder: Path, chance: random.Random) -> str:
    """Damage a file of an artefact, and say how."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    done = []
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        file = chance.choice(files)
        if not file.is_file() or file.stat().st_size > _LARGEST:  # what has become of it takes long to damage further
            continue
        mutation = chance.choices(*zip(*_MUTATIONS.items(), strict=True))[0]
        if mutation is _structure and file.suffix not in _EDITORS:
            mutation = _bytes
        done.append(f"{file.name}: {mutation.__name__}")
        with suppress(
            ValueError, RecursionError, MemoryError, OSError, OverflowError
        ):  # of what has been damaged before
            mutation(file, chance)
    if chance.random() < 0.9:
        _sign(folder, chance)
    return ", ".join(done)


def _bytes(file: Path, chance: random.Random) -> None:
    content = bytearray(file.read_bytes())
    place, size = chance.randrange(len(content) + 1), chance.choice((1, 2, 8, 64, 1000))
    match chance.randrange(7):
        case 0:
            for _ in range(chance.choice((1, 1, 2, 8)) if content else 0):
                content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        case 1:
            del content[place:]
        case 2:
            del content[place : place + size]
        case 3:
            content[place:place] = chance.randbytes(size)
        case 4:
            content[place : place + size] = chance.randbytes(size)
        case 5:
            start = chance.randrange(len(content) + 1)
            content[place:place] = content[start : start + size]
        case 6:
            content[place : place + size] = bytes([chance.choice((0, 255, 127, 91))]) * size
    file.write_bytes(content)


def _replace(file: Path, chance: random.Random) -> None:
    """Put something else in the place of a file."""
    match chance.randrange(8):
        case 0:
            file.write_bytes(b"")
        case 1:
            os.truncate(file, _HUGE)
        case 2:
            file.write_bytes(chance.choice((b"[", b'{"a":')) * 1_000_000)
        case 3:
            file.unlink()
        case 4:
            file.unlink()
            os.mkfifo(file)
        case 5:
            file.unlink()
            file.mkdir()
        case 6:
            file.unlink()
            file.symlink_to(chance.choice(("/dev/zero", "/dev/null", "/no/where", file.name)))
        case 7:
            file.write_bytes(b"[" + b"[]," * 3_000_000 + b"0]")


def _structure(file: Path, chance: random.Random) -> None:
    _EDITORS[file.suffix](file, chance)


def _edit_json(file: Path, chance: random.Random) -> None:
    file.write_bytes(_dumped(_edited(json.loads(file.read_bytes()), chance)))


def _edit_safetensors(file: Path, chance: random.Random) -> None:
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, data = content[8 : 8 + length], bytearray(content[8 + length :])
    match chance.randrange(6):
        case 0 | 1:
            header = _dumped(_edited(json.loads(header), chance))
            header += b" " * (-len(header) % 8)
            length = len(header)
        case 2:
            length = chance.choice((0, 1, length + 8, length - 1, 2**31, 2**63, 2**64 - 1, len(content)))
        case _:
            kind = chance.choice("efd")
            size = struct.calcsize(kind)
            for _ in range(chance.choice((1, 4, 100))):
                place = chance.randrange(max(1, len(data) // size)) * size
                with suppress(OverflowError):
                    data[place : place + size] = struct.pack("<" + kind, chance.choice(_FLOATS))
    file.write_bytes(length.to_bytes(8, "little") + header + data)


def _edit_npy(file: Path, chance: random.Random) -> None:
    content = file.read_bytes()
    end = 10 + int.from_bytes(content[8:10], "little")
    shapes = ("(4, 9)", "(4, -8)", "(2**62, 8)", "(4611686018427387904, 8)", "()", "(32,)", "4", "(0, 8)")
    kinds = ("|O", ">f", "<i", "<c", "<U", "|V", "<M", "[" * 2000)
    edits = {"(4, 8)": shapes, "<f": kinds, "False": ("True", "1", "'x'", "None", "[[" * 3000), "descr": ("", "shape")}
    old = chance.choice(list(edits))
    header = content[10:end].replace(old.encode(), chance.choice(edits[old]).encode())
    file.write_bytes(content[:8] + (len(header) & 0xFFFF).to_bytes(2, "little") + header + content[end:])


_EDITORS: dict[str, Callable[[Path, random.Random], None]] = {
    ".json": _edit_json,
    ".safetensors": _edit_safetensors,
    ".npy": _edit_npy,
}
_MUTATIONS = {_structure: 60, _bytes: 36, _replace: 4}


def _edited(data: Any, chance: random.Random) -> Any:
    """Return JSON data with some values replaced, removed, or doubled, each at a random place."""
    for _ in range(chance.choice((1, 1, 2, 4))):
        data = _edit_once(data, chance)
    return data


def _edit_once(data: Any, chance: random.Random) -> Any:
    if isinstance(data, str) and data.startswith('{"version"') and chance.random() < 0.9:  # a tokenizer in a vocabulary
        with suppress(ValueError):
            return json.dumps(_edit_once(json.loads(data), chance))
    if not (isinstance(data, dict | list) and data and chance.random() < 0.9):
        if isinstance(data, dict) and "type" in data and chance.random() < 0.5:
            return chance.choice(_RULES)
        if isinstance(data, int) and not isinstance(data, bool) and chance.random() < 0.5:
            return data + chance.choice((-1, 1, 8, -8, 2**32))
        return chance.choice(_VALUES) if chance.random() < 0.8 else chance.choice(_RULES)
    key = chance.choice(list(data) if isinstance(data, dict) else range(len(data)))
    match chance.randrange(12):
        case 0 if isinstance(data, dict):
            return {name: value for name, value in data.items() if name != key}
        case 0:
            return data[:key] + data[key + 1 :]
        case 1 if isinstance(data, dict):
            name = chance.choice(("", "x", key + ".", "__metadata__", "lm_head.weight", "a\0", "../x"))
            return {**data, name: data[key]}
        case 1:
            return data + data
    copy: Any = dict(data) if isinstance(data, dict) else list(data)
    copy[key] = _edit_once(data[key], chance)
    return copy


def _dumped(data: Any) -> bytes:
    return json.dumps(data).replace(json.dumps(_DEEP), "[" * 50_000 + "]" * 50_000).encode()


def _sign(folder: Path, chance: random.Random) -> None:
    """Make digests and fingerprint right again, as someone who means harm does."""
    file = folder / "config.json"
    if not file.is_file() or file.stat().st_size > 1_000_000:
        return
    try:
        config = json.loads(file.read_bytes())
        digests = config["sha256"]
        for name in digests:
            if (folder / name).is_file() and (folder / name).stat().st_size < _HUGE:
                digests[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        file.write_bytes(json.dumps(config).encode())
        if chance.random() < 0.7:
            config["fingerprint"] = KeyTokenModel._from_content(read_model_folder(folder)).fingerprint
            file.write_bytes(json.dumps(config).encode())
    except Exception:  # what has become of it is no model, or no key-token model
        return
