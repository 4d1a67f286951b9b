# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Train an embedder on targets, with transformers' Trainer: LoRA or whole weights, checkpoints, held-out loss."""

import hashlib
import json
import os
import re
import shutil
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from scipy.sparse import csr_array
from torch import Tensor
from tqdm import tqdm
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.pytorch_utils import Conv1D
from transformers.trainer_callback import PrinterCallback

from keytok_haystack.decoder import TokenDecoder
from keytok_haystack.encoders.cache import model_identity
from keytok_haystack.encoders.inputs import Input
from keytok_haystack.encoders.language_model import Batch, LanguageModelEncoder
from keytok_haystack.encoders.progress import without_progress_bars
from keytok_haystack.training.objective import Head, divergence
from keytok_haystack.training.settings import Method, Settings

_COMPLETE = "complete"  # marks a checkpoint that was written to its end
_DIGEST = "digest"
_LOGGED = 10  # steps between two entries of the history, at most
_WARM_UP = 0.05
_DEFAULT_RATE: dict[Method, float] = {"lora": 1e-3, "full": 1e-4}
_DEFAULT_LAYERS: dict[Method, float] = {"lora": 0.5, "full": 1.0}


class TrainingError(ValueError):
    """Training cannot begin or go on; what was learnt up to the last checkpoint is kept."""


@dataclass(frozen=True)
class Examples:
    """
    Texts as the model sees them, and what their embeddings should say.

    :param inputs: `n` inputs.
    :param targets: Shape `(n, V)`, rows of sum 1.
    """

    inputs: Sequence[Input]
    targets: csr_array

    def __len__(self) -> int:
        """Return the number of texts, `n`."""
        return len(self.inputs)

    def __getitem__(self, row: int) -> "Example":
        """Return a text."""
        entries = slice(self.targets.indptr[row], self.targets.indptr[row + 1])
        features = torch.from_numpy(self.targets.indices[entries].astype(np.int64))
        return Example(self.inputs[row], features, torch.from_numpy(self.targets.data[entries].astype(np.float32)))


class Example(NamedTuple):
    """An input, the features of its target, and their shares."""

    input: Input
    features: Tensor
    shares: Tensor


@dataclass(frozen=True)
class Trained:
    """
    What training has come to.

    :param settings: How it was trained, defaults filled in.
    :param parameters: How many numbers were trained.
    :param steps: How many steps were taken.
    :param tokens: How many tokens went through the model, without padding.
    :param seconds: How long the steps took, those before an interruption included.
    :param history: `{"step", "loss", "learning_rate", "tokens", "seconds"}`, the last two up to that step, and
        `{"step", "held_out_loss"}`, in order.
    """

    settings: Settings
    parameters: int
    steps: int
    tokens: int
    seconds: float
    history: list[dict[str, float]]


def train(
    encoder: LanguageModelEncoder,
    head: TokenDecoder,
    examples: Examples,
    held_out: Examples,
    settings: Settings,
    *,
    checkpoints: Path,
    progress_bar: bool = False,
) -> Trained:
    """
    Train an encoder's network in place, so that the head reads the targets in its embeddings.

    A run that was interrupted goes on from its last whole checkpoint, to the same weights as without the interruption.

    :param encoder: Its network is changed; at the end it is the trained one, adapters merged.
    :param head: Reads embeddings; it stays as it is.
    :param examples: What to learn from.
    :param held_out: What to measure the loss on.
    :param settings: How to train.
    :param checkpoints: A folder for checkpoints, of which the last two stay; the caller removes it when the trained
        model is saved.
    :param progress_bar: Whether to show a progress bar.
    :raises TrainingError: The folder has checkpoints of another training, no layers of the model are known by name, a
        loss is not finite, a step does not fit into memory, or a checkpoint cannot be written. The last checkpoint is
        kept.
    """
    settings = resolved(settings, encoder)
    last = _claim(checkpoints, _digest(encoder, head, examples, held_out, settings))
    torch.manual_seed(settings.seed)  # the first weights of LoRA are random
    if settings.method == "full":
        encoder.network.float()  # small changes would be lost in a smaller type
    network = _trainable(encoder.network, settings)
    progress = _Progress(last, progress_bar=progress_bar)
    trainer = _Trainer(encoder, network, head, examples, held_out, settings, checkpoints, resumed=last is not None)
    trainer.add_callback(progress)
    try:
        with without_progress_bars():  # of writing each checkpoint
            trainer.train(resume_from_checkpoint=None if last is None else str(last))
    except (RuntimeError, MemoryError, OSError, SafetensorError) as error:
        _remove_unfinished(checkpoints)
        if message := _explanation(error, trainer.state.global_step, progress.kept, settings, checkpoints):
            raise TrainingError(message) from error
        raise
    finally:
        progress.close()
    if isinstance(network, PeftModel):
        encoder.network = network.merge_and_unload()
    encoder.network.requires_grad_(requires_grad=False).eval()
    history = [_readable(entry) for entry in trainer.state.log_history if {"loss", "eval_loss"} & set(entry)]
    return Trained(
        settings,
        sum(parameter.numel() for parameter in trainer.trained),
        trainer.state.global_step,
        int(trainer.tokens),
        trainer.seconds,
        history,
    )


class _Trainer(Trainer):
    """Transformers' trainer, with the loss of the embeddings that an encoder pools."""

    def __init__(
        self,
        encoder: LanguageModelEncoder,
        network: Any,
        head: TokenDecoder,
        examples: Examples,
        held_out: Examples,
        settings: Settings,
        checkpoints: Path,
        *,
        resumed: bool,
    ) -> None:
        self._encoder = encoder
        self._head = Head(head).to(encoder.device)
        self._temperature = settings.temperature
        self._last_time = time.perf_counter()
        self._tokens_since = 0
        self.trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        arguments = TrainingArguments(
            output_dir=str(checkpoints),
            per_device_train_batch_size=settings.batch_size // settings.accumulate,
            per_device_eval_batch_size=settings.batch_size // settings.accumulate,
            gradient_accumulation_steps=settings.accumulate,
            num_train_epochs=settings.epochs,
            learning_rate=cast("float", settings.learning_rate),
            lr_scheduler_type="cosine",
            warmup_steps=_WARM_UP,
            max_grad_norm=1.0,
            bf16=bool(settings.bf16),
            seed=settings.seed,
            use_cpu=encoder.device.type == "cpu",
            logging_strategy="steps",
            logging_steps=min(_LOGGED, settings.checkpoint_steps),
            eval_strategy="steps",
            eval_steps=settings.checkpoint_steps,
            eval_on_start=not resumed,
            save_strategy="steps",
            save_steps=settings.checkpoint_steps,
            save_total_limit=2,
            label_names=["target_shares"],
            prediction_loss_only=True,
            remove_unused_columns=False,
            dataloader_pin_memory=encoder.device.type == "cuda",
            disable_tqdm=True,
            report_to="none",
        )
        if arguments.world_size > 1:
            msg = "Training runs in one process: start it without torchrun or accelerate launch."
            raise TrainingError(msg)
        arguments._n_gpu = min(arguments.n_gpu, 1)  # steps have the same texts on every machine
        super().__init__(
            model=network,
            args=arguments,
            data_collator=self._collate,
            train_dataset=examples,
            eval_dataset=held_out,
        )
        self.model_accepts_loss_kwargs = False  # the loss is a mean over a step's part, and so is their mean
        self.accelerator.gradient_accumulation_steps = 1  # older versions would divide by their number twice
        self.remove_callback(PrinterCallback)

    @property
    def tokens(self) -> float:
        """How many tokens have gone through the model up to the last entry of the history."""
        return float(self._last_logged("tokens"))

    @property
    def seconds(self) -> float:
        """How long the steps have taken up to the last entry of the history."""
        return float(self._last_logged("seconds"))

    def _last_logged(self, name: str) -> float:
        return next((entry[name] for entry in reversed(self.state.log_history) if name in entry), 0.0)

    def _collate(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        batch = self._encoder.batch([example.input for example in examples])
        pad = torch.nn.utils.rnn.pad_sequence
        return batch._asdict() | {
            "target_features": pad([example.features for example in examples], batch_first=True),
            "target_shares": pad([example.shares for example in examples], batch_first=True),
        }

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,  # noqa: FBT001, FBT002  # as in transformers
        num_items_in_batch: Any = None,  # noqa: ARG002
    ) -> Any:
        """Return the divergence of a batch from its targets."""
        batch = Batch(inputs["tokens"], inputs["mask"], inputs["shares"])
        logits = self._head(self._encoder.pooled(batch, model))
        loss = divergence(logits, inputs["target_features"], inputs["target_shares"], self._temperature)
        if not torch.isfinite(loss):
            step, folder = self.state.global_step + 1, self.args.output_dir
            msg = f"The loss is not finite in step {step}: use a lower learning rate, and remove '{folder}'."
            raise TrainingError(msg)
        if model.training:
            self._tokens_since += int(batch.mask.sum())
        return (loss, {}) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Note with each loss how many tokens and seconds it took to get there."""
        if "loss" in logs:
            now = time.perf_counter()
            logs["tokens"] = self.tokens + self._tokens_since
            logs["seconds"] = self.seconds + now - self._last_time
            self._tokens_since = 0
        super().log(logs, start_time)
        self._last_time = time.perf_counter()  # measuring the held-out loss is no step


class _Progress(TrainerCallback):
    """Shows how far training is, knows the last whole checkpoint, and leaves no step out of the history."""

    def __init__(self, last: Path | None, *, progress_bar: bool) -> None:
        self.kept = last
        self._bar = tqdm(desc="Training", unit=" steps", disable=not progress_bar)
        self._said: dict[str, str] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self._bar.reset(state.max_steps)
        self._bar.update(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self._bar.update(state.global_step - self._bar.n)
        control.should_evaluate |= state.global_step >= state.max_steps  # older versions of transformers do not
        control.should_log |= control.should_evaluate  # what is counted since the last entry is in no checkpoint

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:  # noqa: ARG002
        for name, label in (("loss", "loss"), ("eval_loss", "held out")):
            if logs and name in logs:
                self._said[label] = f"{logs[name]:.3f}"
        self._bar.set_postfix(self._said)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self.kept = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        os.sync()  # all that is in it is on the disk before the mark is
        (self.kept / _COMPLETE).touch()

    def close(self) -> None:
        self._bar.close()


def resolved(settings: Settings, encoder: LanguageModelEncoder) -> Settings:
    """Return settings with the defaults that suit an encoder in the places of None."""
    is_encoder = encoder.looks_ahead() and not encoder.preset.bidirectional
    method = settings.method or ("full" if is_encoder else "lora")
    gpu = encoder.device.type == "cuda"
    return replace(
        settings,
        method=method,
        layers=settings.layers or _DEFAULT_LAYERS[method],
        learning_rate=settings.learning_rate or _DEFAULT_RATE[method],
        bf16=gpu and torch.cuda.is_bf16_supported(including_emulation=False)
        if settings.bf16 is None
        else settings.bf16,
    )


def _trainable(network: Any, settings: Settings) -> Any:
    """
    Choose what is trained of a network: its last layers.

    What is before them, the word embeddings above all, stays as it is, so that nothing has to flow back through it, and
    a head that is tied to them keeps its meaning.

    :returns: The network itself, or LoRA around it.
    """
    count = int(network.config.get_text_config().num_hidden_layers)
    first = min(count - 1, round(count * (1 - cast("float", settings.layers))))
    network.requires_grad_(requires_grad=False)
    if settings.method == "full":
        chosen = [parameter for name, parameter in network.named_parameters() if _layer(name) >= first]
        for parameter in chosen:
            parameter.requires_grad = True
        if not chosen:
            raise TrainingError(_NO_LAYERS)
        return network
    matrices = [
        name
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and _layer(name) >= first
    ]
    if not matrices:
        raise TrainingError(_NO_LAYERS)
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # what peft asks transformers is renamed
        adapted = get_peft_model(
            network, LoraConfig(r=settings.rank, lora_alpha=2 * settings.rank, target_modules=matrices)
        )
    adapted.peft_config["default"].base_model_name_or_path = None  # of which peft would ask the hub at each checkpoint
    return adapted


def _layer(name: str) -> int:
    """Return the number of the layer that a part of a model belongs to, by its name; -1 outside the layers."""
    number = re.search(r"(?:^|\.)(\d+)\.", name)
    return -1 if number is None else int(number[1])


def _claim(checkpoints: Path, digest: str) -> Path | None:
    """
    Take a folder for the checkpoints of a training; return the last one of it that is there.

    :raises TrainingError: It has checkpoints of another training.
    """
    mark = checkpoints / _DIGEST
    whole = _whole(checkpoints)
    if whole and not (mark.is_file() and mark.read_text() == digest):
        msg = (
            f"'{checkpoints}' has checkpoints of another training, with other texts or settings: finish that with the "
            "same command as before, or remove the folder."
        )
        raise TrainingError(msg)
    checkpoints.mkdir(parents=True, exist_ok=True)
    _remove_unfinished(checkpoints)
    if not whole:  # else it is there, and stays even if the disk is full
        mark.write_text(digest)
    return whole[-1] if whole else None


def _whole(checkpoints: Path) -> list[Path]:
    """Return the checkpoints that were written to their end, in order."""
    folders = [mark.parent for mark in checkpoints.glob(f"checkpoint-*/{_COMPLETE}")]
    return sorted(folders, key=lambda folder: int(folder.name.rpartition("-")[2]))


def _remove_unfinished(checkpoints: Path) -> None:
    for folder in set(checkpoints.glob("checkpoint-*")) - set(_whole(checkpoints)):
        shutil.rmtree(folder)


def _digest(
    encoder: LanguageModelEncoder, head: TokenDecoder, examples: Examples, held_out: Examples, settings: Settings
) -> str:
    """Return a digest of all that the weights depend on, but for rounding."""
    chosen = asdict(replace(settings, accumulate=1))  # to use less memory a run may go on in more parts
    digest = hashlib.sha256(f"{version('keytok-haystack')} {json.dumps(chosen)} {encoder.preset}".encode())
    for checkpoint in (encoder.preset.checkpoint, *encoder.preset.adapters):
        digest.update(model_identity(str(checkpoint)))
    digest.update(np.ascontiguousarray(head.weight).data)
    for some in (examples, held_out):
        digest.update(json.dumps([each.ids for each in some.inputs]).encode())
        for array in (some.targets.data, some.targets.indices, some.targets.indptr):
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _explanation(error: Exception, step: int, kept: Path | None, settings: Settings, checkpoints: Path) -> str | None:
    """Return what happened to a training, and what to do; None if that is not known."""
    size = settings.batch_size // settings.accumulate
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error):
        happened = f"There is not enough memory for {size} texts at a time in step {step + 1}: accumulate in more parts"
    elif isinstance(error, OSError | SafetensorError) or "inline_container" in str(error):  # where torch.save writes
        happened = f"The checkpoint of step {step} cannot be written ({error}): make room at '{checkpoints.parent}'"
    else:
        return None
    if kept is None:
        return f"{happened}, and start again. There is no checkpoint yet."
    return f"{happened}, and run the command again: it goes on from '{kept}'."


def _readable(entry: dict[str, float]) -> dict[str, float]:
    """Return an entry of the trainer's history with names of ours."""
    if "eval_loss" in entry:
        return {"step": entry["step"], "held_out_loss": entry["eval_loss"]}
    return {name: entry[name] for name in ("step", "loss", "learning_rate", "tokens", "seconds")}


_NO_LAYERS = "None of the model's parts has the number of a layer in its name, so there is nothing to train."
