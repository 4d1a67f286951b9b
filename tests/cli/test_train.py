# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""`keytok train`: what it prints, and what it refuses in one line."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.training import read_files, write_collection

from keytok_haystack import KeyTokenModel
from keytok_haystack.encoders.language_model import LanguageModelEncoder
from keytok_haystack.training import TargetRule, preview_targets

Keytok = Callable[..., tuple[int, str, str]]
Tiny = Callable[[str], Path]

OPTIONS = [
    *("--targets=both", "--min-df=2", "--max-df=0.5", "--stop-words=none"),
    *("--batch-size=8", "--checkpoint-steps=6", "--learning-rate=0.01"),
]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYTOK_CACHE", str(tmp_path_factory.getbasetemp() / "cache-of-train"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_collection(tmp_path_factory.mktemp("train") / "wings")


@pytest.fixture(scope="module")
def base(tiny: Tiny) -> Path:
    return tiny("llama")


def test_train(data: Path, base: Path, tmp_path: Path, keytok: Keytok):
    """The report as JSON, and as text when the same command replaces the result."""
    output = tmp_path / "trained"
    command = ["train", data, "--model", base, "--output", output, *OPTIONS]
    code, out, err = keytok(*command, "--evaluate", data, "--json")
    assert (code, err) == (0, "")
    printed = json.loads(out)
    assert printed == json.loads((output / "training.json").read_text())
    settings = {"epochs": 1.0, "batch_size": 8, "checkpoint_steps": 6, "learning_rate": 0.01, "method": "lora"}
    assert printed["settings"] | settings == printed["settings"]
    assert printed["targets"] == {"kind": "both", "share": 0.5, "min_df": 2, "max_df": 0.5, "stop_words": 0}
    assert list(printed["after"]["collections"]) == ["wings"]

    old = read_files(output)
    code, out, err = keytok(*command)
    assert (code, err) == (0, "")
    new = read_files(output)
    assert set(new) == set(old)
    assert new["model.safetensors"] == old["model.safetensors"]  # on a CPU it depends on nothing but the command
    assert json.loads(new["training.json"])["before"]["collections"] == {}
    assert [path.name for path in tmp_path.iterdir()] == ["trained"]
    for expected in ("8 steps", "lora", "57 texts", "divergence of held-out texts from their targets", "Spearman"):
        assert expected in out

    code, out, err = keytok("tokens", output / "key_tokens", "the lift of a wing")
    assert (code, err) == (0, "")
    model = KeyTokenModel.load(output / "key_tokens")
    first = model.encode_documents(LanguageModelEncoder(model.embedder).encode(["the lift of a wing"])).rows
    assert model.vocabulary.features[first.indices[np.argmax(first.data)]] in out


def test_show_targets(data: Path, base: Path, tmp_path: Path, keytok: Keytok, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "1000")
    previews = preview_targets([data], str(base), 60, rule=TargetRule("both", min_df=2, max_df=0.5))
    before = sorted(data.parent.iterdir())
    for count, shown in ((2, [0, 59]), (100, range(60))):
        code, out, err = keytok("train", data, "--model", base, "--show-targets", count, *OPTIONS)
        assert (code, err) == (0, "")
        blocks = out.split("\n", 1)[1]
        assert [each.text in blocks for each in previews] == [row in shown for row in range(60)]
        for row in shown:
            (line,) = (line for line in blocks.splitlines() if previews[row].text in line)
            token, probability = next(iter(previews[row].target.items()))
            assert f"{token}\u00a0{probability:.3f}" in line
    assert sorted(data.parent.iterdir()) == before
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stop-words=klingon"], "There are no stop words for 'klingon': name a file, 'none', or a language: "),
        (["--batch-size=8", "--accumulate=3"], "8 texts cannot go through the model in 3 parts of equal size."),
        (["--max-df=1.5"], "max_df must be above 0 and at most 1, but it is 1.5."),
        (["--epochs=0"], "epochs must be a positive number, but it is 0.0."),
        (["--max-tokens=4096"], "max_tokens must be between 1 and 128, the window of"),
        (["--min-df=61"], "The filters leave hardly any target of 60 texts"),
        (["--evaluate=missing"], "There is no file 'missing/corpus.jsonl'."),
        (["--learning-rate=1e30"], "The loss is not finite in step "),
    ],
)
def test_bad_input_is_one_line_and_writes_no_result(
    data: Path, base: Path, tmp_path: Path, keytok: Keytok, arguments: list[str], message: str
):
    code, out, err = keytok("train", data, "--model", base, "--output", tmp_path / "out", *OPTIONS, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_no_output(data: Path, base: Path, keytok: Keytok):
    code, _, err = keytok("train", data, "--model", base)
    assert code == 2
    assert err == "error: Name the folder to write: --output DIR. (--show-targets needs none.)\n"
