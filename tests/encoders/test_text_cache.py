# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Embeddings are kept text by text, whatever happens to those who embed."""

import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny_models import TEXTS
from safetensors.numpy import save_file

from keytok_haystack.encoders import CachedEmbedder, embed
from keytok_haystack.encoders import embedding as embedding_module
from keytok_haystack.encoders.language_model import LanguageModelEncoder
from keytok_haystack.encoders.text_cache import key_of
from keytok_haystack.utils import progress

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that a language model has embedded."""
    encode, seen = LanguageModelEncoder.encode, []

    def noted(self, texts, *arguments, **options):
        seen.extend(texts)
        return encode(self, texts, *arguments, **options)

    monkeypatch.setattr(LanguageModelEncoder, "encode", noted)
    return seen


def files(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.safetensors"))


def test_a_line_that_is_added_is_embedded_alone(gritlm: str, encoded: list[str]):
    first = embed(TEXTS[:-1], gritlm, progress_bar=False)
    assert encoded == [*TEXTS[:-1]]
    encoded.clear()
    more = embed([TEXTS[-1], *TEXTS[:-1], TEXTS[0]], gritlm, progress_bar=False)
    assert encoded == [TEXTS[-1]]
    assert not more.cached
    np.testing.assert_array_equal(more.embeddings[1:-1], first.embeddings)
    np.testing.assert_array_equal(more.embeddings[-1], first.embeddings[0])
    np.testing.assert_allclose(more.embeddings[0], LanguageModelEncoder(gritlm).encode([TEXTS[-1]])[0], atol=1e-6)
    encoded.clear()
    assert embed(TEXTS[2:5], gritlm, progress_bar=False).cached
    assert encoded == []


def test_texts_in_many_blocks_are_one_file_in_the_end(gritlm: str, cache: Path, monkeypatch: pytest.MonkeyPatch):
    expected = LanguageModelEncoder(gritlm).encode(TEXTS)
    monkeypatch.setattr(embedding_module, "_FIRST_BLOCK", 2)
    monkeypatch.setattr(embedding_module, "_SECONDS_OF_BLOCK", 0)
    found = embed(TEXTS, gritlm, progress_bar=False)
    np.testing.assert_allclose(found.embeddings, expected, atol=1e-6)
    assert len(files(cache)) == 1
    again = embed(TEXTS, gritlm, progress_bar=False)
    np.testing.assert_array_equal(again.embeddings, found.embeddings)
    assert again.seconds == pytest.approx(found.seconds)


KILLED = """
import sys
from keytok_haystack.encoders import embed, embedding
from keytok_haystack.encoders.language_model import LanguageModelEncoder

embedding._FIRST_BLOCK, embedding._SECONDS_OF_BLOCK = 2, 0
encode, blocks = LanguageModelEncoder.encode, []

def slow(self, texts, *arguments, **options):
    blocks.append(texts)
    if len(blocks) == 3:
        print("here", flush=True)
        sys.stdin.read()
    return encode(self, texts, *arguments, **options)

LanguageModelEncoder.encode = slow
embed(sys.argv[2:], sys.argv[1], progress_bar=False)
"""


def test_what_a_killed_process_has_embedded_is_kept(gritlm: str, encoded: list[str], cache: Path):
    command = [sys.executable, "-c", KILLED, gritlm, *TEXTS]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert len(files(cache)) == 2
    embed(TEXTS, gritlm, progress_bar=False)
    assert len(encoded) == len(TEXTS) - 4
    assert embed(TEXTS, gritlm, progress_bar=False).cached


@pytest.mark.parametrize("damage", ["a flipped bit", "a part", "nothing", "something else", "other rows"])
def test_a_damaged_block_is_embedded_anew(
    damage: str, gritlm: str, cache: Path, encoded: list[str], caplog: pytest.LogCaptureFixture
):
    expected = embed(TEXTS, gritlm, progress_bar=False).embeddings
    (file,) = files(cache)
    content = bytearray(file.read_bytes())
    if damage == "a flipped bit":
        content[-400] ^= 4
    elif damage == "a part":
        del content[len(content) // 2 :]
    elif damage == "nothing":
        content.clear()
    else:
        content[:] = b"{}" * 500
    file.write_bytes(content)
    if damage == "other rows":
        keys = np.frombuffer(b"".join(map(key_of, TEXTS)), np.uint8).reshape(-1, 16)
        save_file({"keys": keys, "embeddings": np.ones((2, 5), np.float32)}, file)
    encoded.clear()
    np.testing.assert_array_equal(embed(TEXTS, gritlm, progress_bar=False).embeddings, expected)
    assert encoded == [*TEXTS]
    assert "is damaged" in caplog.text
    assert not file.exists()
    assert embed(TEXTS, gritlm, progress_bar=False).cached


def test_without_a_place_to_keep_them_embeddings_are_there_all_the_same(
    gritlm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("KEYTOK_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(embedding_module, "_FIRST_BLOCK", 2)
    assert len(embed(TEXTS, gritlm, progress_bar=False).embeddings) == len(TEXTS)
    assert caplog.text.count("cannot be kept") == 1


def test_two_who_embed_at_once_disturb_each_other_in_nothing(gritlm: str, cache: Path, monkeypatch):
    monkeypatch.setattr(embedding_module, "_FIRST_BLOCK", 2)
    expected = LanguageModelEncoder(gritlm).encode(TEXTS)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: embed(TEXTS, gritlm, progress_bar=False), range(8)))
    for each in found:
        np.testing.assert_allclose(each.embeddings, expected, atol=1e-6)
    assert embed(TEXTS, gritlm, progress_bar=False).cached


def test_a_model_is_loaded_once_however_many_ask_at_first(gritlm: str, monkeypatch: pytest.MonkeyPatch):
    loaded: list[str] = []

    def load(*arguments, **options):
        loaded.append("once")
        time.sleep(0.2)
        return LanguageModelEncoder(*arguments, **options)

    monkeypatch.setattr(embedding_module, "load_encoder", load)
    kept = CachedEmbedder(gritlm, progress_bar=False)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: kept.embed([text]), TEXTS))
    assert loaded == ["once"]


def test_the_position_of_a_text_is_told_whichever_block_it_is_in(gritlm: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(embedding_module, "_FIRST_BLOCK", 2)
    encode = LanguageModelEncoder.encode

    def broken(self, texts, *arguments, **options):
        embeddings = encode(self, texts, *arguments, **options)
        embeddings[[text == TEXTS[3] for text in texts]] = np.nan
        return embeddings

    monkeypatch.setattr(LanguageModelEncoder, "encode", broken)
    with pytest.raises(ValueError, match="embedding of text 3 is not finite"):
        embed(TEXTS, gritlm, progress_bar=False)


def test_where_there_is_no_terminal_a_line_is_said_now_and_then(gritlm: str, monkeypatch, capsys):
    embed(TEXTS, gritlm)
    assert capsys.readouterr().err == ""  # soon done
    monkeypatch.setattr(progress, "_SECONDS", 0.05)
    monkeypatch.setattr(embedding_module, "_FIRST_BLOCK", 1)
    monkeypatch.setattr(embedding_module, "_SECONDS_OF_BLOCK", 0)
    encode = LanguageModelEncoder.encode

    def slow(*arguments, **options):
        time.sleep(0.06)
        return encode(*arguments, **options)

    monkeypatch.setattr(LanguageModelEncoder, "encode", slow)
    embed(TEXTS, gritlm, role="query")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 3
    assert all(line.startswith("Embedding:") and f"/{len(TEXTS)}" in line for line in lines)


def test_a_model_of_the_hub_that_has_another_dimension_now_embeds_all_anew(monkeypatch: pytest.MonkeyPatch):
    class Model:
        dimension = 4

        def encode_document(self, texts, **_):
            return np.array([[len(text)] * self.dimension for text in texts], np.float32)

    model = Model()
    monkeypatch.setattr(CachedEmbedder, "_sentence_transformer", model)
    kept = CachedEmbedder("no/such", progress_bar=False)
    assert kept.embed(["a", "bb"]).embeddings.shape == (2, 4)
    model.dimension = 3
    np.testing.assert_array_equal(kept.embed(["a", "bb", "ccc"]).embeddings, [[1] * 3, [2] * 3, [3] * 3])
    assert kept.embed(["bb", "a"]).cached
