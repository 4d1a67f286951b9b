# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The workflow of a training: make targets, train, save, and measure the embedder before and after."""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array

from keytok_haystack.decoders import calibrate
from keytok_haystack.encoders import CachedEmbedder, head_of
from keytok_haystack.encoders.heads import KEY_TOKENS
from keytok_haystack.encoders.language_model import LanguageModelEncoder
from keytok_haystack.encoders.presets import Role, find_preset
from keytok_haystack.evaluation import USUAL_FIELDS, Collection, TextFields
from keytok_haystack.evaluation.embedder_quality import EmbedderQuality, judge
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.sparse_vectors.rows import rows_to_dicts
from keytok_haystack.training.base import base_embedder
from keytok_haystack.training.data import distinct_collections, distinct_texts
from keytok_haystack.training.examples import Examples, split
from keytok_haystack.training.loop import fit_network
from keytok_haystack.training.loss_plot import draw_loss
from keytok_haystack.training.report import TrainingReport
from keytok_haystack.training.result_folder import check_output, write_checkpoint, write_report
from keytok_haystack.training.settings import Settings, TargetRule
from keytok_haystack.training.stop_words import read_stop_words
from keytok_haystack.training.targets import make_targets
from keytok_haystack.utils.files import replaced_folder
from keytok_haystack.utils.sampling import evenly_spaced_rows
from keytok_haystack.weighting import idf_of

_PLOT = "training.svg"
_CALIBRATION_TEXTS = 512


def train(
    texts: Iterable[str | Path],
    model: str,
    output: str | Path,
    *,
    fields: TextFields = USUAL_FIELDS,
    sample: int | None = None,
    rule: TargetRule | None = None,
    settings: Settings | None = None,
    evaluate_on: Iterable[Collection | Path] = (),
    max_tokens: int | None = None,
    progress_bar: bool = False,
) -> TrainingReport:
    """
    Train an embedder on texts without labels (Text2Token, arXiv 2510.10224), and write it to a folder.

    Its embeddings learn to express the key tokens of the texts, read by its own head, which stays as it is. The folder
    appears completely or not at all, and may replace the result of an earlier training. An interrupted run continues
    from its last checkpoint when it is started again with the same arguments; the checkpoints are beside the output.

    The folder has the checkpoint, which the base's preset runs, as `TrainingReport.embedder` says, and mostly
    sentence-transformers, too; the key-token model of its head in `key_tokens`; the report as `training.json`; and the
    plot of the loss, `training.svg`.

    :param texts: Texts as strings, or as `Path`s of files and folders, as for `read_texts`. Empty texts and repetitions
        are left out.
    :param model: Model to train: a preset, `NAME` or `NAME:CHECKPOINT` (`find_preset`), or the path or hub id of a
        causal language model, which is run as "prompt-eol".
    :param output: Path of the folder to write.
    :param fields: Fields of the files with the texts and ids.
    :param sample: Maximum number of texts to train on, drawn at random; by default all.
    :param rule: Rule by which targets are made; by default of literal tokens without English stop words.
    :param settings: Settings of the training.
    :param evaluate_on: Test collections to measure retrieval on before and after, as `Collection`s or as `Path`s of
        folders in BEIR's layout.
    :param max_tokens: Maximum length of an input in tokens; by default that of the preset.
    :param progress_bar: Whether to show progress bars.
    :raises FileExistsError: The output has files that were not written by a training.
    :raises NoTargetsError: The filters leave targets of fewer than 2 texts.
    :raises TrainingError: Training cannot begin or continue (`fit_network`).
    :raises ValueError: There are no texts, a text or collection cannot be read, or the model cannot be loaded.
    """
    rule, settings = rule or _default_rule(), settings or Settings()
    base, output = base_embedder(model), Path(output).resolve()
    collections, texts = distinct_collections(evaluate_on), distinct_texts(texts, fields, sample)
    check_output(output, base)

    load = partial(CachedEmbedder, max_tokens=max_tokens, dtype=settings.dtype, progress_bar=progress_bar)
    embedder, head = load(base), head_of(base)
    targets = make_targets(rule, head, texts, partial(_pool, embedder, progress_bar=progress_bar))
    rows, held_out_rows = split(targets, settings.seed)
    held_out = [texts[row] for row in held_out_rows]
    before = _judge(embedder, head, held_out, collections)

    encoder = embedder.encoder
    if encoder.network.dtype != torch.float32:
        encoder = load(base, dtype="float32").encoder
    del embedder  # its network is changed, or not needed any more
    checkpoints = output.with_name(f".{output.name}.training")
    trained = fit_network(
        encoder,
        head.decoder,
        _examples(encoder, texts, targets, rows),
        _examples(encoder, texts, targets, held_out_rows),
        settings,
        checkpoints=checkpoints,
        progress_bar=progress_bar,
    )
    name = f"{base.partition(':')[0]}:{output}"
    with replaced_folder(output) as new:
        unsupported = write_checkpoint(encoder, new, output)
        _calibrated(head, encoder, texts, rows, name).save(new / KEY_TOKENS)
        draw_loss(trained, new / _PLOT)
        report = TrainingReport(
            base=base,
            embedder=name,
            rule=rule,
            max_tokens=max_tokens,
            given=len(texts),
            texts=len(rows),
            held_out=len(held_out),
            trained=trained,
            before=before,
            after=None,
            no_sentence_transformers=unsupported,
        )
        write_report(new, report)
    del encoder  # the judgement is of what was written
    report = replace(report, after=_judge(load(name), head, held_out, collections))
    write_report(output, report)
    shutil.rmtree(checkpoints)
    return report


@dataclass(frozen=True)
class TargetPreview:
    """
    A text and the target of its embedding.

    :param text: The text.
    :param target: Probabilities of the target's tokens, highest first; empty if the filters leave none.
    """

    text: str
    target: dict[str, float]


def preview_targets(
    texts: Iterable[str | Path],
    model: str,
    count: int,
    *,
    fields: TextFields = USUAL_FIELDS,
    sample: int | None = None,
    rule: TargetRule | None = None,
    max_tokens: int | None = None,
    dtype: str | None = None,
    progress_bar: bool = False,
) -> list[TargetPreview]:
    """
    Return the targets that a training would use, for some of the texts, evenly spaced.

    :param texts: As for `train`.
    :param model: As for `train`.
    :param count: Maximum number of texts to return; the filters count all of them.
    :param fields: As for `train`.
    :param sample: As for `train`.
    :param rule: As for `train`.
    :param max_tokens: As for `train`.
    :param dtype: Type of the model's weights; by default the one that suits the device.
    :param progress_bar: Whether to show progress bars.
    :raises NoTargetsError: The filters leave targets of fewer than 2 texts.
    :raises ValueError: There are no texts, or the model cannot be loaded.
    """
    base, texts = base_embedder(model), distinct_texts(texts, fields, sample)
    embedder = CachedEmbedder(base, max_tokens=max_tokens, dtype=dtype, progress_bar=progress_bar)
    head = head_of(base)
    targets = make_targets(rule or _default_rule(), head, texts, partial(_pool, embedder, progress_bar=progress_bar))
    rows = evenly_spaced_rows(len(texts), count)
    described = rows_to_dicts(csr_array(targets[rows]), head.vocabulary.features)
    return [TargetPreview(texts[row], target) for row, target in zip(rows, described, strict=True)]


def _default_rule() -> TargetRule:
    return TargetRule(stop_words=read_stop_words("english"))


def _pool(embedder: CachedEmbedder, texts: Sequence[str], *, progress_bar: bool) -> NDArray[np.float32]:
    """Return pooled hidden states, which are the embeddings unless the preset scales those to unit length."""
    preset = find_preset(embedder.embedder)
    if preset is not None and preset.normalize:
        return embedder.encoder.encode(texts, scaled=False, progress_bar=progress_bar)
    return embedder.embed(texts).embeddings


def _judge(
    embedder: CachedEmbedder, head: KeyTokenModel, held_out: Sequence[str], collections: Sequence[Collection]
) -> EmbedderQuality:
    def embed(texts: Sequence[str], role: Role) -> NDArray[np.float32]:
        return embedder.embed(texts, role).embeddings

    return judge(embed, head, held_out, collections)


def _examples(
    encoder: LanguageModelEncoder, texts: Sequence[str], targets: csr_array, rows: NDArray[np.int64]
) -> Examples:
    return Examples(encoder.inputs([texts[row] for row in rows]), csr_array(targets[rows]))


def _calibrated(
    head: KeyTokenModel, encoder: LanguageModelEncoder, texts: Sequence[str], rows: NDArray[np.int64], embedder: str
) -> KeyTokenModel:
    """Return the key-token model of a head: its scales from some of the rows, its idf from all texts."""
    sample = rows[evenly_spaced_rows(len(rows), _CALIBRATION_TEXTS)]
    embeddings = encoder.encode([texts[row] for row in sample])
    model = calibrate(head, embeddings, embedder=embedder)
    counts = model.vocabulary.literal_counts(texts)
    return replace(model, idf=idf_of(counts)).scaled_to(embeddings, csr_array(counts.known[sample]))
