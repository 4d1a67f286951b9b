# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

import socket
import webbrowser
from threading import Timer
from typing import Annotated

import typer

from keytok_haystack.cli.options import (
    CaCertOption,
    EmbedderOption,
    IdFieldOption,
    InsecureFlag,
    OptionalUrlOption,
    TextFieldOption,
)
from keytok_haystack.cli.sources import (
    ExploredEngineOption,
    ExploredModelOption,
    SourceArgument,
    workbench,
)
from keytok_haystack.cli.terminal import terminal
from keytok_haystack.utils.extras import needs


def explore_command(
    source: SourceArgument,
    model: ExploredModelOption,
    engine: ExploredEngineOption = None,
    url: OptionalUrlOption = None,
    embedder: EmbedderOption = None,
    text_field: TextFieldOption = None,
    id_field: IdFieldOption = None,
    top: Annotated[int, typer.Option(help="Maximum number of hits of each ranking.", min=1, max=100)] = 10,
    host: Annotated[str, typer.Option(help="Address to listen on; one that is not local opens the page to others.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8017,
    browser: Annotated[bool, typer.Option(help="Whether to open the page in a browser.")] = True,
    ca_cert: CaCertOption = None,
    insecure: InsecureFlag = False,
) -> None:
    """Open a page that shows the hits, the words that found them, and why a document is not among them."""
    with needs("explore", "The page needs an extra"):
        import uvicorn  # noqa: PLC0415

        from keytok_haystack.explore.server import LOCAL_HOSTS, create_app  # noqa: PLC0415

    with _listening(host, port) as listener:  # before the texts are embedded, which takes longer
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
        )
        app = create_app(bench, LOCAL_HOSTS if host in LOCAL_HOSTS else ("*",))
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        terminal().print(f"{address}  (Ctrl-C ends it)", soft_wrap=True)
        if browser:
            Timer(1.0, webbrowser.open, (address,)).start()
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run([listener])


def _listening(host: str, port: int) -> socket.socket:
    """
    Return a socket that listens on an address.

    :raises ValueError: It cannot, since another program does, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        msg = f"{host} cannot listen on port {port} ({error.strerror or error}): choose another by --port."
        raise ValueError(msg) from error
