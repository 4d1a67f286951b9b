# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The command line: its commands, and the handling of errors."""

import logging
import os
import sys
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any, NoReturn

import typer
import typer.core
from rich.text import Text

from keytok_haystack.cli.terminal import WarningHandler, terminal

SUMMARIES = {
    "demo": "Run every step on a real collection: Cranfield, all-MiniLM-L6-v2, no server, no network.",
    "fit": "Fit a key-token model to your texts, with your embedder: no labels, no GPU, seconds beyond the embedding.",
    "tokens": "Show the key tokens of texts, as they are stored: their own words, and what their embeddings say.",
    "search": "Search texts or an index by key tokens, dense vectors and BM25 in one request, and explain each hit.",
    "explore": "Open a page that shows the hits, the words that found them, and why a document is not among them.",
    "presets": "List the language models that are known by name, and their recipes.",
    "mapping": (
        "Print the settings and mappings of an index for key tokens, or create it, on OpenSearch or Elasticsearch."
    ),
    "backfill": "Give the documents of an index key tokens, made of its dense vectors: nothing is embedded again.",
    "drop": "Remove a field of key tokens from all documents of an index, when another has taken its place.",
    "evaluate": "Measure key tokens next to the dense vectors and BM25 on a test collection.",
    "align": (
        "Show what embeddings say: their alignment with tokens, the principal components, "
        "and the effect of removing them."
    ),
    "train": (
        "Train an embedder on your texts without labels (Text2Token): its embeddings learn to express their key tokens."
    ),
}
"""Commands, and the first sentences of their help: the overview does not wait for what commands import."""


class _Commands(typer.core.TyperGroup):
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the name of a command, the command itself instead of its place in the overview, and the rest."""
        name, placeholder, rest = super().resolve_command(ctx, args)
        return name, placeholder and command_of(str(name)), rest


app = typer.Typer(cls=_Commands, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

# typer's own errors derive from click's, or in later versions from its copy of click's, so the base is found by name
_USAGE_ERROR: type[Exception] = next(
    base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException" and issubclass(base, Exception)
)


def _show_version(wanted: bool) -> None:  # noqa: FBT001  # as typer calls it
    if wanted:
        terminal().print(f"keytok-haystack {version('keytok-haystack')}")
        raise typer.Exit


@app.callback()
def about(
    show_version: Annotated[  # its callback does it
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Sparse vectors over readable tokens, from any dense embedding."""


def run() -> None:
    """Run the command line; bad input ends it with exit code 2 and one line that says what is wrong."""
    logging.lastResort = WarningHandler(logging.WARNING)
    logging.getLogger("sentence_transformers").setLevel(logging.WARNING)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it reports that a head is not loaded
    try:
        sys.exit(app(standalone_mode=False))
    except _USAGE_ERROR as error:
        _fail(error.format_message())  # type: ignore[attr-defined]
    except typer.Abort:
        _fail("Nothing was changed.", code=1)
    except Exception as error:
        if not isinstance(error, ValueError | OSError) and not _is_of_an_engine(error):
            raise
        _fail(str(error))


def _is_of_an_engine(error: Exception) -> bool:
    """Return whether an engine has failed; only commands that talk to one have imported its errors."""
    errors = sys.modules.get("haystack.document_stores.errors")
    return errors is not None and isinstance(error, errors.DocumentStoreError)


def _fail(message: str, code: int = 2) -> NoReturn:
    if not message:  # no command was given, and the help has been shown
        sys.exit(2)
    line = Text.assemble(("error: ", "red"), " ".join(message.split()))
    terminal(stderr=True).print(line, soft_wrap=True)
    sys.exit(code)


def command_of(name: str) -> Any:
    """Import a command."""
    only = typer.Typer(add_completion=False)
    only.command(name)(getattr(import_module(f"keytok_haystack.cli.{name}"), f"{name}_command"))
    return typer.main.get_command(only)


def _placeholder() -> None:
    """Stand for a command in the overview."""


for _name, _summary in SUMMARIES.items():
    app.command(_name, help=_summary)(_placeholder)
