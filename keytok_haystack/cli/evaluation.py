# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""What `keytok evaluate` does: fit the models that are to be compared, and measure them."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keytok_haystack.cli.fitting import timed_fit
from keytok_haystack.decoders import calibrate
from keytok_haystack.decoders.checkpoints import CheckpointError
from keytok_haystack.encoders import Embedded, embed, head_of
from keytok_haystack.evaluation import Collection, read_texts
from keytok_haystack.evaluation.chart import draw_chart
from keytok_haystack.evaluation.experiment import measure_systems
from keytok_haystack.evaluation.report import EvaluationReport
from keytok_haystack.evaluation.tables import write_markdown
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.vocabulary import Vocabulary


@dataclass(frozen=True)
class Evaluation:
    """
    What is the same for all models that are measured.

    :param collection: The test collection.
    :param split: The name of its judgements.
    :param documents: Its documents' embeddings.
    :param queries: Its judged queries' embeddings.
    :param embedder: The embedding model, if it is known.
    :param progress_bar: Whether to show progress bars.
    """

    collection: Collection
    split: str
    documents: Embedded
    queries: Embedded
    embedder: str | None
    progress_bar: bool

    def of_model(self, model: KeyTokenModel) -> EvaluationReport:
        """Measure a model, whatever it was fitted to."""
        return self._evaluate(model, fitted_on="given model")

    def of_fitted_models(
        self, vocabulary: Vocabulary, others: Sequence[Path], seed: int, *, refine: bool
    ) -> EvaluationReport:
        """
        Fit a model to all documents and measure it, and for comparison to a random half of them and to other texts.

        :param vocabulary: The features to fit.
        :param others: Folders in BEIR's layout or JSONL files, to each of which a model is fitted.
        :param seed: Decides which half it is, and the order in which refinement sees texts.
        :param refine: Whether to refine the model that is fitted to all documents, and measure that, too.
        :raises ValueError: Others have the same name, or there is no embedder to embed them with.
        """
        other_texts = self._read(others)
        texts = list(self.collection.documents.values())
        half = np.sort(np.random.default_rng(seed).permutation(len(texts))[: len(texts) // 2])

        def fitted(embeddings: NDArray[np.float32], texts: list[str]) -> KeyTokenModel:
            progress_bar, embedder = self.progress_bar, self.embedder
            return timed_fit(embeddings, texts, vocabulary, progress_bar=progress_bar, embedder=embedder)

        everything = self.documents.embeddings
        out_of_sample = {"a random half": fitted(everything[half], [texts[i] for i in half])}
        for name, own_texts in other_texts.items():
            embedded = embed(own_texts, str(self.embedder), progress_bar=self.progress_bar)
            out_of_sample[name] = fitted(embedded.embeddings, own_texts)
        model = fitted(everything, texts)
        refined = model.refine(everything, texts, seed=seed, progress_bar=self.progress_bar) if refine else None
        return self._evaluate(model, refined=refined, out_of_sample=out_of_sample)

    def _evaluate(self, model: KeyTokenModel, **options: Any) -> EvaluationReport:
        return measure_systems(
            self.collection,
            self.split,
            model,
            self.documents,
            self.queries,
            decoders=list(self._raw_head(self.embedder or model.embedder)),
            sweep=True,
            progress_bar=self.progress_bar,
            **options,
        )

    def _raw_head(self, embedder: str | None) -> Iterator[KeyTokenModel]:
        """Read the head that decodes an embedder's embeddings (`head_of`), if there is one that can be read."""
        if embedder is None:
            return
        try:
            head = head_of(embedder, local_files_only=True)
        except CheckpointError:
            return  # an embedder without a checkpoint that can be read
        if head.dimension == self.documents.embeddings.shape[1]:  # others project token embeddings, or their mean
            texts = self.collection.documents.values()
            yield calibrate(head, self.documents.embeddings, texts, embedder=embedder)

    def _read(self, others: Sequence[Path]) -> dict[str, list[str]]:
        """Return the texts of other collections by their names."""
        if others and self.embedder is None:
            msg = "--other needs the --embedder, so that its texts can be embedded, too."
            raise ValueError(msg)
        texts: dict[str, list[str]] = {}
        for path in others:
            name = path.resolve().name if path.is_dir() else path.stem
            if name in texts:
                msg = f"Two of the --other collections are called '{name}', so that they could not be told apart."
                raise ValueError(msg)
            texts[name] = read_texts(path)
        return texts


def write(report: EvaluationReport, json_path: Path | None, markdown_path: Path | None, png_path: Path | None) -> None:
    """Write a report to each file that is named."""
    for path in (json_path, markdown_path, png_path):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
    if json_path is not None:
        json_path.write_text(json.dumps(report.to_dict(), indent=2) + "\n", encoding="utf-8")
    if markdown_path is not None:
        write_markdown(markdown_path, report)
    if png_path is not None:
        draw_chart(png_path, report)
