from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from squeezebert.cli import build_parser
from squeezebert.errors import InputError
from squeezebert.training.settings import FinetuneSettings, describe_fields


def test_every_field_is_followed_by_a_sentence() -> None:
    sentences = describe_fields(FinetuneSettings)
    assert set(sentences) == {field.name for field in dataclasses.fields(FinetuneSettings)}
    assert all(sentence.endswith(".") for sentence in sentences.values())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("warmup_proportion", 1.1),
        ("power", -1.0),
        ("dropout", 1.0),
        ("weight_decay", -0.1),
        ("weight_decay", float("inf")),
        ("clip", float("nan")),
        ("max_length", 4),
        ("patience", -1),
        ("evaluate_every", 0.0),
        ("evaluate_every", float("inf")),
        ("save_every", 0),
        ("accumulation", 9),
        ("seeds", ()),
        ("seeds", (1, 1)),
        ("seeds", (-1,)),
        ("seeds", (1 << 64,)),
        ("seeds", 3),
        ("seeds", "12"),
        ("epochs", 1.5),
        ("epochs", True),
        ("epochs", "3"),
        ("batch_size", None),
        ("learning_rate", "1e-4"),
        ("learning_rate", 10**400),
        ("regression", "yes"),
        ("precision", "fp16"),
        ("device", "cuda:1"),
        ("train", 7),
        ("text_column", 7),
        ("task", "sst2"),
        ("data_dir", Path("glue")),
    ],
)
def test_a_bad_value_is_refused_by_name(settings: Callable[..., Any], field: str, value: object) -> None:
    with pytest.raises(InputError, match=field) as error:
        settings(**{field: value})
    assert "\n" not in str(error.value)


_OF_TABLES = ["dev", "text_column", "pair_column", "label_column", "regression", "multi_label"]


@pytest.mark.parametrize("field", _OF_TABLES)
def test_settings_of_tables_do_not_go_with_a_glue_task(field: str) -> None:
    value = True if field in ("regression", "multi_label") else "x"
    with pytest.raises(InputError, match=f"{field} goes with train"):
        FinetuneSettings(model="tiny", output=Path("out"), task="sst2", **{field: value})  # type: ignore[arg-type]


def test_regression_and_several_labels_exclude_each_other(settings: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match="exclude"):
        settings(regression=True, multi_label=True)


def test_the_command_gives_the_settings_again(settings: Callable[..., Any]) -> None:
    original = settings(seeds=(1, 2), multi_label=True, max_length=64, text_column="the text", precision="bf16")
    words = shlex.split(original.command())
    parsed = vars(build_parser("finetune").parse_args(words[1:]))
    values = {field.name: parsed[field.name] for field in dataclasses.fields(FinetuneSettings)}
    assert FinetuneSettings(**values) == original


def test_data_from_python_give_a_command_of_python() -> None:
    command = FinetuneSettings(model="small", output=Path("out"), epochs=5).command()
    assert command == "squeezebert.Classifier('small').fit(texts, labels, output='out', epochs=5)"


def test_what_decides_the_outcome_is_ready_for_json(settings: Callable[..., Any]) -> None:
    values = settings(seeds=(1, 2), save_every=7, resume=True).to_dict()
    assert values["seeds"] == [1, 2]
    assert values["train"].endswith("train.csv")
    assert not {"output", "resume", "save_every"} & set(values)


def test_usual_columns_say_nothing_against_a_glue_task() -> None:
    settings = FinetuneSettings(model="tiny", output=Path("out"), task="sst2", text_column="text", label_column="label")
    assert settings.task == "sst2"


def test_numbers_of_numpy_become_pythons() -> None:
    settings = FinetuneSettings(
        model=Path("tiny"),  # type: ignore[arg-type]
        output=Path("out"),
        epochs=np.int64(5),  # type: ignore[arg-type]
        learning_rate=np.float32(0.25),  # type: ignore[arg-type]
        dropout=0,
        regression=np.True_,  # type: ignore[arg-type]
        seeds=np.arange(3),  # type: ignore[arg-type]
    )
    assert json.loads(json.dumps(settings.to_dict())) == settings.to_dict()
    assert settings == FinetuneSettings(
        model="tiny", output=Path("out"), epochs=5, learning_rate=0.25, dropout=0.0, regression=True, seeds=(0, 1, 2)
    )
    assert settings.command().endswith("epochs=5, learning_rate=0.25, dropout=0.0, seeds=(0, 1, 2))")


def test_strings_serve_for_paths_and_a_list_for_seeds() -> None:
    settings = FinetuneSettings(model="tiny", output="out", train="a.csv", seeds=[1, 2])  # type: ignore[arg-type]
    assert (settings.output, settings.train, settings.seeds) == (Path("out"), Path("a.csv"), (1, 2))
    assert FinetuneSettings(model="tiny", output="out", seeds=range(3)).seeds == (0, 1, 2)  # type: ignore[arg-type]
