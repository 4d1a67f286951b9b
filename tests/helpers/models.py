# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Models in folders, as components load them."""

from pathlib import Path

import pytest

from keytok_haystack import KeyTokenModel


def saved(model: KeyTokenModel, tmp_path_factory: pytest.TempPathFactory, name: str) -> Path:
    """Save a model to a new folder of that name, and return the folder."""
    folder = tmp_path_factory.mktemp("models") / name
    model.save(folder)
    return folder
