# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Nothing in the folder of an embedder is ever executed."""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from keytok_haystack.encoders import embed
from keytok_haystack.encoders.splade import SpladeEncoder

EVIL = """
from pathlib import Path

from torch import nn

Path({trace!r}).touch()


class Evil(nn.Module):
    @classmethod
    def load(cls, *arguments, **options):
        return cls()
"""


@pytest.fixture
def folder(embedder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a good embedder, with code beside it that leaves a trace."""
    monkeypatch.setenv("KEYTOK_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "embedder"
    shutil.copytree(embedder, folder)
    (folder / "evil.py").write_text(EVIL.format(trace=str(tmp_path / "trace")))
    return folder


def modules(folder: Path) -> Any:
    return json.loads((folder / "modules.json").read_text())


def own_module(folder: Path) -> None:
    last = {"idx": 9, "name": "9", "path": "", "type": "evil.Evil"}
    (folder / "modules.json").write_text(json.dumps([*modules(folder), last]))


def own_first_module(folder: Path) -> None:
    (folder / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": "evil.Evil"}]))


def module_of_a_router(folder: Path) -> None:
    router = {"idx": 9, "name": "9", "path": "9_Router", "type": "sentence_transformers.base.modules.Router"}
    (folder / "modules.json").write_text(json.dumps([*modules(folder), router]))
    (folder / "9_Router").mkdir()
    described = {"types": {"query_0_Evil": "evil.Evil"}, "structure": {"query": ["query_0_Evil"]}, "parameters": {}}
    (folder / "9_Router" / "router_config.json").write_text(json.dumps(described))


@pytest.mark.parametrize("attack", [own_module, own_first_module, module_of_a_router])
def test_an_embedder_that_brings_code_is_refused_and_runs_nothing(attack, folder: Path, tmp_path: Path):
    attack(folder)
    with pytest.raises(ValueError, match=r"'evil\.Evil'.*never run"):
        embed(["shock"], str(folder), progress_bar=False)
    with pytest.raises(ValueError, match=r"'evil\.Evil'.*never run"):
        SpladeEncoder(folder)
    assert not (tmp_path / "trace").exists()


def test_the_command_runs_nothing_that_a_model_names(
    folder: Path, tmp_path: Path, keytok, cranfield_model_folder: Path
):
    """A key-token model that names itself as the embedder, with code in it."""
    own_module(folder)
    for file in cranfield_model_folder.iterdir():
        if file.name != "config.json":
            shutil.copy(file, folder)
    config = json.loads((cranfield_model_folder / "config.json").read_text())
    transformer = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**transformer, **config, "embedder": str(folder)}))
    code, out, err = keytok("tokens", folder, "shock")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "never run" in err
    assert not (tmp_path / "trace").exists()


def test_code_that_no_module_names_does_no_harm(folder: Path, tmp_path: Path):
    assert embed(["shock"], str(folder), progress_bar=False).embeddings.shape == (1, 384)
    assert not (tmp_path / "trace").exists()


def test_what_is_no_model_is_refused_without_reading_it(tmp_path: Path):
    os.mkfifo(tmp_path / "fifo")
    started = time.monotonic()
    for path in ("/usr", tmp_path / "fifo", tmp_path):
        with pytest.raises(ValueError, match="is not a model"):
            embed(["shock"], str(path), progress_bar=False)
    assert time.monotonic() - started < 5
