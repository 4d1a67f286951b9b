# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

from pathlib import Path
from typing import Annotated

import typer

from keytok_haystack.cli.options import JsonFlag
from keytok_haystack.engines import Engine


def demo_command(
    output: Annotated[Path, typer.Option(help="Where to put the model, the chart and the results.")] = Path(
        "keytok-demo"
    ),
    engine: Annotated[
        Engine | None, typer.Option(help="Index in this search engine, instead of the embedded index.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="The engine's address. Default: http://localhost:9200.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """
    Run the whole thing on a real collection: Cranfield, all-MiniLM-L6-v2, no server, no network.

    With --engine, on a real OpenSearch or Elasticsearch: the index 'keytok-demo' there is made anew.
    """
    if url is not None and engine is None:
        msg = "--url needs an --engine: opensearch or elasticsearch."
        raise ValueError(msg)
    from keytok_haystack.cli.demo import demo  # noqa: PLC0415  # needs the extra demo

    demo(output, engine, url, as_json=as_json)
