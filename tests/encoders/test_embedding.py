# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Embedding with a cache, and the commands that embed with language models."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import peft
import pytest
import transformers
from helpers.tiny_models import TEXTS, save_tiny

from keytok_haystack import KeyTokenModel, Spectrum
from keytok_haystack.encoders import PRESETS, CachedEmbedder, embed, head_of
from keytok_haystack.encoders.language_model import LanguageModelEncoder

pytestmark = pytest.mark.usefixtures("cache")


def test_what_an_embedder_gives_is_taken_from_the_cache_the_next_time(gritlm: str, cache: Path):
    first = embed(TEXTS, gritlm, progress_bar=False)
    np.testing.assert_array_equal(first.embeddings, LanguageModelEncoder(gritlm).encode(TEXTS))
    assert not first.cached
    assert first.seconds > 0
    second = embed(list(TEXTS), gritlm, progress_bar=False)
    np.testing.assert_array_equal(second.embeddings, first.embeddings)
    assert second.cached
    assert second.seconds == first.seconds
    assert len(list(cache.iterdir())) == 1


def test_each_way_to_embed_has_an_entry_of_its_own(gritlm: str, cache: Path):
    ways = [
        {},
        {"role": "query"},
        {"role": "query", "instruction": "Find the wing"},
        {"max_tokens": 8},
    ]
    encoders = [LanguageModelEncoder(gritlm), LanguageModelEncoder(gritlm, max_tokens=8)]
    expected = [
        encoders[0].encode(TEXTS),
        encoders[0].encode(TEXTS, "query"),
        encoders[0].encode(TEXTS, "query", "Find the wing"),
        encoders[1].encode(TEXTS),
    ]
    for again in (False, True):
        for way, embeddings in zip(ways, expected, strict=True):
            embedded = embed(TEXTS, gritlm, progress_bar=False, **way)
            assert embedded.cached == again
            np.testing.assert_array_equal(embedded.embeddings, embeddings)
    assert len(list(cache.iterdir())) == len(ways)
    assert not embed([*TEXTS, "lift of another wing"], gritlm, progress_bar=False).cached


@pytest.mark.parametrize("kind", ["language model", "sentence-transformers model"])
def test_a_kept_embedder_loads_its_model_once_and_only_if_needed(
    kind: str, gritlm: str, embedder: str, monkeypatch: pytest.MonkeyPatch
):
    name, loaded = gritlm if kind == "language model" else embedder, []
    load = transformers.AutoModel.from_pretrained
    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", lambda *a, **k: loaded.append(a) or load(*a, **k))
    kept = CachedEmbedder(name, progress_bar=False)
    assert not loaded
    documents, queries = kept.embed(TEXTS), kept.embed(TEXTS, "query")
    assert not documents.cached
    assert kept.embed(TEXTS).cached
    assert len(loaded) == 1
    again = CachedEmbedder(name, progress_bar=False)
    for role, expected in (("document", documents), ("query", queries)):
        np.testing.assert_array_equal(again.embed(TEXTS, role).embeddings, expected.embeddings)
        assert embed(TEXTS, name, role=role, progress_bar=False).cached
    assert len(loaded) == 1


def test_the_cache_goes_by_the_checkpoints_content_not_its_name(
    tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    embedder = f"prompt-eol:{tiny('llama')}"
    first = embed(TEXTS, embedder, progress_bar=False)
    shutil.copytree(tiny("llama"), tmp_path / "moved")
    assert embed(TEXTS, f"prompt-eol:{tmp_path / 'moved'}", progress_bar=False).cached
    shutil.rmtree(tmp_path / "moved")
    save_tiny(tmp_path / "moved", "llama", seed=1)
    other = embed(TEXTS, f"prompt-eol:{tmp_path / 'moved'}", progress_bar=False)
    assert not other.cached
    assert np.abs(other.embeddings - first.embeddings).max() > 0.1

    # another recipe for the same checkpoint
    assert not embed(TEXTS, f"contriever:{tiny('llama')}", progress_bar=False).cached
    monkeypatch.setitem(PRESETS, "prompt-eol", replace(PRESETS["prompt-eol"], normalize=True))
    assert not embed(TEXTS, embedder, progress_bar=False).cached


def test_an_adapter_is_embedded_anew_where_its_base_has_changed(tmp_path: Path):
    base, adapter = save_tiny(tmp_path / "base", "llama"), tmp_path / "adapter"
    network = transformers.AutoModel.from_pretrained(base)
    peft.get_peft_model(network, peft.LoraConfig(r=4, target_modules="all-linear")).save_pretrained(adapter)
    first = embed(TEXTS, f"prompt-eol:{adapter}", progress_bar=False)
    assert embed(TEXTS, f"prompt-eol:{adapter}", progress_bar=False).cached
    shutil.rmtree(base)
    save_tiny(base, "llama", seed=1)
    second = embed(TEXTS, f"prompt-eol:{adapter}", progress_bar=False)
    assert not second.cached
    assert np.abs(second.embeddings - first.embeddings).max() > 0.1


@pytest.mark.parametrize(
    "options", [{"instruction": "Find"}, {"instruction": ""}, {"max_tokens": 8}, {"dtype": "float32"}]
)
def test_other_embedders_take_neither_an_instruction_nor_a_length(embedder: str, cache: Path, options: dict):
    with pytest.raises(ValueError, match="so it takes no instruction, length or dtype"):
        embed(TEXTS, embedder, progress_bar=False, **options)
    assert not cache.exists()


def test_what_cannot_be_embedded_leaves_no_entry(gritlm: str, tiny: Callable[[str], Path], cache: Path):
    with pytest.raises(ValueError, match="Text 1 is empty"):
        embed(["lift", ""], gritlm, progress_bar=False)
    with pytest.raises(ValueError, match="takes no instruction"):
        embed(TEXTS, f"prompt-eol:{tiny('llama')}", instruction="Find", progress_bar=False)
    with pytest.raises(ValueError, match="half a surrogate pair"):
        embed(["\ud83d"], gritlm, progress_bar=False)
    assert not cache.exists()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "texts.jsonl"
    file.write_text("\n".join(json.dumps({"text": text}) for text in TEXTS * 3), encoding="utf-8")
    return file


def test_fit_reads_the_head_of_a_language_model(keytok, tiny: Callable[[str], Path], data: Path, tmp_path: Path):
    embedder, output = f"prompt-eol:{tiny('llama')}", tmp_path / "model"
    arguments = ("fit", data, "--head", "--embedder", embedder, "--k", 9, "--output", output, "--yes")
    code, out, err = keytok(*arguments, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["texts"] == len(TEXTS) * 3
    model, head = KeyTokenModel.load(output), head_of(embedder)
    assert (model.source, model.embedder, model.weighting.k_document) == ("language-model", embedder, 9)
    assert model.vocabulary.features == head.vocabulary.features
    np.testing.assert_array_equal(model.decoder.weight, head.decoder.weight)
    embeddings = LanguageModelEncoder(embedder).encode(TEXTS)
    np.testing.assert_allclose(
        np.abs(model.spectrum.components[0] @ Spectrum.from_embeddings(embeddings).components[0]), 1, atol=1e-4
    )

    code, out, err = keytok("tokens", output, *TEXTS[:2], "--top", 7, "--json")
    assert (code, err) == (0, "")
    expected = model.document_tokens(model.encode_documents(embeddings[:2], TEXTS[:2], top_k=7))
    assert [list(row["key_tokens"].values()) for row in json.loads(out)] == [list(each.values()) for each in expected]
    assert all(row["key_tokens"] for row in json.loads(out))

    code, out, _ = keytok(*arguments)
    assert code == 0
    assert f"keytok tokens {output}" in out
    assert "(embedding them: cached)" in " ".join(out.split())


def test_fit_keeps_the_bulk_of_a_heads_spectrum(keytok, tiny: Callable[[str], Path], data: Path, tmp_path: Path):
    embedder, output = f"prompt-eol:{tiny('llama')}", tmp_path / "model"
    code, _, _ = keytok("fit", data, "--head", "--keep", 0.5, "--embedder", embedder, "--output", output)
    assert code == 0
    model = KeyTokenModel.load(output)
    _, _, directions = np.linalg.svd(model.decoder.weight.astype(np.float64), full_matrices=False)
    quarter = len(directions) // 4
    for removed in (*directions[:quarter], *directions[-quarter:], model.spectrum.pc1):
        assert model.decoder.preparation.has_removed(removed[None].astype(np.float32))
    assert len(model.decoder.preparation.removed) == 2 * quarter + 1
    code, _, err = keytok("fit", data, "--keep", 0.5, "--embedder", embedder, "--output", output)
    assert code == 2
    assert "--keep is for --head" in err


def test_fit_embeds_as_much_of_a_text_as_it_is_told(keytok, tiny: Callable[[str], Path], data: Path, tmp_path: Path):
    embedder = f"sgpt-nli:{tiny('gpt-neo')}"
    for name, arguments in (("whole", ()), ("cut", ("--max-tokens", 4))):
        code, _, err = keytok("fit", data, "--head", "--embedder", embedder, "--output", tmp_path / name, *arguments)
        assert (code, err) == (0, "")
    embeddings = LanguageModelEncoder(embedder, max_tokens=4).encode(TEXTS * 3)
    spectrum = KeyTokenModel.load(tmp_path / "cut").spectrum
    expected = Spectrum.from_embeddings(embeddings)
    np.testing.assert_allclose(np.abs(spectrum.components[0] @ expected.components[0]), 1, atol=1e-4)
    assert np.abs(KeyTokenModel.load(tmp_path / "whole").spectrum.components[0] @ expected.components[0]) < 0.999


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "--head --embeddings e.npy",
            "--head reads the head and the tokens of the --embedder: name it",
        ),
        ("--head --embedder {llama} --language english", "and leave --language out"),
        ("--head --embedder {headless}", "saved without its LM head"),
        ("--embedder {llama} --max-tokens 999", "max_tokens must be between 1 and 128"),
        ("--embedder {llama} --max-tokens 5", "no room for a text within 5 tokens"),
        ("--embedder {llama} --max-tokens 0", "--max-tokens"),
        ("--embedder prompt-eol", "name it, as in 'prompt-eol:PATH'"),
        ("--embedder prompt-eol:/no/where", "/no/where"),
    ],
)
def test_bad_input_of_fit_is_one_line_and_writes_nothing(
    keytok, tiny: Callable[[str], Path], data: Path, tmp_path: Path, arguments: str, message: str
):
    places = {"llama": f"prompt-eol:{tiny('llama')}", "headless": f"prompt-eol:{tiny('qwen3-8b')}"}
    given = [each.format(**places) for each in arguments.split()]
    code, out, err = keytok("fit", data, "--output", tmp_path / "model", *given)
    assert (code, out) == (2, "")
    assert message in err
    assert err.strip().count("\n") == 0
    assert not (tmp_path / "model").exists()


def test_presets_are_listed(keytok):
    code, out, err = keytok("presets")
    assert (code, err) == (0, "")
    rows = {line.split()[0]: line for line in out.splitlines() if not line.startswith(" ")}
    assert list(rows) == list(PRESETS)
    assert "weighted-mean" in rows["sgpt-nli"]
    assert "both ways" in rows["gritlm-7b"]


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_names_of_checkpoints_are_whole_on_a_terminal_of_any_width(columns, keytok, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    _, out, _ = keytok("presets")
    words = out.split()
    for name, preset in PRESETS.items():
        assert {name, *preset.adapters, preset.checkpoint or name, preset.backbone or name} <= set(words)
    assert max(map(len, out.splitlines())) <= 80
