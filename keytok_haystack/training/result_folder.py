# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The folder of a trained embedder: a checkpoint, modules of sentence-transformers, and the report."""

import json
from pathlib import Path

from safetensors import SafetensorError

from keytok_haystack.encoders import find_preset
from keytok_haystack.encoders.cache import RECORD
from keytok_haystack.encoders.language_model import LanguageModelEncoder
from keytok_haystack.encoders.progress import without_progress_bars
from keytok_haystack.encoders.sentence_transformers_folder import UnsupportedEmbedderError, write_modules
from keytok_haystack.training.report import TrainingReport
from keytok_haystack.utils.files import replaced_file, write_json


def check_output(output: Path, base: str) -> None:
    """
    Check that a trained embedder may be written to a path.

    :param output: Path of the folder to write.
    :param base: Embedder to train.
    :raises FileExistsError: The path holds something that was not written by a training.
    :raises ValueError: The path is that of the base.
    """
    preset = find_preset(base)
    if preset is not None and Path(str(preset.checkpoint)).resolve() == output.resolve():
        msg = f"'{output}' is what is to be trained: choose another folder for the result."
        raise ValueError(msg)
    if output.exists() and not _is_replaceable(output):
        msg = f"'{output}' has content that keytok train has not written, so it is not replaced: choose another path."
        raise FileExistsError(msg)


def write_checkpoint(encoder: LanguageModelEncoder, folder: Path, output: Path) -> str | None:
    """
    Write an encoder as a checkpoint with modules of sentence-transformers.

    :param folder: Folder to write.
    :param output: Path that the folder will have, for messages.
    :returns: Reason why sentence-transformers cannot load the checkpoint; None if it can.
    :raises OSError: The checkpoint cannot be written.
    """
    try:
        with without_progress_bars():
            encoder.network.save_pretrained(folder)
    except SafetensorError as error:
        msg = f"The trained embedder cannot be written ({error}): make room at '{output.parent}', and run again."
        raise OSError(msg) from error
    encoder.tokenizer.model_max_length = encoder.max_tokens  # it has not been trained on longer inputs
    encoder.tokenizer.save_pretrained(folder)
    for file in folder.glob("*.safetensors"):  # safetensors makes its files readable for their owner only
        file.chmod((folder / "config.json").stat().st_mode)
    try:
        write_modules(folder, encoder)
    except UnsupportedEmbedderError as error:
        return str(error)
    return None


def write_report(folder: Path, report: TrainingReport) -> None:
    """Write a report as JSON, with the names of the folder's files, by which it is known as replaceable."""
    data = report.to_dict() | {"files": sorted(_files(folder) | {RECORD})}
    with replaced_file(folder / RECORD) as new:
        write_json(new, data)


def _is_replaceable(output: Path) -> bool:
    """Whether a path is a folder that has nothing but what a training has written."""
    if not output.is_dir():
        return False
    files = _files(output)
    try:
        written = json.loads((output / RECORD).read_text(encoding="utf-8"))["files"] if files else []
        return files <= set(written)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _files(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir()}
