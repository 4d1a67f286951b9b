# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from keytok_haystack.cli.options import IdFieldOption, JsonFlag, MaxTokensOption, TextFieldOption
from keytok_haystack.cli.terminal import print_json, terminal
from keytok_haystack.evaluation import TextFields
from keytok_haystack.training import Settings, TargetRule
from keytok_haystack.utils.extras import needs
from keytok_haystack.utils.files import sole_writer

if TYPE_CHECKING:
    from keytok_haystack.training import TargetPreview, TrainingReport

_SHOWN_TOKENS, _SHOWN_CHARACTERS = 12, 240


def train_command(
    data: Annotated[
        list[Path],
        typer.Argument(
            help="Texts: folders in BEIR's layout, or files: .jsonl, .csv, .tsv or .txt, also .gz, or .parquet."
        ),
    ],
    model: Annotated[
        str, typer.Option(help="Model to train: a preset, NAME or NAME:CHECKPOINT, or another language model.")
    ],
    output: Annotated[
        Path | None, typer.Option(help="Folder to write the trained embedder to.", show_default=False)
    ] = None,
    text_field: TextFieldOption = None,
    id_field: IdFieldOption = None,
    sample: Annotated[
        int | None,
        typer.Option(
            help="Maximum number of texts to train on, drawn at random. Default: all.", min=2, show_default=False
        ),
    ] = None,
    targets: Annotated[
        Literal["data", "model", "both"],
        typer.Option(help="Source of the target tokens: the texts (data), the model's embeddings (model), or both."),
    ] = TargetRule.kind,
    share: Annotated[float, typer.Option(help="Share of literal tokens in targets of both kinds.")] = TargetRule.share,
    min_df: Annotated[
        int, typer.Option(help="Minimum number of texts that a target token is in.", min=1)
    ] = TargetRule.min_df,
    max_df: Annotated[
        float, typer.Option(help="Maximum share of the texts that a target token is in.")
    ] = TargetRule.max_df,
    stop_words: Annotated[
        str, typer.Option(help="Words to leave out of targets: a language, a file with one word per line, or none.")
    ] = "english",
    show_targets: Annotated[
        int | None, typer.Option(help="Show the targets of this many texts instead of training.", min=1)
    ] = None,
    max_tokens: MaxTokensOption = None,
    epochs: Annotated[float, typer.Option(help="Number of passes over the texts.")] = Settings.epochs,
    batch_size: Annotated[int, typer.Option(help="Number of texts in a step.")] = Settings.batch_size,
    accumulate: Annotated[
        int, typer.Option(help="Number of parts in which a step's texts go through the model, to save memory.")
    ] = Settings.accumulate,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Highest learning rate. Default: 0.001 for LoRA, 0.0001 for full.", show_default=False),
    ] = None,
    temperature: Annotated[float, typer.Option(help="Divisor of the logits.")] = Settings.temperature,
    method: Annotated[
        Literal["lora", "full"] | None,
        typer.Option(
            help="Training method. Default: lora for a causal language model, full for an encoder.", show_default=False
        ),
    ] = None,
    rank: Annotated[int, typer.Option(help="Rank of LoRA.")] = Settings.rank,
    layers: Annotated[
        float | None,
        typer.Option(
            help="Share of the layers to train, the last ones. Default: 0.5, or 1 for full.", show_default=False
        ),
    ] = None,
    bf16: Annotated[
        bool | None,
        typer.Option(
            "--bf16/--no-bf16", help="Compute in bfloat16. Default: on a GPU that supports it.", show_default=False
        ),
    ] = None,
    checkpoint_steps: Annotated[
        int, typer.Option(help="Number of steps between two checkpoints and measurements of the held-out loss.")
    ] = Settings.checkpoint_steps,
    seed: Annotated[int, typer.Option(help="Seed of the held-out sample and of the order of texts.", min=0)] = 0,
    evaluate_on: Annotated[
        list[Path] | None,
        typer.Option("--evaluate", help="Folder in BEIR's layout to measure retrieval on, too. Can be repeated."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """
    Train an embedder on your texts without labels (Text2Token): its embeddings learn to express their key tokens.

    An interrupted run continues where it stopped when the same command is given again.
    """
    with needs("train", "Training needs an extra"):
        from keytok_haystack.training import preview_targets, read_stop_words, train  # noqa: PLC0415

    settings = Settings(
        method=method,
        rank=rank,
        layers=layers,
        epochs=epochs,
        batch_size=batch_size,
        accumulate=accumulate,
        learning_rate=learning_rate,
        temperature=temperature,
        bf16=bf16,
        checkpoint_steps=checkpoint_steps,
        seed=seed,
    )
    fields = TextFields(text_field or (), id_field)
    rule = TargetRule(targets, share, min_df, max_df, read_stop_words(stop_words))
    console = terminal()
    if show_targets is not None:
        previews = preview_targets(
            data,
            model,
            show_targets,
            fields=fields,
            sample=sample,
            rule=rule,
            max_tokens=max_tokens,
            dtype=settings.dtype,
            progress_bar=True,
        )
        console.print(_targets_table(previews))
        return
    if output is None:
        msg = "Name the folder to write: --output DIR. (--show-targets needs none.)"
        raise ValueError(msg)
    with sole_writer(output):
        report = train(
            data,
            model,
            output,
            fields=fields,
            sample=sample,
            rule=rule,
            settings=settings,
            evaluate_on=evaluate_on or (),
            max_tokens=max_tokens,
            progress_bar=True,
        )
    if as_json:
        from keytok_haystack.encoders.cache import RECORD  # noqa: PLC0415  # help does not wait for its room

        print_json(json.loads((output / RECORD).read_text(encoding="utf-8")))
        return
    console.print(_summary(report, output))


def _targets_table(previews: "Sequence[TargetPreview]") -> Table:
    table = Table("text", "target", box=None, header_style="dim", padding=(0, 2, 1, 0))
    for preview in previews:
        shown = list(preview.target.items())[:_SHOWN_TOKENS]
        target = "  ".join(f"{token}\u00a0{probability:.3f}" for token, probability in shown) or "none left"
        if hidden := len(preview.target) - len(shown):
            target += f"  and {hidden} more"
        text = " ".join(preview.text.split())
        table.add_row(Text(text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]} ..."), Text(target))
    return table


def _summary(report: "TrainingReport", output: Path) -> Group:
    from keytok_haystack.encoders.heads import KEY_TOKENS  # noqa: PLC0415  # help does not wait for its room
    from keytok_haystack.evaluation.embedder_quality import comparison  # noqa: PLC0415  # needs the extra eval

    trained = report.trained
    rate = f"{trained.tokens / max(trained.seconds, 1e-9):,.0f} tokens/s"
    held_out = [entry["held_out_loss"] for entry in trained.history if "held_out_loss" in entry]
    lines = [
        f"[bold]{escape(str(output))}[/bold]: {trained.steps:,} steps in {trained.seconds / 60:.1f} min, {rate}",
        f"{report.texts:,} texts; {trained.parameters:,} parameters trained ({trained.settings.method})",
        f"divergence of held-out texts from their targets: {held_out[0]:.3f} -> {held_out[-1]:.3f} nats",
    ]
    if unused := report.given - report.texts - report.held_out:
        lines.append(f"{unused:,} texts have no token that the filters leave, and were not used")
    if report.no_sentence_transformers:
        lines.append(escape(report.no_sentence_transformers))
    parts: list[RenderableType] = [Text.from_markup(line) for line in lines]
    if report.after is not None:
        parts.append(comparison(report.before, report.after))
    parts.append(Text(f'Next: keytok tokens {output / KEY_TOKENS} "a text of yours"'))
    return Group(*parts)
