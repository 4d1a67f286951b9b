# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from keytok_haystack.cli.inputs import is_interactive
from keytok_haystack.cli.options import JsonFlag, MaxTokensOption
from keytok_haystack.encoders.cache import RECORD
from keytok_haystack.training.settings import Settings, TargetRule


def train_command(
    data: Annotated[list[Path], typer.Argument(help="Texts: folders in BEIR's layout, or JSONL files.")],
    model: Annotated[
        str, typer.Option(help="What to train: a preset, NAME or NAME:CHECKPOINT, or another language model.")
    ],
    output: Annotated[
        Path | None, typer.Option(help="The folder of the trained embedder to write.", show_default=False)
    ] = None,
    targets: Annotated[
        Literal["data", "model", "both"],
        typer.Option(help="What to teach: the texts' own tokens, what the model's embeddings say already, or both."),
    ] = TargetRule.kind,
    share: Annotated[float, typer.Option(help="The share of own tokens in targets of both kinds.")] = TargetRule.share,
    min_df: Annotated[int, typer.Option(help="No target tokens of fewer texts.", min=1)] = TargetRule.min_df,
    max_df: Annotated[
        float, typer.Option(help="No target tokens of more than this share of the texts.")
    ] = TargetRule.max_df,
    stop_words: Annotated[
        str, typer.Option(help="No target tokens of these: a language, a file with one word in a line, or none.")
    ] = "english",
    show_targets: Annotated[
        int | None, typer.Option(help="Show the targets of this many texts, and do not train.", min=1)
    ] = None,
    max_tokens: MaxTokensOption = None,
    epochs: Annotated[float, typer.Option(help="How often each text is seen.")] = Settings.epochs,
    batch_size: Annotated[int, typer.Option(help="How many texts are in a step.")] = Settings.batch_size,
    accumulate: Annotated[
        int, typer.Option(help="In how many parts a step's texts go through the model, to save memory.")
    ] = Settings.accumulate,
    learning_rate: Annotated[
        float | None, typer.Option(help="The highest. Default: 0.001 for LoRA, 0.0001 for full.", show_default=False)
    ] = None,
    temperature: Annotated[float, typer.Option(help="What logits are divided by.")] = Settings.temperature,
    method: Annotated[
        Literal["lora", "full"] | None,
        typer.Option(help="Default: lora for a causal language model, full for an encoder.", show_default=False),
    ] = None,
    rank: Annotated[int, typer.Option(help="The rank of LoRA.")] = Settings.rank,
    layers: Annotated[
        float | None,
        typer.Option(help="Train this share of the layers, the last. Default: 0.5, or 1 for full.", show_default=False),
    ] = None,
    bf16: Annotated[
        bool | None,
        typer.Option(
            "--bf16/--no-bf16", help="Compute in bfloat16. Default: on a GPU that has it.", show_default=False
        ),
    ] = None,
    checkpoint_steps: Annotated[
        int, typer.Option(help="After how many steps to write a checkpoint and to measure what is held out.")
    ] = Settings.checkpoint_steps,
    seed: Annotated[int, typer.Option(help="Of what is held out, and of the order of texts.", min=0)] = 0,
    evaluate_on: Annotated[
        list[Path] | None,
        typer.Option("--evaluate", help="Measure retrieval here, too: a folder in BEIR's layout. Can be repeated."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """
    Train an embedder on your texts, without labels (Text2Token): its embeddings learn to say the texts' key tokens.

    An interrupted run goes on where it was when the command is given again.
    """
    from keytok_haystack.cli import training  # noqa: PLC0415  # needs the extra train

    base = training.embedder_of(model)
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
    rule = TargetRule(targets, share, min_df, max_df, training.stop_words(stop_words))
    collections = training.collections_of(evaluate_on or ())
    dtype = {True: "bfloat16", False: "float32", None: None}[bf16]
    task = training.Task(base, training.texts_of(data), rule, max_tokens, dtype, is_interactive())
    console = Console(highlight=False)
    if show_targets is not None:
        console.print(training.targets_table(task, show_targets))
        return
    if output is None:
        msg = "Name the folder to write: --output DIR. (--show-targets needs none.)"
        raise ValueError(msg)
    training.check_output(output, base)
    outcome = training.train_embedder(task, settings, collections, output)
    if as_json:
        typer.echo((output / RECORD).read_text(encoding="utf-8"))
        return
    console.print(training.summary(outcome, task, output))
