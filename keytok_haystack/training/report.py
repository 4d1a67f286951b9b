# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The report of a training."""

from dataclasses import asdict, dataclass
from typing import Any

from keytok_haystack.evaluation.embedder_quality import EmbedderQuality
from keytok_haystack.training.loop import Trained
from keytok_haystack.training.settings import TargetRule
from keytok_haystack.utils.files import rounded


@dataclass(frozen=True)
class TrainingReport:
    """
    Report of a training.

    :param base: Embedder before the training, as `embed` takes it.
    :param embedder: Trained embedder, as `embed` takes it.
    :param rule: Rule by which targets were made.
    :param max_tokens: Maximum length of an input in tokens; None is that of the preset.
    :param given: Number of distinct texts.
    :param texts: Number of texts that were trained on.
    :param held_out: Number of texts that were held out.
    :param trained: Result of training the network.
    :param before: Quality of the embedder before the training.
    :param after: Quality of the trained embedder; None until it is measured.
    :param no_sentence_transformers: Reason why sentence-transformers cannot load the trained embedder; None if it can.
    """

    base: str
    embedder: str
    rule: TargetRule
    max_tokens: int | None
    given: int
    texts: int
    held_out: int
    trained: Trained
    before: EmbedderQuality
    after: EmbedderQuality | None
    no_sentence_transformers: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON data, numbers rounded to 6 significant digits."""
        trained = asdict(self.trained)
        return {
            "base": self.base,
            "embedder": self.embedder,
            "targets": asdict(self.rule) | {"stop_words": len(self.rule.stop_words)},
            "max_tokens": self.max_tokens,
            "settings": trained.pop("settings"),
            "texts": {"trained_on": self.texts, "given": self.given},
            "training": rounded(trained),
            "before": self.before.to_dict(),
            "after": self.after and self.after.to_dict(),
        }
