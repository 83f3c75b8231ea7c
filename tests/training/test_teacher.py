from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from squeezebert import checkpoint
from squeezebert.data.examples import Example
from squeezebert.errors import InputError
from squeezebert.training import teacher_cache
from squeezebert.training.teacher import Reader, Teacher
from squeezebert.training.teacher_cache import teacher_logits

from .teachers import save_roberta

TEXTS = ["a great film", "dull", "the plot is not so good and who was it", "how moving", "what", "so long, the film"]
EXAMPLES = [Example(text) for text in TEXTS]
PAIRS = [Example(text, "why " * number) for number, text in enumerate(TEXTS, start=1)]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(save_roberta(tmp_path_factory.mktemp("roberta"), TEXTS))


def _expected(folder: Path, examples: Sequence[Example], max_length: int = 64) -> NDArray[np.float32]:
    """One text at a time, by transformers alone."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder))
    model = transformers.AutoModelForSequenceClassification.from_pretrained(str(folder)).eval()
    rows = []
    for example in examples:
        encoded = tokenizer(
            example.text, example.pair, truncation=True, max_length=max_length, return_tensors="pt",
        )  # fmt: skip
        with torch.inference_mode():
            rows.append(model(**encoded).logits[0].numpy())
    return np.array(rows)


class _Counted:
    """Counts the texts that a teacher reads; may die after some batches."""

    def __init__(self, reader: Reader, dies_after: int | None = None) -> None:
        self._reader = reader
        self._left = dies_after
        self.texts = 0

    def lengths(self, examples: Sequence[Example]) -> NDArray[np.int64]:
        return self._reader.lengths(examples)

    def logits(self, examples: Sequence[Example]) -> NDArray[np.float32]:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise KeyboardInterrupt
        self.texts += len(examples)
        return self._reader.logits(examples)


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[_Counted]]:
    """A function after which teachers are counted; it gives the list of those loaded."""
    load = Teacher.load

    def start(dies_after: int | None = None) -> list[_Counted]:
        loaded: list[_Counted] = []

        def counted(self: Teacher, device: torch.device, max_length: int) -> Reader:
            loaded.append(_Counted(load(self, device, max_length), dies_after))
            return loaded[-1]

        monkeypatch.setattr(Teacher, "load", counted)
        return loaded

    return start


@pytest.mark.parametrize("examples", [EXAMPLES, PAIRS], ids=["texts", "pairs"])
def test_outputs_of_another_architecture_and_vocabulary(
    roberta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, examples: list[Example]
) -> None:
    # Batches of a few texts, so that order and padding matter.
    monkeypatch.setitem(teacher_cache._TOKENS, "cpu", 40)
    teacher = Teacher.open(str(roberta))
    assert teacher.labels == ("negative", "positive")
    logits = teacher_logits(teacher, examples, max_length=512, device=CPU, folder=tmp_path)
    expected = _expected(roberta, examples)
    assert np.ptp(expected[:, 0]) > 0.1  # else a wrong order would go unnoticed
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert isinstance(logits, np.memmap)


def _other(kind: str, tokens: int) -> Any:
    import transformers

    sizes = {"vocab_size": tokens, "n_layer": 1, "n_head": 2, "initializer_range": 0.5}
    if kind == "xlnet":
        return transformers.XLNetForSequenceClassification(
            transformers.XLNetConfig(**sizes, d_model=16, d_inner=16, pad_token_id=1)
        )
    return transformers.GPT2ForSequenceClassification(
        transformers.GPT2Config(**sizes, n_embd=16, n_positions=64, bos_token_id=0, eos_token_id=2)
    )


@pytest.mark.parametrize("kind", ["xlnet", "gpt2"])
def test_outputs_of_stranger_kinds(roberta: Path, tmp_path: Path, kind: str) -> None:
    # One has no longest text and pads in front, the other is a decoder whose configuration names no padding token.
    folder = tmp_path / kind
    shutil.copytree(roberta, folder)
    told = json.loads((folder / "tokenizer_config.json").read_text())
    told["padding_side"] = "left" if kind == "xlnet" else "right"
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    torch.manual_seed(0)
    _other(kind, json.loads((roberta / "config.json").read_text())["vocab_size"]).eval().save_pretrained(folder)
    logits = teacher_logits(Teacher.open(str(folder)), EXAMPLES, max_length=512, device=CPU, folder=tmp_path)
    np.testing.assert_allclose(logits, _expected(folder, EXAMPLES), atol=1e-5)
    assert np.ptp(logits[:, 0]) > 0.1


def test_outputs_of_one_of_ours(save_classifier: Callable[..., Path], tmp_path: Path) -> None:
    folder = save_classifier(("x", "y", "z"))
    loaded = checkpoint.load(folder)
    logits = teacher_logits(Teacher.open(str(folder)), PAIRS, max_length=512, device=CPU, folder=tmp_path)
    for example, row in zip(PAIRS, logits, strict=True):
        encoding = loaded.tokenizer.encode(example.text, example.pair)  # type: ignore[union-attr]
        output = loaded.model(torch.tensor([encoding.input_ids]), None, torch.tensor([encoding.token_type_ids]))
        np.testing.assert_allclose(row, output.logits[0].detach().numpy(), atol=1e-5)


def test_a_model_of_the_package_is_a_teacher(tmp_path: Path) -> None:
    # Stored in int8, as the native engine's exports are.
    teacher = Teacher.open("small-sst2")
    assert teacher.labels == ("negative", "positive")
    films = [Example("a gripping, beautifully shot film"), Example("dull, endless and flat")]
    logits = teacher_logits(teacher, films, max_length=32, device=CPU, folder=tmp_path)
    assert logits.argmax(1).tolist() == [1, 0]


def test_texts_are_cut(roberta: Path, tmp_path: Path) -> None:
    long = [Example("a great film " * 100), Example("dull " * 100)]
    teacher = Teacher.open(str(roberta))
    short = teacher_logits(teacher, long, max_length=12, device=CPU, folder=tmp_path)
    np.testing.assert_allclose(short, _expected(roberta, long, 12), atol=1e-5)
    # Asked for more than the teacher takes, it reads what it can.
    longest = teacher_logits(teacher, long, max_length=512, device=CPU, folder=tmp_path)
    np.testing.assert_allclose(longest, _expected(roberta, long, 64), atol=1e-5)
    # Its tokenizer need not say so: of the 66 positions, two stand for padding.
    silent = tmp_path / "silent"
    shutil.copytree(roberta, silent)
    told = json.loads((silent / "tokenizer_config.json").read_text())
    del told["model_max_length"]
    (silent / "tokenizer_config.json").write_text(json.dumps(told))
    longest = teacher_logits(Teacher.open(str(silent)), long, max_length=512, device=CPU, folder=tmp_path)
    np.testing.assert_allclose(longest, _expected(roberta, long, 64), atol=1e-5)


def test_a_second_pass_costs_nothing(roberta: Path, tmp_path: Path, count: Callable[..., list[_Counted]]) -> None:
    loaded = count()
    first = teacher_logits(Teacher.open(str(roberta)), EXAMPLES, max_length=32, device=CPU, folder=tmp_path)
    second = teacher_logits(Teacher.open(str(roberta)), EXAMPLES, max_length=32, device=CPU, folder=tmp_path)
    # Labels do not matter to a teacher, nor do other files in its folder.
    (roberta / "README.md").write_text("# mine")
    labelled = [Example(each.text, label=1) for each in EXAMPLES]
    third = teacher_logits(Teacher.open(str(roberta)), labelled, max_length=32, device=CPU, folder=tmp_path)
    assert [each.texts for each in loaded] == [len(TEXTS)]
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, third)


def test_any_change_computes_anew(roberta: Path, tmp_path: Path, count: Callable[..., list[_Counted]]) -> None:
    loaded = count()
    cache = tmp_path / "cache"

    def ask(folder: Path, examples: Sequence[Example] = EXAMPLES, max_length: int = 32) -> None:
        teacher_logits(Teacher.open(str(folder)), examples, max_length=max_length, device=CPU, folder=cache)

    ask(roberta)
    ask(roberta, max_length=31)
    ask(roberta, EXAMPLES[::-1])
    ask(roberta, [*EXAMPLES[:-1], Example("so long, the films")])
    ask(roberta, [Example(each.text, "") for each in EXAMPLES])
    # What two texts are must not be a matter of where one ends.
    ask(roberta, [Example("ab", "c")])
    ask(roberta, [Example("a", "bc")])
    assert len(loaded) == 7
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        copy = tmp_path / name
        shutil.copytree(roberta, copy)
        data = (copy / name).read_bytes()
        if name == "config.json":
            data = json.dumps(json.loads(data) | {"layer_norm_eps": 1e-3}).encode()
        elif name == "tokenizer.json":
            data = json.dumps(json.loads(data)).encode()
        else:
            data = data[:-1] + bytes([data[-1] ^ 1])
        (copy / name).write_bytes(data)
        ask(copy)
    assert len(loaded) == 10


def test_a_stopped_pass_goes_on(
    roberta: Path, tmp_path: Path, count: Callable[..., list[_Counted]], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setitem(teacher_cache._TOKENS, "cpu", 30)
    teacher = Teacher.open(str(roberta))
    whole = teacher_logits(teacher, EXAMPLES, max_length=32, device=CPU, folder=tmp_path / "whole")
    stopped = count(dies_after=2)
    with pytest.raises(KeyboardInterrupt):
        teacher_logits(teacher, EXAMPLES, max_length=32, device=CPU, folder=tmp_path)
    assert 0 < stopped[0].texts < len(TEXTS)
    # A kill may also cut a row short.
    (partial,) = tmp_path.glob("*.part")
    with partial.open("ab") as file:
        file.write(b"\x01\x02\x03")
    resumed = count()
    np.testing.assert_allclose(
        teacher_logits(teacher, EXAMPLES, max_length=32, device=CPU, folder=tmp_path), whole, atol=1e-6
    )
    assert stopped[0].texts + resumed[0].texts == len(TEXTS)
    assert f"{stopped[0].texts} kept" in capsys.readouterr().err
    assert not [*tmp_path.glob("*.part")]


def test_a_damaged_file_is_computed_again(
    roberta: Path, tmp_path: Path, count: Callable[..., list[_Counted]]
) -> None:  # fmt: skip
    teacher = Teacher.open(str(roberta))
    whole = np.array(teacher_logits(teacher, EXAMPLES, max_length=32, device=CPU, folder=tmp_path))
    (file,) = tmp_path.glob("*.npy")
    file.write_bytes(file.read_bytes()[:-4])
    loaded = count()
    np.testing.assert_allclose(
        teacher_logits(teacher, EXAMPLES, max_length=32, device=CPU, folder=tmp_path), whole, atol=1e-6
    )
    assert len(loaded) == 1


def test_what_cannot_teach_is_refused(roberta: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="random:small: a size name stands for random weights"):
        Teacher.open("random:small")
    with pytest.raises(InputError, match=r"no config\.json"):
        Teacher.open(str(tmp_path))
    headless = tmp_path / "headless"
    shutil.copytree(roberta, headless)
    import transformers

    model = transformers.RobertaModel.from_pretrained(str(roberta), add_pooling_layer=False)
    model.save_pretrained(headless)
    with pytest.raises(InputError, match="no trained classifier"):
        teacher_logits(Teacher.open(str(headless)), EXAMPLES, max_length=32, device=CPU, folder=tmp_path / "cache")
    broken = tmp_path / "broken"
    shutil.copytree(roberta, broken)
    (broken / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match="transformers cannot load it"):
        teacher_logits(Teacher.open(str(broken)), EXAMPLES, max_length=32, device=CPU, folder=tmp_path / "cache")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (["id2label"], "must hold a JSON object"),
        ({"id2label": ["no", "yes"]}, "id2label must map each output to its name"),
        ({"id2label": {"no": 0, "yes": 1}}, "id2label must map each output to its name"),
        ({"num_labels": "3"}, "num_labels must be a whole number, not '3'"),
        ({"num_labels": 3, "id2label": {"0": "no", "1": "yes"}}, "num_labels is 3, but id2label names 2"),
    ],
)
def test_a_configuration_that_is_none_is_refused(tmp_path: Path, config: Any, message: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=rf"config\.json: {message}"):
        Teacher.open(str(tmp_path))


def test_labels_without_names_are_numbered(tmp_path: Path) -> None:
    for config, labels in (({"num_labels": 3}, 3), ({}, 2), ({"id2label": {"1": "LABEL_1", "0": "LABEL_0"}}, 2)):
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert Teacher.open(str(tmp_path)).labels == tuple(f"LABEL_{index}" for index in range(labels))


def test_outputs_that_are_not_finite_are_refused(roberta: Path, tmp_path: Path, monkeypatch: Any) -> None:
    class Broken:
        def lengths(self, examples: Sequence[Example]) -> NDArray[np.int64]:
            return np.ones(len(examples), int)

        def logits(self, examples: Sequence[Example]) -> NDArray[np.float32]:
            return np.full((len(examples), 2), np.nan, np.float32)

    monkeypatch.setattr(Teacher, "load", lambda *_: Broken())
    with pytest.raises(InputError, match="not all finite"):
        teacher_logits(Teacher.open(str(roberta)), EXAMPLES, max_length=32, device=CPU, folder=tmp_path)
