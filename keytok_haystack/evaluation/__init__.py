# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
Evaluation: key tokens next to dense vectors and BM25 (`evaluate`), and what embeddings say in tokens (`align`).

Both functions need the extra `eval`, and are imported on first access. Collections and texts do not need it.
"""

from typing import TYPE_CHECKING

from keytok_haystack.evaluation.collection import Collection
from keytok_haystack.evaluation.records import CollectionError
from keytok_haystack.evaluation.texts import USUAL_FIELDS, TextFields, read_texts, stream_texts
from keytok_haystack.utils.lazy import imported_on_access

if TYPE_CHECKING:
    from keytok_haystack.evaluation.alignment.report import AlignmentReport
    from keytok_haystack.evaluation.alignment.workflow import align
    from keytok_haystack.evaluation.report import EvaluationReport
    from keytok_haystack.evaluation.workflow import evaluate

__all__ = [
    "USUAL_FIELDS",
    "AlignmentReport",
    "Collection",
    "CollectionError",
    "EvaluationReport",
    "TextFields",
    "align",
    "evaluate",
    "read_texts",
    "stream_texts",
]

_MODULES = {
    "AlignmentReport": "alignment.report",
    "EvaluationReport": "report",
    "align": "alignment.workflow",
    "evaluate": "workflow",
}
"""Modules of the names that are imported on first access."""

__getattr__ = imported_on_access(__name__, _MODULES)
