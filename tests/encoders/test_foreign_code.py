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
from keytok_haystack.encoders.foreign_code import check_without_code
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


def module_of_a_router_of_a_router(folder: Path) -> None:
    module_of_a_router(folder)
    routers = folder / "9_Router"
    (routers / "query_0_Evil").mkdir()
    (routers / "router_config.json").rename(routers / "query_0_Evil" / "config.json")  # the former name
    types = {"query_0_Evil": "sentence_transformers.models.Router"}
    (routers / "router_config.json").write_text(json.dumps({"types": types, "structure": {}, "parameters": {}}))


@pytest.mark.parametrize("attack", [own_module, own_first_module, module_of_a_router, module_of_a_router_of_a_router])
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


@pytest.fixture
def haystack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is described as a model, and leads to /usr."""
    monkeypatch.setenv("KEYTOK_CACHE", str(tmp_path / "cache"))
    (tmp_path / "haystack").mkdir()
    (tmp_path / "haystack" / "config.json").write_text("{}")
    return tmp_path / "haystack"


def test_a_tree_of_files_is_not_read_for_a_model(haystack: Path):
    for i in range(110):
        (haystack / str(i)).mkdir()
        for j in range(100):
            (haystack / str(i) / f"{j}.json").touch()
    with pytest.raises(ValueError, match=r"is not a model: there are more than 10,000 files in it"):
        embed(["shock"], str(haystack), progress_bar=False)


def test_modules_lead_only_where_they_are_named(haystack: Path):
    """Routers of themselves, by other names, and folders that lead everywhere."""
    (haystack / "loop").symlink_to(".")
    (haystack / "usr").symlink_to("/usr")
    kind = "sentence_transformers.models.Router"
    modules = [{"path": path, "type": kind} for path in ("", "loop", "usr", "/", "\0", "\ud800", "x" * 5000, 3)]
    (haystack / "modules.json").write_text(json.dumps(modules))
    types = {f"{'loop/' * i}." if i else "..": kind for i in range(50)}
    (haystack / "router_config.json").write_text(json.dumps({"types": types}))
    started = time.process_time()
    check_without_code(str(haystack))
    assert time.process_time() - started < 2
    (haystack / "router_config.json").write_text(json.dumps({"types": types | {"a": "evil.Evil"}}))
    with pytest.raises(ValueError, match="never run"):
        check_without_code(str(haystack))


@pytest.mark.parametrize("file", ["modules.json", "config.json", "vocab.txt"])
def test_a_description_of_a_gigabyte_is_not_read(haystack: Path, file: str):
    with (haystack / file).open("wb") as sparse:
        sparse.truncate(1 << 30)
    with pytest.raises(ValueError, match=f"{file}' has more than 67,108,864 bytes"):
        embed(["shock"], str(haystack), progress_bar=False)


def test_an_adapter_of_itself_is_no_model(haystack: Path, tmp_path: Path):
    (tmp_path / "other").mkdir()
    for folder, base in ((haystack, tmp_path / "other"), (tmp_path / "other", haystack)):
        (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    with pytest.raises(ValueError, match="an adapter of an adapter, and so on without end"):
        embed(["shock"], str(haystack), progress_bar=False)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("modules.json", "[" * 10**6),
        ("modules.json", "{}"),
        ("config.json", "[]"),
        ("1_Pooling/config.json", '{"pooling_mode": 3}'),
        ("model.safetensors", "nothing"),
        ("tokenizer.json", "{}"),
    ],
)
def test_a_broken_embedder_is_refused_in_one_sentence(folder: Path, file: str, content: str):
    (folder / file).write_text(content)
    with pytest.raises(ValueError, match=r"not a (sentence-transformers model|tokenizer)") as raised:
        embed(["shock"], str(folder), progress_bar=False)
    assert len(str(raised.value).splitlines()) == 1


def test_a_tokenizer_of_an_embedder_that_would_explode_is_refused(folder: Path):
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["pre_tokenizer"] = {
        "type": "Split",
        "pattern": {"Regex": "(a+)+[xy]"},
        "behavior": "Isolated",
        "invert": False,
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    for embedder in (str(folder), f"contriever:{folder}"):
        with pytest.raises(ValueError, match="could take any time"):
            embed(["shock"], embedder, progress_bar=False)
