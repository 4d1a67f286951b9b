# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Inputs of several commands: ready-made embeddings and embedders."""

from pathlib import Path

from keytok_haystack.encoders import Embedded
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.utils.artefacts import read_npy
from keytok_haystack.utils.checks import check_embeddings


def embedder_of(model: KeyTokenModel, embedder: str | None) -> str:
    """
    Return the embedder that is named, or that of a model.

    :raises ValueError: Neither is known.
    """
    name = embedder or model.embedder
    if name is None:
        msg = "The model does not name its embedder: give --embedder."
        raise ValueError(msg)
    return name


def ready_made(file: Path | None, expected: int) -> Embedded:
    """
    Read ready-made embeddings, an array of shape `(n, d)` in .npy format.

    :param file: The file.
    :param expected: Number of texts that they belong to.
    :raises FileNotFoundError: There is no such file.
    :raises ValueError: It is not such an array, or of another length.
    """
    if file is None or not file.is_file():
        msg = f"There is no file '{file}'."
        raise FileNotFoundError(msg)
    array = check_embeddings(read_npy(file))
    if len(array) != expected:
        msg = f"'{file}' has {len(array)} embeddings for {expected} texts."
        raise ValueError(msg)
    return Embedded(array)
