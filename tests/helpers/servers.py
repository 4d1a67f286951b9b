# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Servers that tests start: hayhooks, and a chat that speaks OpenAI's language."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextmanager
def hayhooks(command: list[str], log: Path, **environment: str) -> Iterator[str]:
    """Run `hayhooks` with this command, and yield its address when it is up."""
    port = free_port()
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("HAYSTACK_DESERIALIZATION")}
    with log.open("w") as file:
        server = subprocess.Popen(
            [Path(sys.executable).parent / "hayhooks", *command, "--host", "127.0.0.1", "--port", str(port)],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**inherited, **environment},
        )
    try:
        for _ in range(480):  # it imports and loads for a minute where a machine is busy
            if server.poll() is not None or "startup complete" in log.read_text().lower():
                break
            time.sleep(0.5)
        assert server.poll() is None, log.read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)


@contextmanager
def chat_server(reply: Callable[[list[dict[str, str]]], str]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Serve chat completions as OpenAI does: yield the base URL, and the list to which requests are added."""
    requests: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            assert self.path == "/v1/chat/completions"
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append({**request, "authorization": self.headers["Authorization"]})
            message = {"role": "assistant", "content": reply(request["messages"])}
            completion = {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": request["model"],
                "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
            }
            body = json.dumps(completion).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1", requests
        finally:
            server.shutdown()
