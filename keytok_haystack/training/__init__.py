# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
Train an embedder on texts without labels (Text2Token, arXiv 2510.10224).

`train` is the whole of it: `targets` makes the distributions that embeddings should express, `loop` changes the model.
Everything but the settings and errors is imported on first use, since it needs the extra "train".
"""

from typing import TYPE_CHECKING

from keytok_haystack.training.errors import NoTargetsError, TrainingError
from keytok_haystack.training.settings import Settings, TargetRule
from keytok_haystack.utils.lazy import imported_on_access

if TYPE_CHECKING:
    from keytok_haystack.training.loop import Trained
    from keytok_haystack.training.report import TrainingReport
    from keytok_haystack.training.stop_words import read_stop_words
    from keytok_haystack.training.workflow import TargetPreview, preview_targets, train

_MODULES = {
    "TargetPreview": "workflow",
    "Trained": "loop",
    "TrainingReport": "report",
    "preview_targets": "workflow",
    "read_stop_words": "stop_words",
    "train": "workflow",
}

__all__ = [
    "NoTargetsError",
    "Settings",
    "TargetPreview",
    "TargetRule",
    "Trained",
    "TrainingError",
    "TrainingReport",
    "preview_targets",
    "read_stop_words",
    "train",
]

__getattr__ = imported_on_access(__name__, _MODULES)
