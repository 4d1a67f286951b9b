# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from keytok_haystack import KeyTokenModel, fit
from keytok_haystack.cli.app import SUMMARIES, command_of
from keytok_haystack.sparse_vectors.rank_features import unescape_feature
from keytok_haystack.utils.resources import resource
from keytok_haystack.utils.sampling import sampled

SYSTEMS = {
    "dense",
    "bm25",
    "bm25_default",
    "dense_bm25",
    "dense_bm25_rrf",
    "key_tokens",
    "key_tokens_bm25",
    "hybrid",
    "key_tokens_bm25_rrf",
    "dense_bm25_key_tokens",
    "dense_bm25_key_tokens_rrf",
}
Keytok = Callable[..., tuple[int, str, str]]


@pytest.fixture
def place(tmp_path, monkeypatch, small_texts, small_embeddings, small_vocabulary, small_model, cranfield_model) -> Path:
    """A folder with all that commands can read, right and wrong; it is the working directory."""
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps({"text": text}) for text in small_texts]
    Path("texts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with Path("texts.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("key", "body"), *enumerate(small_texts)])
    Path("texts.jsonl.gz").write_bytes(b"no gzip")
    Path("bad.jsonl").write_text("\n".join([*lines[:2], "no JSON"]), encoding="utf-8")
    Path("empty.jsonl").write_text("")
    Path("tokenizer.json").write_text(small_vocabulary.settings["tokenizer"], encoding="utf-8")
    np.save("good.npy", small_embeddings)
    np.save("short.npy", small_embeddings[:-1])
    np.save("nan.npy", np.where(np.arange(8) == 3, np.nan, small_embeddings))
    np.save("zero.npy", small_embeddings * (np.arange(60) != 7)[:, None])
    np.save("flat.npy", small_embeddings.ravel())
    np.save("words.npy", np.array(small_texts))
    np.save("pickled.npy", np.array([{"not": "numbers"}] * 60, dtype=object), allow_pickle=True)
    np.savez("archive.npz", small_embeddings)
    Path("cut-off.npy").write_bytes(Path("good.npy").read_bytes()[:500])
    Path("cut-off.npz").write_bytes(Path("archive.npz").read_bytes()[:500])
    Path("nothing.npy").write_bytes(b"")
    Path("text.npy").write_text("no array")
    small_model.save("model")
    Path("corrupt").mkdir()
    for file in Path("model").iterdir():
        (Path("corrupt") / file.name).write_bytes(file.read_bytes()[:100])
    cranfield_model.save("cranfield-model")
    Path("occupied").mkdir()
    Path("occupied/thesis.txt").write_text("ten years of work")
    queries = ["wing lift", "shock wave", "heat"]
    for folder, relevance in (("beir", "1"), ("bad-qrels", "high")):
        Path(folder, "qrels").mkdir(parents=True)
        corpus = [json.dumps({"_id": str(i), "title": "", "text": text}) for i, text in enumerate(small_texts)]
        Path(folder, "corpus.jsonl").write_text("\n".join(corpus), encoding="utf-8")
        asked = [json.dumps({"_id": f"q{i}", "text": text}) for i, text in enumerate(queries)]
        Path(folder, "queries.jsonl").write_text("\n".join(asked), encoding="utf-8")
        judged = [f"q{i}\t{i}\t{relevance}" for i in range(len(queries))]
        Path(folder, "qrels", "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]))
    np.save("queries.npy", small_embeddings[:3])
    return tmp_path


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


EVALUATE = "evaluate beir --embeddings good.npy --query-embeddings queries.npy"
READY_MADE = "--embeddings good.npy"
BAD_INPUT = {
    "fit nothing.jsonl --output out " + READY_MADE: "nothing.jsonl",
    "fit bad.jsonl --output out " + READY_MADE: "Line 3",
    "fit empty.jsonl --output out " + READY_MADE: "no texts",
    "fit corrupt --output out " + READY_MADE: "corpus.jsonl",
    "fit texts.jsonl --output out": "--embedder",
    "fit texts.jsonl --output out --embedder x " + READY_MADE: "--embedder",
    "fit texts.jsonl --output out --embedder no/such": "no/such",
    "fit texts.jsonl --output out --embedder occupied": "occupied",
    f"fit texts.jsonl --output out {READY_MADE} --language klingon": "use 'none', or one of",
    f"fit texts.jsonl --output out {READY_MADE} --language en": "english",
    f"fit texts.jsonl --output out {READY_MADE} --tokenizer tokenizer.json": "--tokenizer",
    f"fit texts.jsonl --output out {READY_MADE} --head": "--embedder",
    "fit texts.jsonl --output out --embedder x --head --language english": "--language",
    **{
        f"fit texts.jsonl --output out --embeddings {name}": message
        for name, message in {
            "short.npy": "59 embeddings for 60 texts",
            "nan.npy": "NaN",
            "zero.npy": "Embedding 7 is the zero vector",
            "flat.npy": "(n, d)",
            "words.npy": "(n, d)",
            "pickled.npy": "pickled.npy",
            "archive.npz": "archive.npz",
            "cut-off.npy": "cut-off.npy",
            "cut-off.npz": "cut-off.npz",
            "nothing.npy": "nothing.npy",
            "text.npy": "text.npy",
            "missing.npy": "missing.npy",
            "occupied": "occupied",
        }.items()
    },
    **{
        f"fit texts.jsonl --output out {READY_MADE} --regularization {value}": "--regularization"
        for value in ("0", "-1", "nan", "inf", "much")
    },
    f"fit texts.jsonl --output out {READY_MADE} --k 0": "0",
    f"fit texts.jsonl --output out {READY_MADE} --m -1": "-1",
    f"fit texts.jsonl --output out {READY_MADE} --min-df 100": "min_df=100",
    f"fit texts.jsonl --output occupied {READY_MADE}": "occupied",
    f"fit texts.jsonl --output texts.jsonl {READY_MADE}": "texts.jsonl",
    f"fit texts.jsonl --output texts.jsonl/model {READY_MADE}": "texts.jsonl",
    f"fit texts.jsonl {READY_MADE}": "--output",
    f"fit texts.jsonl --output out {READY_MADE} --text-field body": "has no 'body'",
    f"fit texts.csv --output out {READY_MADE}": "'key', 'body'",
    f"fit texts.csv --output out {READY_MADE} --text-field body --id-field id": "no column 'id': its columns are 'key'",
    f"fit texts.csv --output out {READY_MADE} --text-field body --sample 0": "--sample",
    "fit texts.csv --output out --embeddings short.npy --text-field body --sample 20": "59 embeddings for 60 texts",
    "fit --engine opensearch --url http://localhost:1 --index x --output out --text-field body": "--content-field",
    f"fit texts.jsonl.gz --output out {READY_MADE}": "texts.jsonl.gz",
    "align --model x --head model --data texts.csv": "'key', 'body'",
    "align --model x --head model --data beir --split test --text-field text": "leave them out",
    "tokens nothing shock": "nothing",
    "tokens occupied shock": "not a key-token model",
    "tokens corrupt shock": "corrupt",
    "tokens model shock --embedder /no/such": "/no/such",
    "tokens model shock --embedder no/such": "no/such",
    "evaluate beir --model model --embedder no/such --json out.json": "no/such",
    "tokens model": "texts",
    "tokens model shock --top 0": "--top",
    "evaluate nothing --model model": "corpus.jsonl",
    "evaluate beir --model nothing": "nothing",
    "evaluate beir --model corrupt --json out.json": "corrupt",
    "evaluate beir --split dev --model model": "dev.tsv",
    "evaluate bad-qrels --model model --json out.json": "Line 2",
    "evaluate beir --model model --embeddings good.npy": "queries",
    "evaluate beir --query-embeddings queries.npy --model model": "documents",
    "evaluate beir": "embedder",
    f"{EVALUATE} --tokenizer tokenizer.json": "--tokenizer",
    f"{EVALUATE} --language klingon": "use 'none', or one of",
    f"{EVALUATE} --other texts.jsonl": "embedder",
    f"{EVALUATE} --embedder x --other texts.jsonl --other ./texts.jsonl": "'texts'",
    f"{EVALUATE} --embedder x --other bad.jsonl": "Line 3",
    f"{EVALUATE} --seed -1": "--seed",
    f"{EVALUATE} --model model --language english": "language",
    f"{EVALUATE} --model model --refine": "refine",
    f"{EVALUATE} --model model --other texts.jsonl": "other",
    f"{EVALUATE} --model model --splade occupied": "'occupied' is not a sparse encoder",
    "evaluate beir --model model --embeddings good.npy --query-embeddings good.npy --json out.json": "3 texts",
    "evaluate beir --model cranfield-model --embeddings good.npy --query-embeddings queries.npy --json out.json": "384",
    "evaporate": "evaporate",
    "fit texts.jsonl --frobnicate": "--frobnicate",
}


@pytest.mark.parametrize("line", BAD_INPUT)
def test_bad_input_is_one_line_and_leaves_nothing_behind(line, keytok, place):
    before = tree(place)
    code, out, err = keytok(*line.split())
    assert code == 2
    assert err.count("\n") == 1, err
    assert err.startswith("error: ")
    assert BAD_INPUT[line].lower() in err.lower()
    assert out == ""
    assert tree(place) == before


def test_a_model_that_names_no_embedder_needs_one(keytok, place):
    assert keytok("fit", "texts.jsonl", "--output", "out", *READY_MADE.split())[0] == 0
    code, _, err = keytok("tokens", "out", "shock")
    assert (code, err.count("\n")) == (2, 1)
    assert "--embedder" in err


def test_brackets_in_a_name_are_not_markup(keytok, place):
    code, _, err = keytok("fit", "texts[/b][red].jsonl", "--output", "out", *READY_MADE.split())
    assert code == 2
    assert "texts[/b][red].jsonl" in err


def test_the_installed_command_ends_with_the_same_code_and_line(keytok, place):
    arguments = ("tokens", "occupied", "shock")
    command = [Path(sys.executable).parent / "keytok", *arguments]
    environment = {**os.environ, "COLUMNS": "120", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == keytok(*arguments)


def test_a_model_of_another_embedder_is_refused(keytok, place, embedder):
    code, _, err = keytok("tokens", "model", "shock", "--embedder", embedder)
    assert code == 2
    assert err.count("\n") == 1, err
    assert "384" in err


@pytest.mark.parametrize("arguments", [["--help"], ["fit", "--help"], ["tokens", "--help"], ["demo", "--help"]])
def test_help(arguments, keytok):
    code, out, err = keytok(*arguments)
    assert (code, err) == (0, "")
    assert "Usage" in out


def test_help_waits_for_nothing_that_takes_seconds_to_import():
    heavy = {"haystack", "huggingface_hub", "numpy", "safetensors", "scipy", "tokenizers", "torch", "transformers"}
    code = "import sys; sys.argv = ['keytok', '--help']; from keytok_haystack.cli import main\n"
    code += "try: main()\nexcept SystemExit: print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "Usage" in done.stdout
    assert not heavy & set(done.stderr.split())


@pytest.mark.parametrize("name", SUMMARIES)
def test_the_overview_says_what_the_help_of_a_command_begins_with(name, keytok):
    described = command_of(name).help
    assert " ".join(described.partition("\n\n")[0].split()) == SUMMARIES[name]


def test_the_version_is_that_of_the_package(keytok):
    code, out, err = keytok("--version")
    assert (code, out, err) == (0, f"keytok-haystack {version('keytok-haystack')}\n", "")


def test_fit_ready_made_embeddings(keytok, place, small_texts, small_embeddings, small_spectrum):
    arguments = ["--k", "7", "--m", "3", "--regularization", "0.1", "--min-df", "1"]
    code, out, err = keytok("fit", "texts.jsonl", "--output", "new/out", *READY_MADE.split(), *arguments)
    assert (code, err) == (0, "")
    assert str(Path("new", "out")) in out
    options = {"regularization": 0.1, "min_df": 1, "spectrum": small_spectrum}
    expected = fit(small_embeddings, small_texts, **options)
    model = KeyTokenModel.load("new/out")
    assert (model.weighting.k_document, model.weighting.m_query, model.embedder) == (7, 3, None)
    np.testing.assert_array_equal(model.decoder.weight, expected.decoder.weight)
    assert model.fit_seconds > 0
    assert [path.name for path in Path("new").iterdir()] == ["out"]


def test_fit_prints_json(keytok, place, small_texts, small_embeddings, small_spectrum):
    expected = fit(small_embeddings, small_texts, spectrum=small_spectrum)
    code, out, err = keytok("fit", "texts.jsonl", "--output", "out", *READY_MADE.split(), "--json")
    assert (code, err) == (0, "")
    summary = json.loads(out)
    seconds = summary.pop("seconds")
    assert summary == {
        "output": "out",
        "fingerprint": expected.fingerprint,
        "texts": 60,
        "dimension": 8,
        "decoder": "fit",
        "features": 10,  # not the numbers
        "language": expected.vocabulary.language,
        "comprehension": {
            "coverage": expected.comprehension.coverage,
            "literal_auc": expected.comprehension.literal_auc,
        },
        "refinement": None,
    }
    assert seconds["embed"] is None
    assert seconds["fit"] > 0


def test_fit_says_what_it_has_understood(keytok, place, small_texts, small_embeddings, small_spectrum):
    expected = fit(small_embeddings, small_texts, spectrum=small_spectrum, language="english").comprehension
    code, out, err = keytok("fit", "texts.jsonl", "--output", "out", *READY_MADE.split(), "--language", "english")
    assert (code, err) == (0, "")
    assert "10 English words from 60 texts" in out
    assert f"Coverage {expected.coverage:.0%}" in out
    assert f"AUC {expected.literal_auc:.2f}" in out
    assert KeyTokenModel.load("out").vocabulary.language == "english"
    assert (
        "10 words, not stemmed, from 60 texts"
        in keytok("fit", "texts.jsonl", "--output", "out", *READY_MADE.split(), "--language", "none", "--yes")[1]
    )


def test_fit_reads_columns(keytok, place):
    columns = ("--text-field", "body", "--id-field", "key")
    assert keytok("fit", "texts.jsonl", "--output", "lines", *READY_MADE.split())[0] == 0
    assert keytok("fit", "texts.csv", "--output", "rows", *READY_MADE.split(), *columns)[0] == 0
    assert KeyTokenModel.load("rows").fingerprint == KeyTokenModel.load("lines").fingerprint


def test_fit_samples_texts_with_their_vectors(keytok, place, small_texts, small_embeddings):
    code, out, err = keytok("fit", "texts.jsonl", "--output", "out", *READY_MADE.split(), "--sample", 40, "--json")
    assert code == 0
    assert "The model is fitted to 40 of 60 texts" in err
    assert json.loads(out)["texts"] == 40
    texts, rows, _ = sampled(small_texts, 40)
    assert texts == [small_texts[row] for row in rows]
    assert KeyTokenModel.load("out").fingerprint == fit(small_embeddings[rows], texts).fingerprint


def test_fit_warns_of_another_language_than_that_of_the_texts(keytok, place, small_texts):
    lines = [json.dumps({"text": f"The {text} of an aircraft was measured in the tunnel"}) for text in small_texts]
    Path("english.jsonl").write_text("\n".join(lines), encoding="utf-8")
    for language, warning in (
        ("german", "The texts seem to be English, but --language german is how they were read.\n"),
        ("english", ""),
        ("none", ""),
    ):
        options = (*READY_MADE.split(), "--language", language, "--yes")
        code, _, err = keytok("fit", "english.jsonl", "--output", "out", *options)
        assert (code, err) == (0, warning)
        assert KeyTokenModel.load("out").vocabulary.language == language


def test_fit_warns_of_vectors_of_other_texts(keytok, place, small_texts):
    random = np.random.default_rng(0)
    texts = [" ".join(random.permutation(small_texts)[:2]) for _ in range(600)]
    Path("own.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    np.save("others.npy", random.normal(size=(600, 8)))
    code, _, err = keytok("fit", "own.jsonl", "--output", "out", "--embeddings", "others.npy", "--language", "none")
    assert (code, err.count("\n")) == (0, 1)
    assert "check that each vector is that of its text" in err
    assert KeyTokenModel.load("out").comprehension.warning == err.removesuffix("\n")


def test_fit_warns_of_texts_that_are_mostly_numbers(keytok, place, small_texts):
    random = np.random.default_rng(0)
    texts = [" ".join([text, *map(str, random.integers(10, 10**6, size=12))]) for text in small_texts]
    Path("own.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    code, _, err = keytok("fit", "own.jsonl", "--output", "out", *READY_MADE.split(), "--language", "none")
    assert (code, err.count("\n")) == (0, 1)
    assert err.startswith("Only ")
    assert "fit to more texts, and check that the texts are in words" in err


def test_fit_replaces_a_model_if_that_is_confirmed(keytok, place, small_texts, small_embeddings, small_spectrum):
    expected = fit(small_embeddings, small_texts, spectrum=small_spectrum)
    before = KeyTokenModel.load("cranfield-model").fingerprint
    code, out, err = keytok("fit", "beir", "--output", "cranfield-model", *READY_MADE.split())
    assert (code, out, err) == (
        2,
        "",
        "error: The key-token model 'cranfield-model' will be replaced. Confirm it with --yes.\n",
    )
    assert KeyTokenModel.load("cranfield-model").fingerprint == before
    assert keytok("fit", "beir", "--output", "cranfield-model", *READY_MADE.split(), "--yes")[0] == 0
    assert KeyTokenModel.load("cranfield-model").fingerprint == expected.fingerprint


def test_what_is_fitted_is_kept_if_refinement_fails(keytok, place, monkeypatch):
    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("keytok_haystack.cli.fit.refine_model", fail)
    code, out, err = keytok("fit", "texts.jsonl", "--output", "out", *READY_MADE.split(), "--refine")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "No space left" in err
    assert not KeyTokenModel.load("out").refined


def test_fit_chooses_the_regularization(keytok, place, small_texts, small_embeddings, small_spectrum):
    code, _, _ = keytok("fit", "texts.jsonl", "--output", "out", *READY_MADE.split(), "--regularization", "gcv")
    assert code == 0
    options = {"regularization": "gcv", "spectrum": small_spectrum}
    expected = fit(small_embeddings, small_texts, **options)
    assert KeyTokenModel.load("out").fingerprint == expected.fingerprint


def test_fit_a_folder_with_an_embedder(keytok, place, embedder, cranfield_model):
    data = resource("examples/cranfield")
    code, out, err = keytok("fit", data, "--embedder", embedder, "--output", "out", "--json")
    assert (code, err) == (0, "2 of the 1,400 texts are empty: they say nothing about their embeddings.\n")
    assert json.loads(out)["texts"] == 1400
    assert json.loads(out)["seconds"]["embed"] > 0
    model = KeyTokenModel.load("out")
    assert model.embedder == embedder
    assert model.vocabulary.features == cranfield_model.vocabulary.features
    np.testing.assert_allclose(model.decoder.weight, cranfield_model.decoder.weight, atol=2e-3)


def test_fit_a_file_with_an_embedder(keytok, place, embedder, monkeypatch):
    monkeypatch.setenv("KEYTOK_CACHE", str(place / "cache"))
    lines = [{"content": "shock [/b] waves", "title": "[red]"}, {"content": "heat waves"}, {"text": "heat shock"}]
    Path("own.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    code, out, _ = keytok("fit", "own.jsonl", "--embedder", embedder, "--output", "out")
    assert code == 0
    model = KeyTokenModel.load("out")
    assert set(model.vocabulary.features[: len(model.decoder)]) == {"shock", "waves", "heat"}
    assert "[red] shock [/b] waves" in out
    assert "keytok tokens out" in out


def test_tokens_prints_json(keytok, place, embedder, monkeypatch):
    monkeypatch.setenv("KEYTOK_CACHE", str(place / "cache"))
    texts = ["heat transfer to a blunt body", ""]
    code, out, _ = keytok("tokens", "cranfield-model", *texts, "--top", 5, "--json")
    assert code == 0
    rows = json.loads(out)
    assert [row["text"] for row in rows] == texts
    assert [len(row["key_tokens"]) for row in rows] == [5, 5]
    assert "heat" in rows[0]["key_tokens"]
    weights = list(rows[0]["key_tokens"].values())
    assert weights == sorted(weights, reverse=True)


def test_tokens_shows_texts_and_tokens_as_they_are(keytok, place, small_model, small_texts, monkeypatch):
    embedded = np.array([[1.0] * 8, [-1.0] * 8], dtype=np.float32)
    monkeypatch.setattr(
        "keytok_haystack.cli.tokens.embed", lambda texts, *_, **__: type("E", (), {"embeddings": embedded})
    )
    texts = ["a [link] to [/b]", "x" * 200]
    code, out, _ = keytok("tokens", "model", *texts, "--embedder", "mine", "--top", 12)
    assert code == 0
    assert texts[0] in out
    assert "x" * 90 + "…" in out
    shown = {line.split()[0] for line in out.splitlines() if line.rstrip().endswith(("█", "▒"))}
    logits = small_model.decoder.logits(embedded)
    expected = {f for row in logits for f, v in zip(small_model.vocabulary.features, row, strict=True) if v > 0}
    assert shown == expected
    assert {"3.5", "100%"} & expected


def test_tokens_tells_words_of_a_text_from_what_ready_made_embeddings_say(keytok, place, small_model, small_embeddings):
    np.save("vectors.npy", small_embeddings[:2])
    texts = ["shock shock", "heat"]
    code, out, _ = keytok("tokens", "model", *texts, "--embeddings", "vectors.npy", "--json")
    assert code == 0
    rows = json.loads(out)
    encoded = small_model.encode_documents(small_embeddings[:2], texts, top_k=16)
    assert [row["confidence"] for row in rows] == pytest.approx(encoded.confidences.tolist(), abs=0.0005)
    assert [row["literal"] for row in rows] == [["shock"], ["heat"]]
    expected = [
        {unescape_feature(key): weight for key, weight in t.items()} for t in small_model.document_tokens(encoded)
    ]
    assert [row["key_tokens"] for row in rows] == expected
    code, out, _ = keytok("tokens", "model", *texts, "--embeddings", "vectors.npy")
    bars = [(line.split()[0], line.split()[-1][0]) for line in out.splitlines() if line.rstrip().endswith(("█", "▒"))]
    assert {word for word, bar in bars if bar == "█"} == {"shock", "heat"}
    assert {bar for word, bar in bars if word not in {"shock", "heat"}} == {"▒"}
    assert f"confidence {rows[0]['confidence']:.2f}" in out
    code, _, err = keytok("tokens", "model", "one", "--embeddings", "vectors.npy")
    assert (code, "2 embeddings for 1 texts" in err) == (2, True)
    code, _, err = keytok("tokens", "model", *texts, "--embeddings", "vectors.npy", "--embedder", "any")
    assert (code, "leave --embedder out" in err) == (2, True)


def test_evaluate_writes_what_it_is_asked_for(keytok, place):
    files = {"--json": "new/out.json", "--markdown": "pages/out.md", "--png": "out.png"}
    options = [argument for option in files.items() for argument in option]
    code, out, err = keytok(*EVALUATE.split(), "--model", "model", *options)
    assert (code, err) == (0, "")
    report = json.loads(Path("new/out.json").read_text())
    assert report["systems"].keys() == SYSTEMS
    assert (report["data"], report["documents"], report["queries"]) == ("beir", 60, 3)
    assert report["fitted_on"] == "given model"
    assert report["seconds"]["embed"] is None
    assert report["out_of_sample"] == []
    assert len(report["sweep"]) == 13
    ndcg = f"{report['systems']['key_tokens']['nDCG@10']:.3f}"
    assert ndcg in out
    assert f"| key tokens | given model | {ndcg} |" in Path("pages/out.md").read_text()
    assert Path("out.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def evaluated(keytok, *options: object) -> dict[str, Any]:
    code, _, err = keytok(*EVALUATE.split(), *options, "--json", "out.json")
    assert (code, err) == (0, "")
    return json.loads(Path("out.json").read_text())


def test_evaluate_fits_ready_made_embeddings(keytok, place):
    report = evaluated(keytok)
    assert (report["decoder"], report["fitted_on"], report["embedder"]) == ("fitted", "all documents", None)
    assert report["seconds"]["fit"] > 0
    assert {entry["fitted_on"] for entry in report["out_of_sample"]} == {"a random half"}
    assert [entry["decoder"] for entry in report["decoders"]] == ["fitted"] * 2


def test_evaluate_fits_as_fit_does(keytok, place):
    assert keytok("fit", "beir", "--output", "out", *READY_MADE.split())[0] == 0
    given, fitted = evaluated(keytok, "--model", "out"), evaluated(keytok)
    for name in SYSTEMS:
        assert given["systems"][name]["nDCG@10"] == fitted["systems"][name]["nDCG@10"]


def test_evaluate_refines_what_it_fits(keytok, place):
    report = evaluated(keytok, "--refine")
    assert report["decoder"] == "fitted"
    assert set(report["refined"]) == {name for name in SYSTEMS if "key_tokens" in name or name == "hybrid"}
    assert [entry["decoder"] for entry in report["decoders"]] == ["fitted"] * 2 + ["refined"] * 2
    assert report["seconds"]["refine"] > 0
    fitted = evaluated(keytok)
    assert (fitted["seconds"]["refine"], fitted["refined"]) == (None, {})
    found, alone = ([e["nDCG@10"] for e in r["decoders"] if e["decoder"] == "fitted"] for r in (report, fitted))
    assert found == alone


def test_evaluate_fits_to_half_of_the_documents(keytok, place, small_texts, small_embeddings):
    """The halves differ with the seed, and are what `fit` makes of as many documents."""
    values = set()
    for seed in (0, 1, 0):
        report = evaluated(keytok, "--seed", seed)
        half = np.sort(np.random.default_rng(seed).permutation(60)[:30])
        np.save("half.npy", small_embeddings[half])
        Path("half.jsonl").write_text("\n".join(json.dumps({"text": small_texts[i]}) for i in half))
        assert keytok("fit", "half.jsonl", "--output", "half", "--embeddings", "half.npy", "--yes")[0] == 0
        expected = evaluated(keytok, "--model", "half")["systems"]["key_tokens"]
        found = next(entry for entry in report["out_of_sample"] if entry["system"] == "key_tokens")
        assert found["nDCG@10"] == expected["nDCG@10"]
        values.add(found["bytes_per_document"])
    assert len(values) == 2


def test_evaluate_fits_to_other_collections(keytok, place, embedder, monkeypatch):
    monkeypatch.setenv("KEYTOK_CACHE", str(place / "cache"))
    Path("own").mkdir()
    Path("own/corpus.jsonl").write_text(Path("beir/corpus.jsonl").read_text())
    options = ["--embedder", embedder, "--other", "texts.jsonl", "--other", "own", "--json", "out.json"]
    code, out, err = keytok("evaluate", "beir", *options)
    assert (code, err) == (0, "")
    report = json.loads(Path("out.json").read_text())
    by_text = {"texts": [], "own": [], "a random half": []}
    for entry in report["out_of_sample"]:
        by_text[entry["fitted_on"]].append((entry["system"], entry["nDCG@10"], entry["R@100"]))
        assert entry["fitted_on"] in out
    same = [(name, report["systems"][name]["nDCG@10"], report["systems"][name]["R@100"]) for name, *_ in by_text["own"]]
    assert by_text["texts"] == by_text["own"] == same  # the same texts as the collection's
    assert [entry["decoder"] for entry in report["decoders"]] == ["word embeddings"] * 2 + ["fitted"] * 2
    assert report["seconds"]["embed"] > 0


@pytest.mark.parametrize(
    ("name", "decoder", "dimension"),
    [
        ("lm_head.weight", "LM head", 8),
        ("embeddings.word_embeddings.weight", "word embeddings", 8),
        ("lm_head.weight", None, 5),
    ],
)
def test_evaluate_reads_the_head_that_the_embedder_has(name, decoder, dimension, keytok, place):
    """Of a language model the LM head, of an encoder without a head its word embeddings; none of another dimension."""
    save_file({name: np.random.default_rng(4).normal(size=(13, dimension)).astype(np.float32)}, "model.safetensors")
    Path("config.json").write_text("{}")
    decoders = evaluated(keytok, "--embedder", ".")["decoders"]
    assert [entry["decoder"] for entry in decoders] == [decoder] * (2 if decoder else 0) + ["fitted"] * 2
    assert {entry["fitted_on"] for entry in decoders if entry["decoder"] == decoder} == (
        {"nothing"} if decoder else set()
    )


def test_evaluate_where_nothing_relevant_is_found(keytok, place):
    Path("beir/qrels/test.tsv").write_text("q0\tunknown\t1\nq1\tunknown\t1\n")
    np.save("queries.npy", np.load("queries.npy")[:2])
    code, _, err = keytok(*EVALUATE.split(), "--model", "model", "--json", "out.json")
    assert (code, err) == (0, "")
    assert json.loads(Path("out.json").read_text())["systems"]["dense"]["nDCG@10"] == 0


@pytest.mark.slow
def test_demo(keytok, tmp_path, monkeypatch, cranfield_documents, cranfield_queries, embedder):
    monkeypatch.chdir(tmp_path)
    code, out, err = keytok("demo")
    assert (code, "error" in err.lower()) == (0, False)  # on a busy machine, progress is told every half minute
    output = tmp_path / "keytok-demo"
    assert {path.name for path in output.iterdir()} == {"model", "chart.png", "report.json"}
    assert (output / "chart.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    report = json.loads((output / "report.json").read_text())
    assert report["systems"].keys() == SYSTEMS
    ndcg = {name: values["nDCG@10"] for name, values in report["systems"].items()}
    assert ndcg["dense"] == pytest.approx(0.382, abs=0.002)
    assert ndcg["key_tokens"] >= 0.40
    assert ndcg["key_tokens_bm25"] > ndcg["dense"]
    assert report["through_query_pipeline"]["nDCG@10"] == pytest.approx(ndcg["key_tokens"], abs=1e-3)
    shown = " ".join(out.split())
    assert str(Path("keytok-demo", "chart.png")) in shown
    assert f"keytok fit texts.jsonl --embedder {embedder}" in shown
    for name in ("bm25", "dense", "key_tokens"):
        assert f"{ndcg[name]:.3f}" in shown
    assert KeyTokenModel.load(output / "model").embedder == embedder
