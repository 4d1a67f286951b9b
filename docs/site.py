# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
A hook of MkDocs: the site has the same paths as the repository, so that every relative link works in both.

README.md is its first page, and the list of pages in docs/README.md its navigation.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = ("*.md", "docs/**/*", "pipelines/*", "examples/markdown-rag/README.md", "benchmarks/results/*")
SUFFIXES = (".ipynb", ".jsonl", ".md", ".png", ".svg", ".yml")
SECTION = re.compile(r"^## (.*)\n((?:(?!^## ).*\n)*)", re.MULTILINE)
ENTRY = re.compile(r"^- \[([^]]*)\]\(([^)#]*\.md)\)", re.MULTILINE)


def on_config(config: MkDocsConfig) -> None:
    """Make the navigation from the list of pages."""
    pages = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    config.nav = [{"Home": "README.md"}, {"All pages": "docs/README.md"}]
    for section, text in SECTION.findall(pages):
        entries = [{title: _below_root(target)} for title, target in ENTRY.findall(text)]
        config.nav.append({section: entries})


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replace the files of docs/ by those of the whole repository that are published."""
    paths = sorted({path for pattern in PUBLISHED for path in ROOT.glob(pattern) if path.suffix in SUFFIXES})
    theme = [file for file in files if file.src_dir != config.docs_dir]
    published = [_file(path.relative_to(ROOT).as_posix(), config) for path in paths]
    return Files([*theme, *published])


def _below_root(target: str) -> str:
    return (ROOT / "docs" / target).resolve().relative_to(ROOT).as_posix()


def _file(path: str, config: MkDocsConfig) -> File:
    return File(path, str(ROOT), config.site_dir, config.use_directory_urls)
