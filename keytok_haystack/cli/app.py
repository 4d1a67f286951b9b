# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The command line: its commands, and the handling of errors."""

import logging
import os
import sys
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer
from rich.text import Text

from keytok_haystack.cli.align import align_command
from keytok_haystack.cli.backfill import backfill_command
from keytok_haystack.cli.demo import demo_command
from keytok_haystack.cli.drop import drop_command
from keytok_haystack.cli.evaluate import evaluate_command
from keytok_haystack.cli.fit import fit_command
from keytok_haystack.cli.mapping import mapping_command
from keytok_haystack.cli.presets import presets_command
from keytok_haystack.cli.terminal import WarningHandler, terminal
from keytok_haystack.cli.tokens import tokens_command
from keytok_haystack.cli.train import train_command

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

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


app.command("demo")(demo_command)
app.command("fit")(fit_command)
app.command("tokens")(tokens_command)
app.command("presets")(presets_command)
app.command("mapping")(mapping_command)
app.command("backfill")(backfill_command)
app.command("drop")(drop_command)
app.command("evaluate")(evaluate_command)
app.command("align")(align_command)
app.command("train")(train_command)
