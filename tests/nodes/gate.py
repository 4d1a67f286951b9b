# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""What stands between users and an engine: a proxy, and a guard who asks for credentials."""

import http.client
import json
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class Gate:
    """
    A reverse proxy before an engine that demands credentials, or fails as proxies do.

    :param url: The engine's address.
    :param tls: What it proves with who it is; without, it speaks plain HTTP.
    """

    def __init__(self, url: str, tls: ssl.SSLContext | None = None) -> None:
        address = urlsplit(url)
        self.allowed: set[str] = set()
        self.answer: tuple[int, str, bytes] | None = None
        """Status, content type and body of each answer, in place of the engine's."""
        self.asked: Callable[[str, bytes], tuple[int, str, bytes] | None] = lambda path, body: None
        """Is called with each request before it goes on, and may answer it in place of the engine."""
        self.rewritten: Callable[[str, bytes], bytes] = lambda path, body: body
        """Changes the engine's answers; where it raises a `ConnectionError`, the connection is cut in the middle."""
        gate = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_all(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if gate.allowed and self.headers.get("Authorization") not in gate.allowed:
                    refused = {"type": "security_exception", "reason": "unable to authenticate user"}
                    refusal = {"error": {"root_cause": [refused], **refused}, "status": 401}
                    self.reply(401, "application/json", json.dumps(refusal).encode(), {})
                elif (instead := gate.answer or gate.asked(self.path, body)) is not None:
                    self.reply(*instead, {})
                else:
                    engine = http.client.HTTPConnection(address.hostname, address.port)
                    headers = {key: self.headers[key] for key in ("Content-Type", "Accept") if key in self.headers}
                    try:
                        engine.request(self.command, self.path, body, headers)
                        answer = engine.getresponse()
                    except OSError:  # it is down, and so is this
                        self.close_connection = True
                        return
                    product = {"X-Elastic-Product": answer.getheader("X-Elastic-Product", "")}
                    found = whole = answer.read()
                    engine.close()
                    try:
                        found = gate.rewritten(self.path, whole)
                    except ConnectionError:
                        product["Content-Length"] = str(len(whole) + 1)
                        self.close_connection = True
                    self.reply(answer.status, answer.getheader("Content-Type", "text/plain"), found, product)

            def reply(self, status: int, content_type: str, body: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                for key, value in {"Content-Type": content_type, "Content-Length": str(len(body)), **headers}.items():
                    self.send_header(key, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_all  # noqa: N815

            def log_message(self, *arguments: object) -> None:
                """Keep quiet."""

        self.server = _started(Handler, tls)
        self.host = f"127.0.0.1:{self.server.server_port}"
        self.url = f"http{'' if tls is None else 's'}://{self.host}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def _started(handler: type[BaseHTTPRequestHandler], tls: ssl.SSLContext | None) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    server.daemon_threads = True
    server.handle_error = lambda *arguments: None  # whoever has asked may be gone
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server
