# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The training of a network with transformers' Trainer: the loss, checkpoints, and the history."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from safetensors import SafetensorError
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from keytok_haystack.decoder import TokenDecoder
from keytok_haystack.encoders.language_model import Batch, LanguageModelEncoder
from keytok_haystack.encoders.progress import without_progress_bars
from keytok_haystack.training.checkpoints import mark_complete, open_checkpoints, remove_incomplete, run_digest
from keytok_haystack.training.errors import TrainingError
from keytok_haystack.training.examples import Example, Examples
from keytok_haystack.training.layers import make_trainable
from keytok_haystack.training.objective import Head, divergence
from keytok_haystack.training.settings import Method, Settings
from keytok_haystack.utils.progress import progress_of

_LOGGED = 10  # maximum number of steps between two entries of the history
_WARM_UP = 0.05
_DEFAULT_RATE: dict[Method, float] = {"lora": 1e-3, "full": 1e-4}
_DEFAULT_LAYERS: dict[Method, float] = {"lora": 0.5, "full": 1.0}


@dataclass(frozen=True)
class Trained:
    """
    Result of training a network.

    :param settings: Settings of the training, defaults filled in.
    :param parameters: Number of trained parameters.
    :param steps: Number of steps.
    :param tokens: Number of tokens that went through the model, without padding.
    :param seconds: Time of the steps, those before an interruption included.
    :param history: `{"step", "loss", "learning_rate", "tokens", "seconds"}`, the last two up to that step, and
        `{"step", "held_out_loss"}`, in order.
    """

    settings: Settings
    parameters: int
    steps: int
    tokens: int
    seconds: float
    history: list[dict[str, float]]


def fit_network(
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

    An interrupted run continues from its last complete checkpoint, and ends with the same weights as without the
    interruption.

    :param encoder: Encoder whose network is changed; at the end it is the trained one, adapters merged.
    :param head: Head that reads embeddings; it stays as it is.
    :param examples: Examples to learn from.
    :param held_out: Examples to measure the loss on.
    :param settings: Settings of the training.
    :param checkpoints: Folder of the checkpoints, of which the last two are kept; the caller removes it when the
        trained model is saved.
    :param progress_bar: Whether to show a progress bar.
    :raises TrainingError: The folder has checkpoints of another training, no layers of the model are known by name, a
        loss is not finite, a step does not fit into memory, or a checkpoint cannot be written.
    """
    settings = resolve(settings, encoder)
    last = open_checkpoints(checkpoints, run_digest(encoder, head, examples, held_out, settings))
    torch.manual_seed(settings.seed)  # the first weights of LoRA are random
    if settings.method == "full":
        encoder.network.float()  # small changes would be lost in a smaller type
    network = make_trainable(encoder.network, settings)
    progress = _Progress(last, progress_bar=progress_bar)
    trainer = _Trainer(encoder, network, head, examples, held_out, settings, checkpoints, resumed=last is not None)
    trainer.add_callback(progress)
    try:
        with without_progress_bars():  # of writing each checkpoint
            trainer.train(resume_from_checkpoint=None if last is None else str(last))
    except (RuntimeError, MemoryError, OSError, SafetensorError) as error:
        remove_incomplete(checkpoints)
        if message := _explain(error, trainer.state.global_step, progress.kept, settings, checkpoints):
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
    """Trainer of transformers with the divergence of an encoder's pooled embeddings from the targets as its loss."""

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
            label_names=["target_probabilities"],
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
        self.model_accepts_loss_kwargs = False  # the loss is a mean over a part of a step
        self.accelerator.gradient_accumulation_steps = 1  # older versions would divide by the number of parts twice
        self.remove_callback(PrinterCallback)

    @property
    def tokens(self) -> float:
        """Number of tokens that went through the model up to the last entry of the history."""
        return float(self._last_logged("tokens"))

    @property
    def seconds(self) -> float:
        """Time of the steps up to the last entry of the history."""
        return float(self._last_logged("seconds"))

    def _last_logged(self, name: str) -> float:
        return next((entry[name] for entry in reversed(self.state.log_history) if name in entry), 0.0)

    def _collate(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        batch = self._encoder.batch([example.input for example in examples])
        pad = torch.nn.utils.rnn.pad_sequence
        return batch._asdict() | {
            "target_features": pad([example.features for example in examples], batch_first=True),
            "target_probabilities": pad([example.probabilities for example in examples], batch_first=True),
        }

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,  # noqa: FBT001, FBT002  # as in transformers
        num_items_in_batch: Any = None,  # noqa: ARG002
    ) -> Any:
        """Return the divergence of a batch from its targets."""
        batch = Batch(inputs["tokens"], inputs["mask"], inputs["pooling_weights"])
        logits = self._head(self._encoder.pooled(batch, model))
        loss = divergence(logits, inputs["target_features"], inputs["target_probabilities"], self._temperature)
        if not torch.isfinite(loss):
            step, folder = self.state.global_step + 1, self.args.output_dir
            msg = f"The loss is not finite in step {step}: use a lower learning rate, and remove '{folder}'."
            raise TrainingError(msg)
        if model.training:
            self._tokens_since += int(batch.mask.sum())
        return (loss, {}) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the tokens and seconds up to the step to each loss of the history."""
        if "loss" in logs:
            now = time.perf_counter()
            logs["tokens"] = self.tokens + self._tokens_since
            logs["seconds"] = self.seconds + now - self._last_time
            self._tokens_since = 0
        super().log(logs, start_time)
        self._last_time = time.perf_counter()  # the time of measuring the held-out loss does not count


class _Progress(TrainerCallback):
    """Progress bar; marks complete checkpoints and logs the last step, too."""

    def __init__(self, last: Path | None, *, progress_bar: bool) -> None:
        self.kept = last
        self._bar = progress_of("Training", "steps", shown=progress_bar)
        self._losses: dict[str, str] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self._bar.reset(state.max_steps)
        self._bar.update(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self._bar.update(state.global_step - self._bar.n)
        control.should_evaluate |= state.global_step >= state.max_steps  # older transformers do not
        control.should_log |= control.should_evaluate  # no checkpoint has the tokens since the last entry

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:  # noqa: ARG002
        for name, label in (("loss", "loss"), ("eval_loss", "held out")):
            if logs and name in logs:
                self._losses[label] = f"{logs[name]:.3f}"
        self._bar.set_postfix(self._losses)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self.kept = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        mark_complete(self.kept)

    def close(self) -> None:
        self._bar.close()


def resolve(settings: Settings, encoder: LanguageModelEncoder) -> Settings:
    """Return settings with the defaults for an encoder in place of None."""
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


def _explain(error: Exception, step: int, kept: Path | None, settings: Settings, checkpoints: Path) -> str | None:
    """Return what stopped a training and the remedy; None if that is not known."""
    size = settings.batch_size // settings.accumulate
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error):
        happened = f"There is not enough memory for {size} texts at a time in step {step + 1}: accumulate in more parts"
    elif isinstance(error, OSError | SafetensorError) or "inline_container" in str(error):  # where torch.save writes
        happened = f"The checkpoint of step {step} cannot be written ({error}): make room at '{checkpoints.parent}'"
    else:
        return None
    if kept is None:
        return f"{happened}, and start again. There is no checkpoint yet."
    return f"{happened}, and run the command again: it continues from '{kept}'."


def _readable(entry: dict[str, float]) -> dict[str, float]:
    """Return an entry of the trainer's history with readable names."""
    if "eval_loss" in entry:
        return {"step": entry["step"], "held_out_loss": entry["eval_loss"]}
    return {name: entry[name] for name in ("step", "loss", "learning_rate", "tokens", "seconds")}
