# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Training tiny models: what changes and what does not, interruptions, and what can go wrong."""

import gc
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from helpers.training import examples_of, sentences
from scipy.sparse import csr_array
from scipy.special import softmax
from scipy.stats import entropy

from keytok_haystack import alignment
from keytok_haystack.encoders import head_of
from keytok_haystack.encoders.language_model import LanguageModelEncoder
from keytok_haystack.training.errors import TrainingError
from keytok_haystack.training.examples import Example, Examples
from keytok_haystack.training.loop import Trained, fit_network, resolve
from keytok_haystack.training.settings import Method, Settings

pytestmark = pytest.mark.usefixtures("swift_collection", "interruptible")

Tiny = Callable[[str], Path]
Weights = dict[str, torch.Tensor]

KINDS = [("prompt-eol", "llama"), ("contriever", "bert")]  # trained by LoRA, and in full, with dropout
STEPS = {"batch_size": 4, "checkpoint_steps": 2}  # of 24 texts: 6 in an epoch


@dataclass(frozen=True)
class Eventful(Examples):
    """Something happens when an example is asked for, once."""

    at: int
    event: Callable[[], object]
    asked: list[int] = field(default_factory=list)

    def __getitem__(self, row: int) -> Example:
        self.asked.append(row)
        if len(self.asked) == self.at:
            self.event()
        return super().__getitem__(row)


def run(
    embedder: str,
    checkpoints: Path,
    *,
    at: int = 0,
    event: Callable[[], object] = int,
    network: Callable[[torch.nn.Module], torch.nn.Module] = lambda network: network,
    texts: int = 24,
    **settings: object,
) -> tuple[LanguageModelEncoder, Trained]:
    """Train on random sentences."""
    encoder = LanguageModelEncoder(embedder)
    encoder.network = network(encoder.network)
    made = examples_of(encoder, embedder, sentences(texts))
    trained = fit_network(
        encoder,
        head_of(embedder).decoder,
        Eventful(made.inputs, made.targets, at, event),
        examples_of(encoder, embedder, sentences(6, seed=1)),
        Settings(**(STEPS | settings)),
        checkpoints=checkpoints,
    )
    return encoder, trained


def weights(encoder: LanguageModelEncoder) -> Weights:
    """All but a pooler, which checkpoints do not have and training leaves alone."""
    return {name: each.clone() for name, each in encoder.network.state_dict().items() if "pooler" not in name}


def differing(first: Weights, second: Weights) -> set[str]:
    assert first.keys() == second.keys()
    return {name for name in first if not torch.equal(first[name], second[name])}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("checkpoint-*"))


@contextmanager
def room_again() -> Iterator[None]:
    """Lift the limit of the size of files, which a test has lowered."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def limit_files(size: int) -> None:
    """Let writing files fail from a size on, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@pytest.fixture(scope="module")
def swift_collection() -> Iterator[None]:
    """Training ends with a collection of garbage, which else goes through all that was ever imported."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind[0])
def embedder(request: pytest.FixtureRequest, tiny: Tiny) -> str:
    preset, architecture = request.param
    return f"{preset}:{tiny(architecture)}"


@pytest.fixture(scope="module")
def causal(tiny: Tiny) -> str:
    return f"prompt-eol:{tiny('llama')}"


class Finished(NamedTuple):
    """A finished run of 6 steps, with its checkpoints."""

    encoder: LanguageModelEncoder
    trained: Trained
    folder: Path


@pytest.fixture(scope="module")
def finished_run(causal: str, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("finished")
    return Finished(*run(causal, folder), folder)


@pytest.fixture
def finished(finished_run: Finished, tmp_path: Path) -> Finished:
    """The finished run, with checkpoints that may be changed."""
    return finished_run._replace(folder=Path(shutil.copytree(finished_run.folder, tmp_path / "finished")))


@pytest.fixture(scope="module")
def uninterrupted(
    swift_collection: None, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[LanguageModelEncoder, Trained]]:
    """Two epochs, 12 steps."""
    return cache(lambda embedder: run(embedder, tmp_path_factory.mktemp("uninterrupted"), epochs=2))


# What training does


def test_an_encoder_is_trained_in_full_and_a_causal_model_by_lora(tiny: Tiny):
    methods = {
        preset: resolve(Settings(), LanguageModelEncoder(f"{preset}:{tiny(architecture)}")).method
        for preset, architecture in (*KINDS, ("gritlm-7b", "mistral"), ("sgpt-nli", "gpt-neo"))
    }
    assert methods == {"prompt-eol": "lora", "contriever": "full", "gritlm-7b": "lora", "sgpt-nli": "lora"}


@pytest.mark.parametrize(("method", "layers"), [("lora", None), ("lora", 1.0), ("full", None), ("full", 0.5)])
def test_only_the_chosen_layers_change(embedder: str, tmp_path: Path, method: str, layers: float | None):
    before = weights(LanguageModelEncoder(embedder))
    encoder, trained = run(embedder, tmp_path / "checkpoints", method=method, layers=layers, learning_rate=0.01)
    assert trained.settings.method == method
    last_only = layers == 0.5 or (layers is None and method == "lora")
    of_layers = {name for name in before if ".1." in name or (".0." in name and not last_only)}
    matrices = {name for name in of_layers if before[name].ndim == 2}
    expected = matrices if method == "lora" else of_layers
    assert differing(before, weights(encoder)) == expected  # so word embeddings, which heads are tied to, stay
    if method == "full":
        assert trained.parameters == sum(before[name].numel() for name in expected)
    else:
        assert trained.parameters == sum(16 * sum(before[name].shape) for name in expected)
    assert not any(parameter.requires_grad for parameter in encoder.network.parameters())
    assert not encoder.network.training


def test_the_reported_loss_is_that_of_the_trained_encoder(embedder: str, tmp_path: Path):
    """So adapters that were merged embed as they did in training."""
    untrained = LanguageModelEncoder(embedder)
    encoder, trained = run(embedder, tmp_path, epochs=2, temperature=0.5)
    examples = examples_of(encoder, embedder, sentences(6, seed=1))
    decoder = head_of(embedder).decoder
    transform = decoder.preparation.transform
    expected = []
    for each in (untrained, encoder):
        with torch.no_grad():
            states = each.pooled(each.batch(examples.inputs)).numpy()
        logits = (states if transform is None else transform(states)) @ decoder.weight.T
        expected.append(entropy(examples.targets.toarray(), softmax(logits / 0.5, axis=1), axis=1).mean())
    # measured in batches of 4 and 2
    held_out = [entry["held_out_loss"] for entry in trained.history if "held_out_loss" in entry]
    assert [held_out[0], held_out[-1]] == pytest.approx(expected, rel=1e-5)
    assert held_out[-1] < held_out[0]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_ten_texts_are_overfitted(causal: str, tmp_path: Path, method: Method):
    texts, head = sentences(10, seed=1), head_of(causal)
    encoder = LanguageModelEncoder(causal)
    before = alignment(head.decoder, head.vocabulary, encoder.encode(texts), texts)
    examples = examples_of(encoder, causal, texts)
    settings = Settings(method, batch_size=10, epochs=40, learning_rate=0.01, layers=1.0, checkpoint_steps=40)
    fit_network(encoder, head.decoder, examples, examples, settings, checkpoints=tmp_path / "checkpoints")
    after = alignment(head.decoder, head.vocabulary, encoder.encode(texts), texts)
    assert before.hit_at_k < 1
    assert after.hit_at_k == 1
    assert after.local_alignment_rate > before.local_alignment_rate + 0.5


def test_the_seed_decides(embedder: str, uninterrupted: Callable, tmp_path: Path):
    first = weights(uninterrupted(embedder)[0])
    assert not differing(first, weights(run(embedder, tmp_path / "same", epochs=2)[0]))
    assert differing(first, weights(run(embedder, tmp_path / "other", epochs=2, seed=1)[0]))


def test_accumulating_changes_nothing(causal: str, uninterrupted: Callable, tmp_path: Path):
    at_once, trained_at_once = uninterrupted(causal)
    in_parts, trained = run(causal, tmp_path / "checkpoints", epochs=2, accumulate=2)
    assert trained.steps == trained_at_once.steps == 12
    for name, each in weights(at_once).items():
        torch.testing.assert_close(weights(in_parts)[name], each, rtol=1e-4, atol=1e-5)


def test_mixed_precision_trains_float32_weights(causal: str, uninterrupted: Callable, tmp_path: Path):
    encoder, trained = run(causal, tmp_path / "checkpoints", epochs=2, bf16=True)
    assert {each.dtype for each in weights(encoder).values()} == {torch.float32}
    full = uninterrupted(causal)[1].history[-1]["held_out_loss"]
    assert trained.history[-1]["held_out_loss"] != full
    assert trained.history[-1]["held_out_loss"] == pytest.approx(full, rel=0.01)


def test_the_history_is_whole(causal: str, tmp_path: Path):
    """Also with fewer steps than usually are between two entries, and where no checkpoint falls on the last one."""
    encoder, trained = run(causal, tmp_path / "checkpoints", checkpoint_steps=4)
    assert trained.steps == 6
    assert [entry["step"] for entry in trained.history if "held_out_loss" in entry] == [0, 4, 6]
    losses = [entry for entry in trained.history if "loss" in entry]
    assert losses[-1]["step"] == 6
    # the tokens of all texts, each seen once
    assert trained.tokens == sum(len(each.ids) for each in encoder.inputs(sentences(24))) == losses[-1]["tokens"]
    assert 0 < trained.seconds == losses[-1]["seconds"]


# Interruptions


@pytest.mark.parametrize("at", [15, 40], ids=["first epoch", "second epoch"])
def test_an_interrupted_run_ends_with_the_same_weights(embedder: str, uninterrupted: Callable, tmp_path: Path, at: int):
    expected, trained = uninterrupted(embedder)
    with pytest.raises(KeyboardInterrupt):
        run(embedder, tmp_path, epochs=2, at=at, event=lambda: signal.raise_signal(signal.SIGINT))
    assert names(tmp_path)
    encoder, resumed = run(embedder, tmp_path, epochs=2)
    assert not differing(weights(expected), weights(encoder))
    assert (resumed.steps, resumed.tokens) == (trained.steps, trained.tokens)
    assert [{**entry, "seconds": 0} for entry in resumed.history] == [
        {**entry, "seconds": 0} for entry in trained.history
    ]


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_weights(causal: str, uninterrupted: Callable, tmp_path: Path):
    child = os.fork()
    if child == 0:
        try:
            run(causal, tmp_path, epochs=2, at=40, event=lambda: os.kill(os.getpid(), signal.SIGKILL))
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert names(tmp_path) == ["checkpoint-6", "checkpoint-8"]
    encoder, _ = run(causal, tmp_path, epochs=2)
    assert not differing(weights(uninterrupted(causal)[0]), weights(encoder))


def test_a_finished_run_is_not_run_again(causal: str, finished: Finished):
    asked = []
    again, trained_again = run(causal, finished.folder, at=1, event=lambda: asked.append(1))
    assert not differing(weights(finished.encoder), weights(again))
    assert trained_again.history == finished.trained.history
    assert not asked


def test_a_checkpoint_that_was_cut_off_is_not_used(embedder: str, uninterrupted: Callable, tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        run(embedder, tmp_path, epochs=2, at=40, event=lambda: signal.raise_signal(signal.SIGINT))
    last = tmp_path / names(tmp_path)[-1]
    (last / "complete").unlink()
    for file in last.glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:100])
    encoder, _ = run(embedder, tmp_path, epochs=2)
    assert not differing(weights(uninterrupted(embedder)[0]), weights(encoder))


def test_what_was_not_written_to_its_end_is_removed(causal: str, tmp_path: Path):
    (tmp_path / "checkpoint-999").mkdir()
    (tmp_path / "checkpoint-999" / "adapter_model.safetensors").write_bytes(b"half")
    run(causal, tmp_path)
    assert names(tmp_path) == ["checkpoint-4", "checkpoint-6"]


@pytest.mark.parametrize("change", [{"texts": 28}, {"seed": 1}, {"rank": 8}, {"temperature": 2.0}], ids=str)
def test_checkpoints_of_another_training_are_refused_and_stay(
    causal: str, finished: Finished, change: dict[str, object]
):
    before = {file: file.read_bytes() for file in finished.folder.rglob("*") if file.is_file()}
    with pytest.raises(TrainingError, match="has checkpoints of another training, with other texts or settings"):
        run(causal, finished.folder, **change)
    assert before == {file: file.read_bytes() for file in finished.folder.rglob("*") if file.is_file()}


def test_checkpoints_of_an_unknown_training_are_refused(causal: str, finished: Finished):
    (finished.folder / "digest").unlink()
    with pytest.raises(TrainingError, match="has checkpoints of another training"):
        run(causal, finished.folder)
    assert names(finished.folder) == ["checkpoint-4", "checkpoint-6"]


def test_continuing_leaves_the_mark_alone(causal: str, finished: Finished):
    """Writing it anew on a full disk would leave it empty."""
    written = (finished.folder / "digest").stat().st_mtime_ns
    assert run(causal, finished.folder)[1].steps == 6
    assert (finished.folder / "digest").stat().st_mtime_ns == written


def test_checkpoints_of_another_model_are_refused(finished: Finished, tiny: Tiny):
    with pytest.raises(TrainingError, match="has checkpoints of another training"):
        run(f"prompt-eol:{tiny('mistral')}", finished.folder)


def test_checkpoints_of_other_targets_are_refused(causal: str, finished: Finished):
    encoder, head, folder = LanguageModelEncoder(causal), head_of(causal).decoder, finished.folder
    learnt, held_out = (examples_of(encoder, causal, sentences(count, seed)) for count, seed in ((24, 0), (6, 1)))
    others = Examples(learnt.inputs, csr_array(learnt.targets[::-1]))
    with pytest.raises(TrainingError, match="has checkpoints of another training"):
        fit_network(encoder, head, others, held_out, Settings(**STEPS), checkpoints=folder)
    # with the same targets the run is recognized
    fit_network(encoder, head, learnt, held_out, Settings(**STEPS), checkpoints=folder)


# What can go wrong


@pytest.mark.parametrize("size", [1_000, 20_000, 36_000])
def test_a_full_disk_leaves_the_last_checkpoint(causal: str, uninterrupted: Callable, tmp_path: Path, size: int):
    """Texts, weights or the state of the optimizer do not fit."""
    with (
        room_again(),
        pytest.raises(TrainingError, match=r"^The checkpoint of step 4 cannot be written .*: make room") as error,
    ):
        run(causal, tmp_path, epochs=2, at=13, event=lambda: limit_files(size))
    assert f"run the command again: it continues from '{tmp_path / 'checkpoint-2'}'." in str(error.value)
    assert names(tmp_path) == ["checkpoint-2"]
    encoder, _ = run(causal, tmp_path, epochs=2)
    assert not differing(weights(uninterrupted(causal)[0]), weights(encoder))


def test_too_little_memory_leaves_the_last_checkpoint(causal: str, uninterrupted: Callable, tmp_path: Path):
    """The allocator refuses a petabyte; the remedy that the message names gives the same weights, but for rounding."""
    with pytest.raises(TrainingError, match="not enough memory for 4 texts at a time in step 3") as error:
        run(causal, tmp_path, epochs=2, at=13, event=lambda: torch.empty(1 << 50, dtype=torch.uint8))
    assert "accumulate in more parts, and run the command again" in str(error.value)
    assert str(error.value).endswith(f"it continues from '{tmp_path / 'checkpoint-2'}'.")
    assert names(tmp_path) == ["checkpoint-2"]
    encoder, trained = run(causal, tmp_path, epochs=2, accumulate=2)
    expected, whole = uninterrupted(causal)
    assert trained.tokens == whole.tokens
    for name, each in weights(expected).items():
        torch.testing.assert_close(weights(encoder)[name], each, rtol=1e-4, atol=1e-5)


def test_too_little_memory_of_a_gpu(causal: str, tmp_path: Path):
    def allocate(network: torch.nn.Module, _: object) -> None:
        if network.training:
            msg = "CUDA out of memory. Tried to allocate 9.00 GiB."
            raise torch.OutOfMemoryError(msg)

    def with_hook(network: torch.nn.Module) -> torch.nn.Module:
        network.register_forward_pre_hook(allocate)
        return network

    with pytest.raises(TrainingError, match=r"not enough memory for 2 texts at a time in step 1: .* no checkpoint yet"):
        run(causal, tmp_path, network=with_hook, accumulate=2)


def test_a_learning_rate_that_is_too_high(embedder: str, tmp_path: Path):
    with pytest.raises(TrainingError, match=r"^The loss is not finite in step \d: use a lower learning rate"):
        run(embedder, tmp_path, learning_rate=1e30)
    assert run(embedder, tmp_path)[1].steps == 6  # there is no checkpoint of the failed run in the way


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "rank must be at least 1, but it is 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"accumulate": 0}, "accumulate must be at least 1"),
        ({"checkpoint_steps": 0}, "checkpoint_steps must be at least 1"),
        ({"epochs": 0.0}, "epochs must be a positive number"),
        ({"epochs": float("inf")}, "epochs must be a positive number"),
        ({"learning_rate": float("nan")}, "learning_rate must be a positive number"),
        ({"temperature": -1.0}, "temperature must be a positive number"),
        ({"layers": 0.0}, "layers must be above 0 and at most 1"),
        ({"layers": 1.5}, "layers must be above 0 and at most 1"),
        ({"batch_size": 32, "accumulate": 5}, "32 texts cannot go through the model in 5 parts of equal size"),
    ],
)
def test_settings_without_a_meaning(settings: dict[str, float], message: str):
    with pytest.raises(ValueError, match=message):
        Settings(**settings)
