# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.text import Text

from keytok_haystack.cli.options import (
    CaCertOption,
    EmbedderOption,
    IdFieldOption,
    InsecureFlag,
    JsonFlag,
    OptionalUrlOption,
    TextFieldOption,
)
from keytok_haystack.cli.sources import (
    ExploredEngineOption,
    ExploredModelOption,
    SourceArgument,
    workbench,
)
from keytok_haystack.cli.terminal import print_json, terminal
from keytok_haystack.utils.files import replaced_file

_SHOWN_CHARACTERS = 200


def search_command(
    source: SourceArgument,
    question: Annotated[str, typer.Argument(help="Question.")],
    model: ExploredModelOption,
    engine: ExploredEngineOption = None,
    url: OptionalUrlOption = None,
    embedder: EmbedderOption = None,
    text_field: TextFieldOption = None,
    id_field: IdFieldOption = None,
    top: Annotated[int, typer.Option(help="Maximum number of hits to show.", min=1, max=100)] = 5,
    html: Annotated[Path | None, typer.Option(help="Path of a page to write, with the rankings side by side.")] = None,
    ca_cert: CaCertOption = None,
    insecure: InsecureFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Search texts or an index by key tokens, dense vectors and BM25 in one request, and explain each hit."""
    from keytok_haystack.explore import page  # noqa: PLC0415  # imports Haystack

    bench = workbench(
        source,
        model,
        engine=engine,
        url=url,
        embedder=embedder,
        text_field=text_field,
        id_field=id_field,
        ca_cert=ca_cert,
        verify=not insecure,
        top_k=top,
        progress_bar=not as_json,
    )
    result = bench.search(question)
    if html is not None:
        with replaced_file(html) as file:
            file.write_text(page(bench.source.name, result), encoding="utf-8")
        terminal(stderr=True).print(f"{html} written.", soft_wrap=True)
    if as_json:
        print_json(result)
        return
    terminal().print(_hits(result))


def _hits(result: dict[str, Any]) -> Group:
    """Return the hits of the hybrid search."""
    ranking = result["systems"]["hybrid"]
    lines = [Text(result["note"], style="dim") if ranking["hits"] else Text(ranking["empty"] or "")]
    if result["unused"]:
        lines.append(Text(f"too weak to be searched for: {', '.join(result['unused'])}", style="dim"))
    for number, hit in enumerate(ranking["hits"], start=1):
        document = result["documents"][hit["id"]]
        text = " ".join("".join(piece for piece, _ in document["text"]).split())
        shown = text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
        parts = " + ".join(f"{part['score']:.2f} {name}" for name, part in document["parts"].items())
        head = Text.assemble("\n", (f"{number}. {hit['id']}", "bold"), f"  {hit['score']:.2f}  ", (parts, "dim"))
        implied = f"; not in the text: {', '.join(document['implied'])}" if document["implied"] else ""
        lines += [head, Text(shown), Text(document["sentence"] + implied, style="italic")]
    return Group(*lines)
