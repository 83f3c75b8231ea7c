"""``squeezebert model``: what it prints, and what it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from squeezebert.checkpoint import load, save
from squeezebert.cli import main
from squeezebert.evaluation.label_order import built_in_pairs
from squeezebert.model.config import ModelConfig
from squeezebert.model.heads import HEADS
from squeezebert.tokenizer import Tokenizer

ORDER = ("neutral", "contradiction", "entailment")


def lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line]


def test_info_of_the_published_size(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "info", "base"]) == 0
    printed = capsys.readouterr().out
    assert ["source", "base"] in lines(printed)
    assert ["weights", "random"] in lines(printed)
    # Figures of the paper's model: 51.1 M parameters; 7.40 GFLOP at 128 tokens.
    assert ["total", "51,094,272", "3,699,965,952"] in lines(printed)
    assert ["12", "layers", "26,661,888", "3,699,376,128"] in lines(printed)
    assert printed.splitlines()[-1].startswith("7.40 GFLOP")
    table = printed[printed.index("part ") :].splitlines()[:-2]
    assert len({len(line) for line in table}) == 1


@pytest.mark.parametrize(
    ("head", "parameters"), [("masked_lm", 51_716_928), ("sequence_classification", 51_094_272 + 2 * 769)]
)
def test_info_with_a_head(head: str, parameters: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "info", "base", "--head", head, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cost"][-1]["parameters"] == parameters


def test_info_counts_the_parameters_that_the_model_has(capsys: pytest.CaptureFixture[str]) -> None:
    for head, cls in HEADS.items():
        assert main(["model", "info", "tiny", "--head", head, "--json"]) == 0
        counted = json.loads(capsys.readouterr().out)["cost"][-1]["parameters"]
        assert counted == sum(parameter.numel() for parameter in load("tiny", head).model.parameters()), cls


def test_info_says_what_a_checkpoint_holds_and_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = Tokenizer.from_vocab(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "film"])
    config = small(vocab_size=8, real_vocab_size=6, num_labels=3, id2label=dict(enumerate(ORDER)))
    save(HEADS["sequence_classification"](config), tmp_path / "m", tokenizer=tokenizer)
    assert main(["model", "info", str(tmp_path / "m"), "--json", "--tokens", "7"]) == 0
    facts = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row["multiply_adds"] for row in facts.pop("cost")}
    assert rows["layer: query"] == 7 * 16 * 16 // 4
    assert facts == {
        "source": str(tmp_path / "m"), "weights": "float32", "head": "sequence_classification", "missing": [],
        "unexpected": [], "vocabulary": "6 tokens, 8 rows", "labels": list(ORDER), "tokens": 7,
    }  # fmt: skip
    assert main(["model", "info", str(tmp_path / "m"), "--head", "question_answering"]) == 0
    printed = lines(capsys.readouterr().out)
    assert ["missing", "qa_outputs.weight,", "qa_outputs.bias"] in printed
    assert ["unexpected", "classifier.bias,", "classifier.weight"] in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "none-such"], "none-such: no such folder; give a folder, a hub id (owner/name) or a size name"),
        (["info", "tiny", "--head", "nsp"], "--head nsp: unknown; use one of encoder, "),
        (["info", "tiny", "--tokens", "0"], "--tokens 0: must lie in 1..512"),
        (["info", "tiny", "--tokens", "513"], "--tokens 513: must lie in 1..512"),
        (["convert", "tiny", "OUT"], "tiny: a size name stands for random weights"),
        (["convert", "none-such", "OUT"], "none-such: no such folder"),
        (["convert", "none-such", "OUT", "--data-dir", "glue"], "--data-dir is for --calibrate-labels"),
        (["convert", "M", "OUT", "--calibrate-labels"], "M: no vocabulary, so texts cannot be scored"),
    ],
)
def test_bad_arguments_are_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    save(HEADS["sequence_classification"](small(num_labels=3)), "M")
    assert main(["model", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"squeezebert: {message}")
    assert printed.err.count("\n") == 1
    assert not Path("OUT").exists()


def small(**changes: Any) -> ModelConfig:
    sizes = {"vocab_size": 512, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4}
    return ModelConfig(**{**sizes, "intermediate_size": 32, "max_position_embeddings": 64, **changes})


@pytest.fixture(scope="module")
def nli(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model that knows the built-in pairs by heart, in an order of labels that its config does not tell."""
    torch.manual_seed(0)
    pairs = built_in_pairs()
    tokenizer = Tokenizer.learn(text for pair in pairs for text in (pair.premise, pair.hypothesis))
    config = small(
        vocab_size=-(-tokenizer.vocab_size // 64) * 64, num_labels=3, hidden_dropout_prob=0.0, hidden_size=32
    )
    model = HEADS["sequence_classification"](config).train()
    encodings = tokenizer.encode_batch([pair.premise for pair in pairs], [pair.hypothesis for pair in pairs])
    width = max(len(each.input_ids) for each in encodings)
    ids, types = torch.zeros(2, len(pairs), width, dtype=torch.long)
    for row, each in enumerate(encodings):
        ids[row, : len(each.input_ids)] = torch.tensor(each.input_ids)
        types[row, : len(each.input_ids)] = torch.tensor(each.token_type_ids)
    labels = torch.tensor([ORDER.index(pair.label) for pair in pairs])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(80):
        optimizer.zero_grad()
        model(ids, (ids != 0).long(), types, labels=labels).loss.backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("nli")
    save(model, folder, tokenizer=tokenizer)
    return folder


def test_convert_calibrates_the_labels_on_the_built_in_pairs(
    nli: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load(nli).config.id2label == {}
    assert main(["model", "convert", str(nli), str(tmp_path / "out"), "--calibrate-labels"]) == 0
    assert capsys.readouterr().out.startswith(f"labels: {', '.join(ORDER)} (")
    loaded = load(tmp_path / "out")
    assert loaded.config.labels == ORDER
    assert loaded.tokenizer is not None
    before = load(nli).model.state_dict()
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_convert_calibrates_the_labels_on_mnli(nli: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = "index\tsentence1\tsentence2\tgold_label\n"
    rows = [f"{n}\t{each.premise}\t{each.hypothesis}\t{each.label}\n" for n, each in enumerate(built_in_pairs())]
    (tmp_path / "dev_matched.tsv").write_text(header + "".join(rows))
    arguments = ["model", "convert", str(nli), str(tmp_path / "out"), "--calibrate-labels", "--data-dir", str(tmp_path)]
    assert main(arguments) == 0
    assert f"labels: {', '.join(ORDER)} (" in capsys.readouterr().out
    assert load(tmp_path / "out").config.labels == ORDER


def test_convert_writes_nothing_where_the_order_stays_unclear(
    tmp_path: Path, nli: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(1)
    known = load(nli)
    save(HEADS["sequence_classification"](known.config), tmp_path / "random", tokenizer=known.tokenizer)
    assert main(["model", "convert", str(tmp_path / "random"), str(tmp_path / "out"), "--calibrate-labels"]) == 2
    assert "the order of the labels is unclear on 45 examples" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_convert_to_fp16(nli: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "convert", str(nli), str(tmp_path / "out"), "--dtype", "fp16"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{nli}: float32 weights, head sequence_classification",
        f"{tmp_path / 'out'}: written, fp16",
    ]
    assert load(tmp_path / "out").report.dtype == "float16"
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (nli, tmp_path / "out")]
    assert sizes[1] < 0.6 * sizes[0]
