# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a cache of embeddings that is the test's own."""
    monkeypatch.setenv("KEYTOK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/embeddings"


@pytest.fixture
def gritlm(tiny: Callable[[str], Path]) -> str:
    """The name of a tiny random GritLM."""
    return f"gritlm-7b:{tiny('mistral')}"
