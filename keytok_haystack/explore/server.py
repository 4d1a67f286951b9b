# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The page and a small JSON API, served on this machine. Needs the extra `explore`."""

from collections.abc import Callable
from threading import Lock
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, HTTPException
from fastapi.responses import HTMLResponse
from haystack.document_stores.errors import DocumentStoreError
from haystack.errors import FilterError
from pydantic import BaseModel, Field
from starlette.middleware.trustedhost import TrustedHostMiddleware

from keytok_haystack.explore.page import page
from keytok_haystack.explore.workbench import Workbench

_Answer = TypeVar("_Answer")
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1", "[::1]")


class Search(BaseModel):
    """Question to all systems."""

    question: str = Field(max_length=10_000)
    edits: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = {}
    filters: dict[str, Any] | None = None


class Why(Search):
    """Question about one document."""

    document_id: str | None = None
    text: str | None = Field(default=None, max_length=1_000_000)


def create_app(workbench: Workbench, hosts: tuple[str, ...] = LOCAL_HOSTS) -> FastAPI:
    """
    Return the application.

    :param workbench: Searches.
    :param hosts: Host names to accept, so that other websites cannot reach the server through DNS rebinding; ("*",)
        accepts all.
    """
    app = FastAPI(title="keytok explore", docs_url=None, redoc_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    lock = Lock()  # the embedder is not made for several threads

    def answered(work: Callable[..., _Answer], **arguments: Any) -> _Answer:
        try:
            with lock:
                return work(**arguments)
        except (ValueError, TypeError, FilterError, DocumentStoreError) as error:
            raise HTTPException(422, detail=str(error)) from error

    @app.get("/", response_class=HTMLResponse)
    def index() -> str:
        return page(workbench.source.name)

    @app.get("/api/fields")
    def fields() -> list[str]:
        return answered(workbench.fields)

    @app.post("/api/search")
    def search(asked: Search) -> dict[str, Any]:
        return answered(workbench.search, **asked.model_dump())

    @app.post("/api/why")
    def why(asked: Why) -> dict[str, Any]:
        return answered(workbench.why, **asked.model_dump())

    return app
