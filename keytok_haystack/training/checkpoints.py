# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The folder of a run's checkpoints, from which an interrupted run continues."""

import hashlib
import json
import os
import shutil
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from keytok_haystack.decoder import TokenDecoder
from keytok_haystack.encoders.cache import model_identity
from keytok_haystack.encoders.language_model import LanguageModelEncoder
from keytok_haystack.training.errors import TrainingError
from keytok_haystack.training.examples import Examples
from keytok_haystack.training.settings import Settings

_COMPLETE = "complete"  # marks a checkpoint that is written completely
_DIGEST = "digest"


def open_checkpoints(folder: Path, digest: str) -> Path | None:
    """
    Prepare a folder for the checkpoints of a run, and return the last complete one that the run has written.

    :param folder: Folder of the checkpoints; incomplete ones are removed.
    :param digest: Digest of the run (`run_digest`).
    :raises TrainingError: The folder has checkpoints of another run.
    """
    mark = folder / _DIGEST
    complete = complete_checkpoints(folder)
    if complete and not (mark.is_file() and mark.read_text() == digest):
        msg = (
            f"'{folder}' has checkpoints of another training, with other texts or settings: finish that with the same "
            "command as before, or remove the folder."
        )
        raise TrainingError(msg)
    folder.mkdir(parents=True, exist_ok=True)
    remove_incomplete(folder)
    if not complete:  # else the mark is there, and stays even if the disk is full
        mark.write_text(digest)
    return complete[-1] if complete else None


def complete_checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints of a folder, in the order of their steps."""
    checkpoints = [mark.parent for mark in folder.glob(f"checkpoint-*/{_COMPLETE}")]
    return sorted(checkpoints, key=lambda checkpoint: int(checkpoint.name.rpartition("-")[2]))


def mark_complete(checkpoint: Path) -> None:
    """Mark a checkpoint as complete, once all of its files are on the disk."""
    os.sync()
    (checkpoint / _COMPLETE).touch()


def remove_incomplete(folder: Path) -> None:
    """Remove the checkpoints of a folder that are not complete."""
    for checkpoint in set(folder.glob("checkpoint-*")) - set(complete_checkpoints(folder)):
        shutil.rmtree(checkpoint)


def run_digest(
    encoder: LanguageModelEncoder, head: TokenDecoder, examples: Examples, held_out: Examples, settings: Settings
) -> str:
    """Return a digest of everything that the weights depend on, except for rounding."""
    chosen = asdict(replace(settings, accumulate=1))  # a run may continue in more parts to use less memory
    digest = hashlib.sha256(f"{version('keytok-haystack')} {json.dumps(chosen)} {encoder.preset}".encode())
    for checkpoint in (encoder.preset.checkpoint, *encoder.preset.adapters):
        digest.update(model_identity(str(checkpoint)))
    digest.update(np.ascontiguousarray(head.weight).data)
    for some in (examples, held_out):
        digest.update(json.dumps([each.ids for each in some.inputs]).encode())
        for array in (some.targets.data, some.targets.indices, some.targets.indptr):
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
