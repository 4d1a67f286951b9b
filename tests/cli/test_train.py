# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""`keytok train` on a tiny checkpoint: what it writes, what that can be used for, and what it refuses."""

import json
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from helpers.tiny_models import TEXTS
from sentence_transformers import SentenceTransformer

from keytok_haystack import KeyTokenModel
from keytok_haystack.cli import main
from keytok_haystack.cli import training as command
from keytok_haystack.encoders import PRESETS, embed, head_of
from keytok_haystack.encoders.language_model import LanguageModelEncoder
from keytok_haystack.evaluation import Collection
from keytok_haystack.training.settings import Settings, TargetRule
from keytok_haystack.training.task import split
from keytok_haystack.training.trainer import Examples, train

pytestmark = pytest.mark.usefixtures("one_thread", "cache")

Keytok = Callable[..., tuple[int, str, str]]
Tiny = Callable[[str], Path]

WORDS = " ".join(TEXTS).replace(".", " ").split()
SETTINGS = {"epochs": 3.0, "batch_size": 8, "checkpoint_steps": 6, "learning_rate": 0.01}
RULE = {"kind": "both", "min_df": 2, "max_df": 0.5}
CHOSEN = SETTINGS | {"targets": "both", "min_df": 2, "max_df": 0.5, "stop_words": "none"}
OPTIONS = [f"--{name.replace('_', '-')}={value}" for name, value in CHOSEN.items()]


def beir(folder: Path, *, documents: int = 60) -> Path:
    """A collection whose queries are the beginnings of the documents that are relevant to them."""
    random = np.random.default_rng(3)
    texts = [" ".join(random.choice(WORDS, size=12)) for _ in range(documents)]
    (folder / "qrels").mkdir(parents=True)
    corpus = [json.dumps({"_id": f"d{i}", "title": "", "text": text}) for i, text in enumerate(texts)]
    queries = [json.dumps({"_id": f"q{i}", "text": " ".join(texts[i].split()[:5])}) for i in range(10)]
    (folder / "corpus.jsonl").write_text("\n".join([*corpus, json.dumps({"_id": "empty", "text": " "})]))
    (folder / "queries.jsonl").write_text("\n".join(queries))
    judgements = [f"q{i}\td{i}\t1" for i in range(10)]
    (folder / "qrels" / "dev.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judgements]))
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("train")


@pytest.fixture(scope="module")
def cache(place: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KEYTOK_CACHE", str(place / "cache"))
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield


@pytest.fixture(scope="module")
def data(place: Path) -> Path:
    return beir(place / "wings")


@pytest.fixture(scope="module")
def texts(data: Path) -> list[str]:
    return [text for text in Collection.load(data, "dev").documents.values() if text.strip()]


@pytest.fixture(scope="module")
def base(tiny: Tiny) -> Path:
    return tiny("llama")


@pytest.fixture(scope="module")
def trained(one_thread: None, cache: None, place: Path, data: Path, base: Path) -> tuple[Path, dict[str, Any]]:
    """The folder, which lies in one that was not there, and what the command printed."""
    output, printed = place / "new" / "trained", StringIO()
    arguments = [data, "--model", base, "--output", output, "--evaluate", data, "--json", *OPTIONS]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        patch.setattr(sys, "argv", ["keytok", "train", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
    assert not end.value.code
    return output, json.loads(printed.getvalue())


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_the_record(trained: tuple[Path, dict[str, Any]], base: Path):
    folder, printed = trained
    assert json.loads((folder / "training.json").read_text()) == printed
    assert printed["base"] == f"prompt-eol:{base}"
    assert printed["embedder"] == f"prompt-eol:{folder}"
    assert printed["texts"] == {"trained_on": 57, "given": 60}
    assert printed["settings"] | SETTINGS | {"method": "lora"} == printed["settings"]
    assert printed["targets"] == {"share": 0.5, "stop_words": 0} | RULE
    assert printed["training"]["steps"] == 24  # three times 8
    held_out = [entry for entry in printed["training"]["history"] if "held_out_loss" in entry]
    assert [entry["step"] for entry in held_out] == [0, 6, 12, 18, 24]
    assert held_out[-1]["held_out_loss"] < 0.9 * held_out[0]["held_out_loss"]


def test_what_was_embedded_to_judge_it_is_in_the_cache(trained: tuple[Path, dict[str, Any]], data: Path):
    folder, printed = trained
    documents = list(Collection.load(data, "dev").documents.values())
    assert embed(documents, printed["embedder"], progress_bar=False).cached
    (folder / "generation_config.json").write_text("{}")
    assert not embed(documents, printed["embedder"], progress_bar=False).cached
    (folder / "generation_config.json").unlink()


def test_before_and_after(trained: tuple[Path, dict[str, Any]]):
    _, printed = trained
    before, after = printed["before"], printed["after"]
    assert before.keys() == after.keys()
    assert list(before["collections"]) == list(after["collections"]) == ["wings"]
    assert before["word_similarity"] != after["word_similarity"]
    assert after["alignment"]["literal_auc"] > before["alignment"]["literal_auc"]


def test_the_measures_are_those_of_the_two_embedders(
    trained: tuple[Path, dict[str, Any]], data: Path, base: Path, texts: list[str]
):
    """The dense nDCG@10 of queries with one relevant document each, computed anew."""
    folder, printed = trained
    collection = Collection.load(data, "dev")
    documents, queries = list(collection.documents.values()), list(collection.queries.values())
    for checkpoint, measured in ((base, printed["before"]), (folder, printed["after"])):
        encoder = LanguageModelEncoder(f"prompt-eol:{checkpoint}")
        rows, columns = (
            each / np.linalg.norm(each, axis=1, keepdims=True) for each in map(encoder.encode, (queries, documents))
        )
        similarities = rows @ columns.T
        ranks = [(scores > scores[row]).sum() for row, scores in enumerate(similarities)]
        expected = np.mean([1 / np.log2(rank + 2) if rank < 10 else 0.0 for rank in ranks])
        assert measured["collections"]["wings"]["dense"] == pytest.approx(expected, abs=1e-5)


def test_what_is_written(trained: tuple[Path, dict[str, Any]]):
    folder, _ = trained
    assert [path.name for path in folder.parent.iterdir()] == ["trained"]  # neither checkpoints nor anything half done
    assert {"config.json", "model.safetensors", "tokenizer.json", "modules.json"} <= set(files(folder))
    assert not [name for name in files(folder) if "adapter" in name or name.endswith((".bin", ".pt", ".pth"))]
    drawing = ET.parse(folder / "training.svg").getroot()
    assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(list(drawing.iter("{http://www.w3.org/2000/svg}path"))) > 10


def test_what_is_saved_embeds_as_the_encoder_in_memory(
    trained: tuple[Path, dict[str, Any]], base: Path, texts: list[str], tmp_path: Path
):
    folder, _ = trained
    task = command.Task(f"prompt-eol:{base}", texts, TargetRule(**RULE), None, None, False)
    rows, held_out = split(task.targets, 0)
    encoder = LanguageModelEncoder(task.base)
    learnt, unseen = (
        Examples(encoder.inputs([texts[row] for row in chosen]), task.targets[chosen]) for chosen in (rows, held_out)
    )
    untrained = encoder.encode(texts)
    train(encoder, task.head.decoder, learnt, unseen, Settings(**SETTINGS), checkpoints=tmp_path / "checkpoints")
    expected = encoder.encode(texts)
    assert np.abs(expected - untrained).max() > 0.1
    np.testing.assert_array_equal(LanguageModelEncoder(f"prompt-eol:{folder}").encode(texts), expected)
    stock = SentenceTransformer(str(folder), device="cpu").encode(texts)
    np.testing.assert_allclose(stock, expected, rtol=1e-4, atol=1e-4)


def test_the_key_token_model(trained: tuple[Path, dict[str, Any]], base: Path, texts: list[str], keytok: Keytok):
    folder, _ = trained
    model = KeyTokenModel.load(folder / "key_tokens")
    assert model.embedder == f"prompt-eol:{folder}"
    assert model.dimension == 32
    np.testing.assert_array_equal(model.decoder.weight, head_of(f"prompt-eol:{base}").decoder.weight)
    learnt = split(command.Task(f"prompt-eol:{base}", texts, TargetRule(**RULE), None, None, False).targets, 0)[0]
    own = [texts[row] for row in learnt]
    documents = model.encode_documents(LanguageModelEncoder(model.embedder).encode(own), own)
    assert documents.max(axis=1).toarray().mean() == pytest.approx(1, abs=0.01)

    code, out, err = keytok("tokens", folder / "key_tokens", "the lift of a wing")
    assert (code, err) == (0, "")
    first = model.encode_documents(LanguageModelEncoder(model.embedder).encode(["the lift of a wing"]))
    assert model.vocabulary.features[first.indices[np.argmax(first.data)]] in out


def test_the_same_command_replaces_the_result(
    trained: tuple[Path, dict[str, Any]], data: Path, base: Path, tmp_path: Path, keytok: Keytok
):
    folder, _ = trained
    output = Path(shutil.copytree(folder, tmp_path / "trained"))
    of_another = output / "1_Pooling" / "letter.txt"
    of_another.touch()
    code, _, err = keytok("train", data, "--model", base, "--output", output, *OPTIONS)
    assert (code, of_another.exists()) == (2, True)
    assert "has what keytok train has not written" in err
    of_another.unlink()
    code, out, err = keytok("train", data, "--model", base, "--output", output, *OPTIONS)
    assert code == 0, err
    old, new = files(folder), files(output)
    assert set(new) == set(old)
    assert new["model.safetensors"] == old["model.safetensors"]  # on a CPU it depends on nothing but the command
    assert json.loads(new["training.json"])["before"]["collections"] == {}
    assert [path.name for path in tmp_path.iterdir()] == ["trained"]
    for said in ("24 steps", "lora", "57 texts", "divergence of held-out texts from their targets", "Spearman"):
        assert said in out


def test_an_interruption_while_the_result_is_judged(
    data: Path, base: Path, tmp_path: Path, keytok: Keytok, monkeypatch: pytest.MonkeyPatch
):
    """The result is there, and the same command only judges it."""
    output = tmp_path / "trained"
    judge = command.Task.judge

    def interrupted(task: command.Task, embedder: str, *others: Any) -> Any:
        if str(output) in embedder:
            raise OSError(embedder)
        return judge(task, embedder, *others)

    monkeypatch.setattr(command.Task, "judge", interrupted)
    code, _, err = keytok("train", data, "--model", base, "--output", output, *OPTIONS)
    assert (code, err) == (2, f"error: prompt-eol:{output}\n")
    before = json.loads((output / "training.json").read_text())
    assert before["after"] is None
    monkeypatch.setattr(command.Task, "judge", judge)
    code, _, err = keytok("train", data, "--model", base, "--output", output, *OPTIONS)
    assert code == 0, err
    after = json.loads((output / "training.json").read_text())
    assert after["after"]["alignment"]["hit_at_k"] > 0
    assert [after["training"][name] for name in ("steps", "seconds", "tokens")] == [
        before["training"][name] for name in ("steps", "seconds", "tokens")
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["trained"]


def test_scaled_embeddings_are_taught_as_hidden_states(tiny: Tiny, texts: list[str], monkeypatch: pytest.MonkeyPatch):
    """The softmax of what a head makes of unit vectors would be flat."""
    monkeypatch.setitem(PRESETS, "unscaled", replace(PRESETS["qwen3-embedding-0.6b"], normalize=False))
    rule = TargetRule("model", min_df=2, max_df=0.5)
    scaled, unscaled = (
        command.Task(f"{name}:{tiny('qwen3')}", texts, rule, None, None, False).targets
        for name in ("qwen3-embedding-0.6b", "unscaled")
    )
    assert abs(scaled - unscaled).max() < 1e-6


def test_the_head_stays_with_the_embedder(trained: tuple[Path, dict[str, Any]], base: Path):
    folder, printed = trained
    before, after = head_of(f"prompt-eol:{base}"), head_of(printed["embedder"])
    assert after.vocabulary.features == before.vocabulary.features
    np.testing.assert_array_equal(after.decoder.weight, before.decoder.weight)
    assert vars(after.decoder.preparation) == vars(before.decoder.preparation)
    assert (after.idf, after.spectrum, after.source) == (None, None, before.source)
    with pytest.raises(ValueError, match="is what is to be trained"):
        command.check_output(folder, printed["embedder"])


def test_a_full_disk_at_the_end(
    trained: tuple[Path, dict[str, Any]], data: Path, base: Path, tmp_path: Path, keytok: Keytok
):
    """Checkpoints have been written, the larger model cannot be; the same command then only has to write it."""
    folder, _ = trained
    output = tmp_path / "trained"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        code, _, err = keytok("train", data, "--model", base, "--output", output, *OPTIONS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 2
    assert err.startswith("error: The trained embedder cannot be written")
    assert f"make room at '{tmp_path}', and run again." in err
    assert [path.name for path in tmp_path.iterdir()] == [".trained.training"]
    assert (tmp_path / ".trained.training" / "checkpoint-24" / "complete").exists()
    code, _, err = keytok("train", data, "--model", base, "--output", output, *OPTIONS)
    assert code == 0, err
    assert files(output)["model.safetensors"] == files(folder)["model.safetensors"]
    assert [path.name for path in tmp_path.iterdir()] == ["trained"]


def test_an_encoder(tiny: Tiny, data: Path, tmp_path: Path, keytok: Keytok):
    """Of few texts, in one step, which the drawing and the record show, too."""
    output = tmp_path / "trained"
    code, out, err = keytok("train", data, "--model", f"contriever:{tiny('bert')}", "--output", output, "--max-df=0.5")
    assert code == 0, err
    record = json.loads((output / "training.json").read_text())
    assert record["settings"]["method"] == "full"
    assert record["embedder"] == f"contriever:{output}"
    assert record["training"]["steps"] == 2
    assert "full" in out
    embeddings = LanguageModelEncoder(f"contriever:{output}").encode(list(TEXTS))
    np.testing.assert_allclose(
        SentenceTransformer(str(output), device="cpu").encode(list(TEXTS)), embeddings, rtol=1e-4, atol=1e-4
    )


def test_show_targets(data: Path, base: Path, texts: list[str], tmp_path: Path, keytok: Keytok, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    rule = TargetRule(**RULE)
    task = command.Task(f"prompt-eol:{base}", texts, rule, None, None, False)
    before = sorted(data.parent.iterdir())
    for count, shown in ((2, [0, 59]), (100, range(60))):
        code, out, err = keytok("train", data, "--model", base, "--show-targets", count, *OPTIONS)
        assert (code, err) == (0, "")
        blocks = out.split("\n", 1)[1]
        assert [text in blocks for text in texts] == [row in shown for row in range(60)]
        for row in shown:
            (line,) = (line for line in blocks.splitlines() if texts[row] in line)
            shares = task.targets[[row]].toarray()[0]
            strongest = int(np.argmax(shares))
            assert f"{task.head.vocabulary.features[strongest]}\u00a0{shares[strongest]:.3f}" in line
    assert sorted(data.parent.iterdir()) == before
    assert not list(tmp_path.iterdir())


@pytest.fixture
def refused(data: Path, base: Path, tmp_path: Path, keytok: Keytok) -> Callable[..., str]:
    """Run the command, which must end with one line and write nothing; return the line."""

    def run(*arguments: object, texts: Path = data, model: object = base, output: Path = tmp_path / "out") -> str:
        before = files(tmp_path)
        code, out, err = keytok("train", texts, "--model", model, "--output", output, *OPTIONS, *arguments)
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert files(tmp_path) == before
        return err.removeprefix("error: ").strip()

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stop-words=klingon"], "There are no stop words for 'klingon': name a file, 'none', or a language: "),
        (["--batch-size=8", "--accumulate=3"], "8 texts cannot go through the model in 3 parts of equal size."),
        (["--max-df=1.5"], "max_df must be above 0 and at most 1, but it is 1.5."),
        (["--epochs=0"], "epochs must be a positive number, but it is 0.0."),
        (["--max-tokens=4096"], "max_tokens must be between 1 and 128, the window of"),
        (["--min-df=61"], "Of 60 texts there is hardly a target left"),
        (["--evaluate=missing"], "There is no file 'missing/corpus.jsonl'."),
    ],
)
def test_refused(refused: Callable[..., str], arguments: list[str], message: str):
    assert refused(*arguments).startswith(message)


def test_a_training_that_fails(data: Path, base: Path, tmp_path: Path, keytok: Keytok):
    output = tmp_path / "out"
    code, _, err = keytok("train", data, "--model", base, "--output", output, *OPTIONS, "--learning-rate=1e30")
    assert code == 2
    assert err.startswith("error: The loss is not finite in step ")
    assert not output.exists()
    code, _, err = keytok("train", data, "--model", base, "--output", output, *OPTIONS)
    assert (code, err) == (0, "")


def test_data_without_texts(refused: Callable[..., str], tmp_path: Path):
    file = tmp_path / "texts.jsonl"
    file.write_text('{"text": " "}\n{"text": ""}\n')
    assert refused(texts=file).startswith(f"There are no texts to train on: {file} has none")
    file.write_text("")
    assert refused(texts=file) == f"'{file}' holds no texts."


def test_outputs_that_are_something_else(refused: Callable[..., str], base: Path, tmp_path: Path, keytok: Keytok):
    occupied = tmp_path / "letters"
    occupied.mkdir()
    (occupied / "letter.txt").write_text("Dear Ada")
    told = "has what keytok train has not written, so it is not replaced: choose another path."
    assert refused(output=occupied) == f"'{occupied}' {told}"
    assert refused(output=occupied / "letter.txt") == f"'{occupied / 'letter.txt'}' {told}"
    assert refused(output=base) == f"'{base}' is what is to be trained: choose another folder for the result."


def test_two_collections_of_the_same_name(refused: Callable[..., str], data: Path, tmp_path: Path):
    other = beir(tmp_path / "wings", documents=20)
    assert refused("--evaluate", data, "--evaluate", other) == (
        "Two collections are called 'wings': rename one of the folders."
    )


def test_models_that_cannot_be_trained(refused: Callable[..., str], tiny: Tiny, tmp_path: Path):
    encoder = tiny("bert")
    assert refused(model=encoder).startswith(
        f"'{encoder}' is an encoder: say how it pools, as in 'contriever:{encoder}'"
    )
    assert refused(model="prompt-eol").startswith("'prompt-eol' says how to run a language model, but not which one")


def test_no_output(data: Path, base: Path, keytok: Keytok):
    code, _, err = keytok("train", data, "--model", base)
    assert code == 2
    assert err == "error: Name the folder to write: --output DIR. (--show-targets needs none.)\n"


def test_stop_words(tmp_path: Path):
    assert {"the", "of", "and"} <= command.stop_words("english")
    assert {"und", "der"} <= command.stop_words("german")
    assert command.stop_words("none") == frozenset()
    (tmp_path / "words.txt").write_text("Aero\nÜber\n\n", encoding="utf-8")
    assert command.stop_words(str(tmp_path / "words.txt")) == {"aero", "über"}
    with pytest.raises(ValueError, match=r"or a language: .*english.*german"):
        command.stop_words("klingon")
