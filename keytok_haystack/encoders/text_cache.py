# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Embeddings on disk, found by their texts."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from keytok_haystack.utils.artefacts import ArrayFile, ArtefactError
from keytok_haystack.utils.files import replaced_file

logger = logging.getLogger(__name__)

_KEY_BYTES = 16
_MERGED_BYTES = 1 << 27  # of embeddings in a file that blocks are joined to, about


class Block(NamedTuple):
    """
    Embeddings of texts.

    :param keys: Shape `(n, 16)`, digests of the texts.
    :param embeddings: Shape `(n, d)`.
    :param seconds: Shape `(n,)`, time that each has taken.
    """

    keys: NDArray[np.uint8]
    embeddings: NDArray[np.float32]
    seconds: NDArray[np.float64]

    @classmethod
    def joined(cls, blocks: "Sequence[Block]") -> Self:
        """Return several blocks as one."""
        return cls(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))


class TextCache:
    """
    Embeddings by one embedder in one way, in blocks that are files of a folder.

    A block that has been written is found by all processes, whatever becomes of its writer. Blocks that are damaged
    are removed, and a folder that cannot be written is warned of once: embeddings are then not kept.

    :param folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written: list[Path] = []
        self._is_writable = True

    def find(self, texts: Sequence[str]) -> dict[str, tuple[NDArray[np.float32], float]]:
        """
        Return the embedding, shape `(d,)`, of each text that has one, and the seconds that it has taken.

        All have the dimension of the newest: a model on the hub may have changed since.
        """
        wanted = {key_of(text): text for text in texts}
        found: dict[str, tuple[NDArray[np.float32], float]] = {}
        dimension = None
        for file in self._newest_first():
            if len(found) == len(wanted):
                break
            if not _has_any(file, wanted.keys()):
                continue
            block = _read(file)
            if block is None or block.embeddings.shape[1] != (dimension := dimension or block.embeddings.shape[1]):
                continue
            for row, key in enumerate(_as_bytes(block.keys)):
                if (text := wanted.get(key)) is not None:
                    found.setdefault(text, (block.embeddings[row], float(block.seconds[row])))
        return found

    def add(self, texts: Sequence[str], embeddings: NDArray[np.float32], seconds: float) -> None:
        """Keep the embeddings of texts, shape `(n, d)`, that together have taken some seconds."""
        keys = np.frombuffer(b"".join(map(key_of, texts)), dtype=np.uint8).reshape(-1, _KEY_BYTES)
        block = Block(keys, embeddings, np.full(len(texts), seconds / max(1, len(texts))))
        if (file := self._write(block)) is not None:
            self._written.append(file)

    def merge(self) -> None:
        """Join the blocks that have been added, to files of some size."""
        while self._written:
            group: dict[Path, Block] = {}
            size = 0
            while self._written and size < _MERGED_BYTES:
                file = self._written.pop()
                if (block := _read(file)) is not None:
                    group[file] = block
                    size += block.embeddings.nbytes
            if len(group) > 1 and self._write(Block.joined([*group.values()])) is not None:
                for file in group:
                    file.unlink(missing_ok=True)

    def _newest_first(self) -> list[Path]:
        dated: list[tuple[int, Path]] = []
        with suppress(OSError):
            for file in self._folder.glob("*.safetensors"):
                with suppress(OSError):  # joined with others meanwhile
                    dated.append((file.stat().st_mtime_ns, file))
        return [file for _, file in sorted(dated, reverse=True)]

    def _write(self, block: Block) -> Path | None:
        """Write a block, and return its file; None if it cannot be written."""
        if not self._is_writable:
            return None
        file = self._folder / f"{uuid4().hex}.safetensors"
        try:
            with replaced_file(file) as new:
                new.write_bytes(save({**block._asdict(), "digest": _digest(block)}))
        except OSError as error:
            self._is_writable = False
            logger.warning(
                "Embeddings cannot be kept in %s, and are lost when this process ends: %s", self._folder, error
            )
            return None
        return file


def key_of(text: str) -> bytes:
    """Return the digest of a text."""
    return hashlib.sha256(text.encode()).digest()[:_KEY_BYTES]


def _as_bytes(keys: NDArray[np.uint8]) -> list[bytes]:
    """Return the keys of a block, shape `(n, 16)`, one by one."""
    joined = keys.tobytes()
    return [joined[start : start + _KEY_BYTES] for start in range(0, len(joined), _KEY_BYTES)]


def _digest(block: Block) -> NDArray[np.uint8]:
    digest = hashlib.sha256()
    for part in block:
        digest.update(np.ascontiguousarray(part).data)
    return np.frombuffer(digest.digest(), dtype=np.uint8)


def _has_any(file: Path, keys: AbstractSet[bytes]) -> bool:
    """Return whether a file has the embedding of a text, or is damaged; its embeddings are not read for that."""
    try:
        return not keys.isdisjoint(_as_bytes(ArrayFile.open(file).read("keys")))
    except OSError:  # joined with others, removed, or of another user
        return False
    except (ArtefactError, KeyError):
        return True


def _read(file: Path) -> Block | None:
    """Return a block; None if it cannot be read, or is damaged: then it is removed."""
    try:
        stored = ArrayFile.open(file)
        block = _checked({name: stored.read(name) for name in stored.arrays})
    except OSError:
        return None
    except ArtefactError:
        block = None
    if block is None:
        logger.warning("%s is damaged: its texts are embedded anew.", file)
        with suppress(OSError):
            file.unlink()
    return block


def _checked(arrays: Mapping[str, NDArray[np.generic]]) -> Block | None:
    """Return the arrays of a file as a block; None if they are none."""
    if arrays.keys() != {*Block._fields, "digest"}:
        return None
    block = Block(*(arrays[name] for name in Block._fields))  # type: ignore[arg-type]
    n = len(block.seconds) if block.seconds.ndim else 0
    is_block = (
        [part.dtype.name for part in (block.keys, block.embeddings, block.seconds)] == ["uint8", "float32", "float64"]
        and block.keys.shape == (n, _KEY_BYTES)
        and block.embeddings.shape[:1] == (n,)
        and block.embeddings.ndim == 2
        and block.seconds.shape == (n,)
        and np.array_equal(arrays["digest"], _digest(block))
    )
    return block if is_block else None
