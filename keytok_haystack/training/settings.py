# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Settings: how targets are made, and how the model is trained."""

from dataclasses import dataclass
from math import inf
from typing import Literal

Kind = Literal["data", "model", "both"]
Method = Literal["lora", "full"]


@dataclass(frozen=True)
class TargetRule:
    """
    Rule by which targets are made.

    :param kind: Source of the target tokens: texts' literal tokens ("data"), what the embedder's embeddings express
        already ("model"), or both.
    :param share: Share of literal tokens in a mixture of both.
    :param min_df: Minimum number of texts that a target token occurs in.
    :param max_df: Maximum share of the texts that a target token occurs in.
    :param stop_words: Tokens to leave out, in lower case.
    :raises ValueError: A share is out of range.
    """

    kind: Kind = "data"
    share: float = 0.5
    min_df: int = 2
    max_df: float = 0.1
    stop_words: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 < self.share < 1:
            msg = f"share must be above 0 and below 1, but it is {self.share}: for targets of one kind, name that."
            raise ValueError(msg)
        if not 0 < self.max_df <= 1:
            msg = f"max_df must be above 0 and at most 1, but it is {self.max_df}."
            raise ValueError(msg)


@dataclass(frozen=True)
class Settings:
    """
    Settings of a training.

    :param method: "lora" trains low-rank changes of the layers' matrices (Hu et al. 2022), "full" all weights of the
        layers, but not the word embeddings, which the head may be tied to. None is LoRA for a causal language model and
        full training for an encoder.
    :param rank: Rank of LoRA's changes.
    :param layers: Share of the layers to train, the last ones. The others run forward only: with half of them a step
        takes about 0.6 of the time. None is 0.5 for LoRA and 1 for full training.
    :param epochs: Number of passes over the texts.
    :param batch_size: Number of texts in a step.
    :param accumulate: Number of equal parts in which a step's texts go through the model, to save memory.
    :param learning_rate: Highest learning rate; it rises over a twentieth of the steps and falls as a cosine. None is
        1e-3 for LoRA and 1e-4 for full training.
    :param temperature: Divisor of the logits.
    :param bf16: Whether to compute in bfloat16 where that is safe (mixed precision); trained weights stay in float32.
        None does so on a GPU that supports it.
    :param checkpoint_steps: Number of steps between two checkpoints, at which the held-out loss is measured, too.
    :param seed: Seed of the held-out sample, the order of texts and LoRA's first weights.
    :raises ValueError: A setting is out of range.
    """

    method: Method | None = None
    rank: int = 16
    layers: float | None = None
    epochs: float = 1.0
    batch_size: int = 32
    accumulate: int = 1
    learning_rate: float | None = None
    temperature: float = 1.0
    bf16: bool | None = None
    checkpoint_steps: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("rank", "batch_size", "accumulate", "checkpoint_steps"):
            if getattr(self, name) < 1:
                msg = f"{name} must be at least 1, but it is {getattr(self, name)}."
                raise ValueError(msg)
        for name in ("epochs", "temperature", "learning_rate"):
            if (value := getattr(self, name)) is not None and not 0 < value < inf:
                msg = f"{name} must be a positive number, but it is {value}."
                raise ValueError(msg)
        if self.layers is not None and not 0 < self.layers <= 1:
            msg = f"layers must be above 0 and at most 1, but it is {self.layers}."
            raise ValueError(msg)
        if self.batch_size % self.accumulate:
            msg = f"{self.batch_size} texts cannot go through the model in {self.accumulate} parts of equal size."
            raise ValueError(msg)

    @property
    def dtype(self) -> str | None:
        """Type of the weights of embedders that are run, not trained; None is the one that suits the device."""
        return None if self.bf16 is None else "bfloat16" if self.bf16 else "float32"
