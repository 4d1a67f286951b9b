# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Looking into embeddings that are already there."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from keytok_haystack.decoders import calibrate
from keytok_haystack.embedding_space import Spectrum
from keytok_haystack.evaluation.alignment.adjustments import AdjustmentMeasurement, adjustments, partial_removals
from keytok_haystack.evaluation.alignment.components import backbone_change, leading_components
from keytok_haystack.evaluation.alignment.pairs import explain_pair, similar_pairs
from keytok_haystack.evaluation.alignment.report import AlignmentReport, InstructedText, Sample
from keytok_haystack.evaluation.alignment.subject import Subject
from keytok_haystack.evaluation.alignment.token_classes import strongest_tokens
from keytok_haystack.evaluation.report import decoder_name
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.utils.checks import check_embeddings
from keytok_haystack.utils.progress import progress_of
from keytok_haystack.utils.sampling import evenly_spaced_rows

_N_CONTRIBUTING, _N_SAMPLES = 200, 6


def analyze(subject: Subject, *, progress_bar: bool = False) -> AlignmentReport:
    """
    Look into embeddings: measure, decode and compare them.

    :param subject: The embeddings, with their texts and heads.
    :param progress_bar: Whether to show a progress bar.
    :raises EmbeddingError: The embeddings are unusable, or of another dimension than the head.
    :raises ValueError: The numbers of texts and embeddings differ, or no text has a token that the head knows.
    """
    model = subject.head
    if model.spectrum is None:
        model = calibrate(model, subject.embeddings, subject.texts, embedder=subject.embedder)
    subject = subject.with_scaling_heads()
    head, reader, texts = subject.head, subject.reader, subject.texts
    embeddings = check_embeddings(subject.embeddings, head.dimension)
    spectrum = Spectrum.from_embeddings(embeddings)
    measure = AdjustmentMeasurement(subject)
    methods = adjustments(spectrum, reader, embeddings)
    strengths = partial_removals(spectrum) | {"0": methods["nothing"], "1": methods["remove PC1"]}
    names = {adjust: name for name, adjust in (strengths | methods).items()}
    progress = progress_of("Measuring", "ways", shown=progress_bar, things=names.items(), leave=False)
    measures = {adjust: measure(name, adjust) for adjust, name in progress}
    without_pc1 = spectrum.removal().adjusted(embeddings)
    return AlignmentReport(
        embedder=subject.embedder,
        data=subject.data,
        head=decoder_name(head),
        ids=subject.ids is not None,
        dimension=head.dimension,
        texts=len(embeddings),
        queries=0 if subject.collection is None else len(subject.collection.queries),
        components=leading_components(
            reader, embeddings[evenly_spaced_rows(len(embeddings), _N_CONTRIBUTING)], spectrum
        ),
        methods=[measures[adjust] for adjust in methods.values()],
        strengths=[replace(measures[adjust], name=share) for share, adjust in strengths.items()],
        samples=[
            Sample(texts[row], *(strongest_tokens(reader, x[row], texts[row]) for x in (embeddings, without_pc1)))
            for row in evenly_spaced_rows(len(embeddings), _N_SAMPLES)
        ],
        pairs=[explain_pair(model, both, x) for both, x in subject.pairs or similar_pairs(texts, embeddings)],
        instructions=_instructed_texts(model, subject.instructed),
        change=None if subject.backbone is None else backbone_change(embeddings, subject.backbone),
    )


def _instructed_texts(
    model: KeyTokenModel, instructed: Mapping[str, tuple[Sequence[str], NDArray[np.float32]]]
) -> list[InstructedText]:
    """Return the key tokens of the same texts under each instruction."""
    columns = {
        instruction: [strongest_tokens(model, row, text) for row, text in zip(embeddings, texts, strict=True)]
        for instruction, (texts, embeddings) in instructed.items()
    }
    texts = next(iter(instructed.values()))[0] if instructed else []
    return [InstructedText(text, {name: column[i] for name, column in columns.items()}) for i, text in enumerate(texts)]
