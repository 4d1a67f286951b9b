# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""What can be chosen: how targets are made, and how training goes."""

from dataclasses import dataclass
from math import inf
from typing import Literal

Kind = Literal["data", "model", "both"]
Method = Literal["lora", "full"]


@dataclass(frozen=True)
class TargetRule:
    """
    How targets are made.

    :param kind: Of texts' own tokens ("data"), of what the embedder says already ("model"), or of both.
    :param share: The share of texts' own tokens in a mixture of both.
    :param min_df: Tokens of fewer texts are left out.
    :param max_df: Tokens of more than this share of the texts are left out.
    :param stop_words: Tokens that are left out, in lower case.
    """

    kind: Kind = "data"
    share: float = 0.5
    min_df: int = 2
    max_df: float = 0.1
    stop_words: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Refuse settings without a meaning."""
        if not 0 < self.share < 1:
            msg = f"share must be above 0 and below 1, but it is {self.share}: for targets of one kind, name that."
            raise ValueError(msg)
        if not 0 < self.max_df <= 1:
            msg = f"max_df must be above 0 and at most 1, but it is {self.max_df}."
            raise ValueError(msg)


@dataclass(frozen=True)
class Settings:
    """
    How to train.

    :param method: "lora" trains low-rank changes of the layers' matrices (Hu et al. 2022), "full" all weights of the
        layers, so not the word embeddings, which the head may be tied to. None takes LoRA for a causal language model
        and full training for an encoder.
    :param rank: The rank of LoRA's changes.
    :param layers: The share of the layers that is trained, the last ones. The others run forward only: with half of
        them a step takes about 0.6 of the time. None is 0.5 for LoRA and 1 for full training.
    :param epochs: How often each text is seen.
    :param batch_size: How many texts are in a step.
    :param accumulate: In how many parts of equal size a step's texts go through the model, to save memory.
    :param learning_rate: The highest; it rises over a twentieth of the steps and falls as a cosine. None is 1e-3 for
        LoRA and 1e-4 for full training.
    :param temperature: What logits are divided by.
    :param bf16: Compute in bfloat16 where that is safe (mixed precision); what is trained stays in float32. None does
        so on a GPU that has it.
    :param checkpoint_steps: After how many steps a checkpoint is written and the held-out loss is measured.
    :param seed: Of the order of texts and of the first weights of LoRA.
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
        """Refuse settings without a meaning."""
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
