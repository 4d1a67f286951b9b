# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""What stock sentence-transformers makes of a folder, compared with the encoder."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny_models import TEXTS
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from keytok_haystack.encoders import PRESETS
from keytok_haystack.encoders.language_model import LanguageModelEncoder
from keytok_haystack.encoders.presets import Prompt
from keytok_haystack.encoders.sentence_transformers_folder import UnsupportedEmbedderError, write_modules

MAX_TOKENS = 90
LONG = ('The "wing": ' + 80 * "lift of heat, ", " ".join(TEXTS) * 3)
OWN_TEMPLATE = "{{ messages[0]['content'] }} as the checkpoint has it"
CASES = [
    # something after the text; llama's tokenizer puts no space before what follows a spelled-out <s>
    ("prompt-eol", "llama"),
    ("prompt-eol", "gpt-neo"),
    ("prompt-eol", "bert"),
    # a token at the end, and other prompts for queries
    ("e5-mistral", "e5-mistral"),
    ("gte-qwen2-1.5b", "qwen2"),
    # nothing but prompts
    ("qwen3-embedding-0.6b", "qwen3"),
    ("e5-base-v2", "bert"),
    ("sgpt-nli", "gpt-neo"),
    ("own-cls", "bert"),
]


@pytest.fixture
def own_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    query = Prompt("query: ", ", a query")
    monkeypatch.setitem(PRESETS, "own-cls", replace(PRESETS["e5-base-v2"], pooling="cls"))
    monkeypatch.setitem(PRESETS, "own-two-ends", replace(PRESETS["e5-base-v2"], query=query))


@pytest.fixture
def embedder(tiny: Callable[[str], Path], tmp_path: Path, own_presets: None) -> Callable[[str, str], str]:
    """The name of a preset with a checkpoint of its own, whose tokenizer has habits that encoders leave aside."""

    def name(preset: str, architecture: str) -> str:
        folder = Path(shutil.copytree(tiny(architecture), tmp_path / "checkpoint"))
        (folder / "chat_template.jinja").write_text(OWN_TEMPLATE)
        configure(folder, padding_side="left", truncation_side="left")
        return f"{preset}:{folder}"

    return name


def configure(folder: Path, **settings: str) -> None:
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def folder_of(embedder: str) -> Path:
    return Path(embedder.partition(":")[2])


@pytest.mark.parametrize(("preset", "architecture"), CASES)
def test_sentence_transformers_embeds_alike(embedder: Callable[[str, str], str], preset: str, architecture: str):
    name = embedder(preset, architecture)
    encoder = LanguageModelEncoder(name, max_tokens=MAX_TOKENS)
    write_modules(folder_of(name), encoder)
    model = SentenceTransformer(str(folder_of(name)), device="cpu", trust_remote_code=False)
    assert model.max_seq_length == MAX_TOKENS

    documents, queries = encoder.encode(TEXTS), encoder.encode(TEXTS, "query")
    assert np.linalg.norm(np.diff(documents, axis=0), axis=1).min() > 0.01
    np.testing.assert_allclose(model.encode_document(list(TEXTS)), documents, atol=1e-5)
    np.testing.assert_allclose(model.encode_query(list(TEXTS)), queries, atol=1e-5)
    np.testing.assert_allclose(model.encode(list(TEXTS)), documents, atol=1e-5)
    assert model.get_embedding_dimension() == encoder.dimension

    for text in LONG:  # characters of several bytes, and tokens that reach from the text into the prompt, are cut apart
        ids = model.preprocess([text], prompt=model.prompts["document"])["input_ids"][0].tolist()
        (built,) = encoder.inputs([text])
        assert len(ids) == MAX_TOKENS
        blocks = SequenceMatcher(None, ids, built.ids, autojunk=False).get_matching_blocks()
        assert sum(block.size for block in blocks) >= MAX_TOKENS - 3
        assert ids[-4:] == built.ids[-4:] or not (encoder.preset.document.after or encoder.preset.ending)


def test_the_checkpoint_keeps_its_chat_template(embedder: Callable[[str, str], str]):
    name = embedder("prompt-eol", "llama")
    before = {file: file.read_bytes() for file in folder_of(name).iterdir()}
    write_modules(folder_of(name), LanguageModelEncoder(name))
    assert "chat_template.jinja" in {file.name for file in before}
    assert before == {file: file.read_bytes() for file in before}


@pytest.mark.parametrize(
    ("preset", "architecture", "reason"),
    [
        ("prompt-bert", "bert", "it has no pooling 'mask'"),
        ("simcse-sup", "bare-bert", "it has no pooling 'pooler'"),
        ("gritlm-7b", "mistral", "the mean leaves out the prompt"),
        ("sgpt-msmarco", "gpt-neo", "the prompt is tokenized separately"),
        ("own-two-ends", "bert", "followed by different words"),
    ],
)
def test_what_it_cannot_do_is_said_and_nothing_written(
    embedder: Callable[[str, str], str], preset: str, architecture: str, reason: str
):
    assert_refused(embedder(preset, architecture), reason)


def test_a_tokenizer_needs_a_token_to_pad_with(embedder: Callable[[str, str], str]):
    name = embedder("prompt-eol", "mistral")
    file = folder_of(name) / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in settings.items() if not key.endswith("_token")}))
    assert_refused(name, "the tokenizer has no special token")


def test_what_a_tokenizer_adds_must_be_a_token_that_can_be_spelled_out(embedder: Callable[[str, str], str]):
    name = embedder("prompt-eol", "mistral")
    tokenizer = Tokenizer.from_file(str(folder_of(name) / "tokenizer.json"))
    added = ("▁flow", tokenizer.token_to_id("▁flow"))
    tokenizer.post_processor = TemplateProcessing(single="▁flow $A", special_tokens=[added])
    tokenizer.save(str(folder_of(name) / "tokenizer.json"))
    assert_refused(name, "other tokens of a text between '▁flow' and")


def assert_refused(name: str, reason: str) -> None:
    before = sorted(folder_of(name).iterdir())
    with pytest.raises(UnsupportedEmbedderError, match=re.escape(reason)):
        write_modules(folder_of(name), LanguageModelEncoder(name))
    assert sorted(folder_of(name).iterdir()) == before
