# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""What `keytok train` does: make targets, train, save, and judge the embedder before and after."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import bm25s.stopwords
import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from safetensors import SafetensorError
from scipy.sparse import csr_array
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from keytok_haystack.decoders import calibrate
from keytok_haystack.encoders import embed, find_preset, head_of
from keytok_haystack.encoders.cache import RECORD
from keytok_haystack.encoders.gguf import unpacked
from keytok_haystack.encoders.heads import KEY_TOKENS
from keytok_haystack.encoders.language_model import LanguageModelEncoder
from keytok_haystack.encoders.presets import Role
from keytok_haystack.encoders.progress import without_progress_bars
from keytok_haystack.encoders.sentence_transformers_folder import UnsupportedEmbedderError, write_modules
from keytok_haystack.evaluation import Collection, read_texts
from keytok_haystack.evaluation.alignment_report import evenly
from keytok_haystack.evaluation.embedder_quality import EmbedderQuality, comparison, judge
from keytok_haystack.evaluation.experiment import rounded
from keytok_haystack.evaluation.report import OTHERS, OURS
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.training.settings import Settings, TargetRule
from keytok_haystack.training.task import described, make_targets, split
from keytok_haystack.training.trainer import Examples, Trained, train
from keytok_haystack.weighting import idf_of

_PLOT = "training.svg"
_CALIBRATION_TEXTS = 512
_CAUSAL = "prompt-eol"
_SHOWN_TOKENS = 12


@dataclass(frozen=True)
class Task:
    """
    Whom to teach what.

    :param base: The embedder to train, as `embed` takes it: the preset of a language model.
    :param texts: What to train it on.
    :param rule: How targets are made.
    :param max_tokens: How long an input may be.
    :param dtype: The type of the weights of embedders that are only run; None is what suits the device.
    :param progress_bar: Whether to show progress bars.
    """

    base: str
    texts: Sequence[str]
    rule: TargetRule
    max_tokens: int | None
    dtype: str | None
    progress_bar: bool

    @cached_property
    def head(self) -> KeyTokenModel:
        """What reads the embeddings."""
        return head_of(self.base)

    @cached_property
    def targets(self) -> csr_array:
        """What the embeddings should say, shape `(n, V)`."""
        return make_targets(self.rule, self.head, self.texts, self._pool)

    def embed(self, embedder: str, texts: Sequence[str], role: Role = "document") -> NDArray[np.float32]:
        """Embed texts as in training, with the base or what it has become."""
        return embed(
            texts,
            embedder,
            role=role,
            max_tokens=self.max_tokens,
            dtype=self.dtype,
            progress_bar=self.progress_bar,
        ).embeddings

    def _pool(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return what the base pools of texts, which is its embeddings if these are not scaled."""
        preset = find_preset(self.base)
        if preset is None or not preset.normalize:
            return self.embed(self.base, texts)
        encoder = LanguageModelEncoder(self.base, max_tokens=self.max_tokens, dtype=self.dtype)
        return encoder.encode(texts, scaled=False, progress_bar=self.progress_bar)

    def judge(self, embedder: str, held_out: Sequence[str], collections: Sequence[Collection]) -> EmbedderQuality:
        """Measure the base, or what it has become."""
        return judge(lambda texts, role: self.embed(embedder, texts, role), self.head, held_out, collections)


@dataclass(frozen=True)
class Outcome:
    """
    What has come of a task.

    :param embedder: The name of the trained embedder.
    :param trained: What was done.
    :param texts: How many texts were learnt from.
    :param before: How good the embedder was.
    :param after: How good it is now; None until that is measured.
    :param no_sentence_transformers: Why sentence-transformers cannot load the folder; None if it can.
    """

    embedder: str
    trained: Trained
    texts: int
    before: EmbedderQuality
    after: EmbedderQuality | None
    no_sentence_transformers: str | None


def embedder_of(base: str) -> str:
    """
    Return the embedder that a base is: a preset as it is, of another language model that with a prompt for one word.

    :raises ValueError: It is an encoder, or the preset has no checkpoint and none is named.
    """
    if find_preset(base) is not None:
        return base
    try:
        kind = AutoConfig.from_pretrained(unpacked(base), trust_remote_code=False).model_type
    except (OSError, ValueError):  # an adapter, or nothing that can be loaded, which is told where that is tried
        kind = None
    if kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        msg = f"'{base}' is an encoder: say how it pools, as in 'contriever:{base}' for the mean over its tokens."
        raise ValueError(msg)
    return f"{_CAUSAL}:{base}"


def stop_words(source: str) -> frozenset[str]:
    """
    Return stop words.

    :param source: A language in English, such as "german", one of those that bm25s has; a file with one word in each
        line; or "none".
    :raises ValueError: It is none of these.
    """
    if source == "none":
        return frozenset()
    lists = {
        name.removeprefix("STOPWORDS_").lower(): words
        for name, words in vars(bm25s.stopwords).items()
        if name.startswith("STOPWORDS_")
    }
    lists["english"] = lists.pop("en_plus")  # the longer one of two
    words = lists.get(source.lower())
    if words is None:
        if not Path(source).is_file():
            languages = ", ".join(sorted(lists))
            msg = f"There are no stop words for '{source}': name a file, 'none', or a language: {languages}."
            raise ValueError(msg)
        words = Path(source).read_text(encoding="utf-8").split()
    return frozenset(word.casefold() for word in words)


def texts_of(data: Sequence[Path]) -> list[str]:
    """
    Read the texts to train on, each once, without those that are empty.

    :raises ValueError: There are none.
    """
    texts = list(dict.fromkeys(text for file in data for text in read_texts(file) if text.strip()))
    if not texts:
        msg = f"There are no texts to train on: {', '.join(map(str, data))} has none, or only empty ones."
        raise ValueError(msg)
    return texts


def collections_of(folders: Sequence[Path]) -> list[Collection]:
    """
    Read test collections in BEIR's layout: the judgements are those of "test", or the only ones that there are.

    :raises CollectionError: A file is missing or malformed.
    :raises ValueError: Two have the same name.
    """
    collections: dict[str, Collection] = {}
    for folder in folders:
        splits = [file.stem for file in sorted((folder / "qrels").glob("*.tsv"))]
        collection = Collection.load(folder, splits[0] if len(splits) == 1 else "test")
        if collections.setdefault(collection.name, collection) is not collection:
            msg = f"Two collections are called '{collection.name}': rename one of the folders."
            raise ValueError(msg)
    return list(collections.values())


def check_output(output: Path, base: str) -> None:
    """
    Refuse a path at which a trained embedder must not be saved.

    :raises FileExistsError: Something else is there.
    :raises ValueError: It is the base itself.
    """
    preset = find_preset(base)
    if preset is not None and Path(str(preset.checkpoint)).resolve() == output.resolve():
        msg = f"'{output}' is what is to be trained: choose another folder for the result."
        raise ValueError(msg)
    if output.exists() and not _is_replaceable(output):
        msg = f"'{output}' has what keytok train has not written, so it is not replaced: choose another path."
        raise FileExistsError(msg)


def _is_replaceable(output: Path) -> bool:
    """Whether a path holds nothing but what an earlier training has written, or nothing at all."""
    if not output.is_dir():
        return False
    files = _files(output)
    try:
        written = json.loads((output / RECORD).read_text(encoding="utf-8"))["files"] if files else []
        return files <= set(written)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def train_embedder(task: Task, settings: Settings, collections: Sequence[Collection], output: Path) -> Outcome:
    """
    Train an embedder and write it, whole or not at all.

    :param task: Whom to teach what.
    :param settings: How to train.
    :param collections: What to measure retrieval with before and after.
    :param output: The folder. Beside it is that of the checkpoints, until the end.
    :raises TrainingError: As `train`.
    """
    output = output.resolve()
    rows, held_out_rows = split(task.targets, settings.seed)
    held_out = [task.texts[row] for row in held_out_rows]
    before = task.judge(task.base, held_out, collections)
    encoder = LanguageModelEncoder(task.base, max_tokens=task.max_tokens, dtype="float32")
    checkpoints = output.with_name(f".{output.name}.training")
    trained = train(
        encoder,
        task.head.decoder,
        _examples(task, encoder, rows),
        _examples(task, encoder, held_out_rows),
        settings,
        checkpoints=checkpoints,
        progress_bar=task.progress_bar,
    )
    embedder = f"{task.base.partition(':')[0]}:{output}"
    new = checkpoints / "result"
    shutil.rmtree(new, ignore_errors=True)  # of an attempt that was interrupted
    unsupported = _save(encoder, new)
    _calibrated(task, encoder, rows, embedder).save(new / KEY_TOKENS)
    del encoder  # it is loaded again
    _draw(trained, new / _PLOT)
    outcome = Outcome(embedder, trained, len(rows), before, None, unsupported)
    _write_record(new, task, outcome)
    if output.exists():
        shutil.rmtree(output)
    new.replace(output)
    outcome = replace(outcome, after=task.judge(embedder, held_out, collections))
    _write_record(output, task, outcome)
    shutil.rmtree(checkpoints)
    return outcome


def targets_table(task: Task, count: int) -> Table:
    """Return some texts and what their embeddings should say, as a table for the terminal."""
    rows = evenly(len(task.texts), count).tolist()
    table = Table("text", "target", box=None, header_style="dim", padding=(0, 2, 1, 0))
    for row, target in zip(rows, described(task.targets, task.head, rows), strict=True):
        shares = "  ".join(f"{feature}\u00a0{share:.3f}" for feature, share in list(target.items())[:_SHOWN_TOKENS])
        more = f"  and {len(target) - _SHOWN_TOKENS} more" if len(target) > _SHOWN_TOKENS else ""
        text = " ".join(task.texts[row].split())
        table.add_row(Text(text if len(text) <= 240 else f"{text[:240]} ..."), Text(f"{shares}{more}" or "none left"))
    return table


def summary(outcome: Outcome, task: Task, output: Path) -> Group:
    """Return what has come of a task, for the terminal."""
    trained = outcome.trained
    rate = f"{trained.tokens / max(trained.seconds, 1e-9):,.0f} tokens/s"
    held_out = [entry["held_out_loss"] for entry in trained.history if "held_out_loss" in entry]
    lines = [
        f"[bold]{escape(str(output))}[/bold]: {trained.steps:,} steps in {trained.seconds / 60:.1f} min, {rate}",
        f"{outcome.texts:,} texts; {trained.parameters:,} numbers trained ({trained.settings.method})",
        f"divergence of held-out texts from their targets: {held_out[0]:.3f} -> {held_out[-1]:.3f} nats",
    ]
    if left_out := len(task.texts) - np.count_nonzero(np.diff(task.targets.indptr)):
        lines.append(f"{left_out:,} texts have no token that the filters leave, and were not used")
    if outcome.no_sentence_transformers:
        lines.append(escape(outcome.no_sentence_transformers))
    parts: list[RenderableType] = [Text.from_markup(line) for line in lines]
    if outcome.after is not None:
        parts.append(comparison(outcome.before, outcome.after))
    parts.append(Text(f'Next: keytok tokens {output / KEY_TOKENS} "a text of yours"'))
    return Group(*parts)


def _examples(task: Task, encoder: LanguageModelEncoder, rows: NDArray[np.int64]) -> Examples:
    return Examples(encoder.inputs([task.texts[row] for row in rows]), csr_array(task.targets[rows]))


def _calibrated(task: Task, encoder: LanguageModelEncoder, rows: NDArray[np.int64], embedder: str) -> KeyTokenModel:
    """Return the key-token model of the head: scales from some of the texts, the idf from all."""
    sample = rows[:: max(1, len(rows) // _CALIBRATION_TEXTS)]
    embeddings = encoder.encode([task.texts[row] for row in sample])
    model = calibrate(task.head, embeddings, embedder=embedder)
    counts = model.vocabulary.literal_counts(task.texts)
    return replace(model, idf=idf_of(counts)).scaled_to(embeddings, csr_array(counts[sample]))


def _save(encoder: LanguageModelEncoder, folder: Path) -> str | None:
    """
    Write an encoder as a checkpoint; return why sentence-transformers cannot load it, if it cannot.

    :raises OSError: It cannot be written.
    """
    try:
        with without_progress_bars():
            encoder.network.save_pretrained(folder)
    except SafetensorError as error:
        msg = f"The trained embedder cannot be written ({error}): make room at '{folder.parent.parent}', and run again."
        raise OSError(msg) from error
    encoder.tokenizer.model_max_length = encoder.max_tokens  # longer inputs it has not been trained on
    encoder.tokenizer.save_pretrained(folder)
    for file in folder.glob("*.safetensors"):  # which safetensors lets nobody else read
        file.chmod((folder / "config.json").stat().st_mode)
    try:
        write_modules(folder, encoder)
    except UnsupportedEmbedderError as error:
        return str(error)
    return None


def _write_record(folder: Path, task: Task, outcome: Outcome) -> None:
    """Write all numbers as JSON, and which files there are."""
    trained = asdict(outcome.trained)
    record = {
        "base": task.base,
        "embedder": outcome.embedder,
        "targets": asdict(task.rule) | {"stop_words": len(task.rule.stop_words)},
        "max_tokens": task.max_tokens,
        "settings": trained.pop("settings"),
        "texts": {"trained_on": outcome.texts, "given": len(task.texts)},
        "training": rounded(trained),
        "before": outcome.before.to_dict(),
        "after": outcome.after and outcome.after.to_dict(),
        "files": sorted(_files(folder) | {RECORD}),
    }
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _files(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir()}


def _draw(trained: Trained, file: Path) -> None:
    """Draw the loss of training and of what is held out."""
    import matplotlib as mpl  # noqa: PLC0415  # a second to import, and only here

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for name, label, color in (("loss", "training", OTHERS), ("held_out_loss", "held out", OURS)):
        points = [(entry["step"], entry[name]) for entry in trained.history if name in entry]
        at_the_end = f"{label}, at the end {points[-1][1]:.2f}"  # beside the lines the two would overlap
        axes.plot(
            *zip(*points, strict=True), label=at_the_end, color=color, marker="o" if name != "loss" else None, ms=4
        )
    axes.set(xlabel="step", ylabel="divergence from the targets, nats", ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(file)
    plt.close(figure)
