from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from squeezebert.data.examples import Example
from squeezebert.data.tables import derive_task
from squeezebert.errors import InputError
from squeezebert.training.labelled import hold_out, read_labelled_data
from squeezebert.training.settings import FinetuneSettings


def _task(kind: Any = "single_label") -> Any:
    return derive_task([("0", "row 1"), ("1", "row 2"), ("0", "row 3")], name="mine", kind=kind)


def test_a_tenth_of_each_class_is_held_out_always_the_same() -> None:
    examples = [Example(str(number), None, int(number >= 80)) for number in range(100)]
    data = hold_out(_task(), examples, "mine")
    held = data.dev["held_out"]
    assert Counter(example.label for example in held) == {0: 8, 1: 2}
    assert sorted([*data.train, *held], key=lambda example: int(example.text)) == examples
    assert hold_out(_task(), examples, "mine").dev == data.dev
    assert any("10 rows" in note for note in data.notes)


def test_no_class_leaves_the_training_data() -> None:
    examples = [Example(str(number), None, int(number == 0)) for number in range(21)]
    data = hold_out(_task(), examples, "mine")
    assert {example.label for example in data.train} == {0, 1}


def test_values_are_held_out_without_classes() -> None:
    examples = [Example(str(number), None, float(number)) for number in range(40)]
    assert len(hold_out(_task("regression"), examples, "mine").dev["held_out"]) == 4


@pytest.mark.parametrize("rows", [1, 8])
def test_too_few_texts_to_hold_out_any(rows: int) -> None:
    with pytest.raises(InputError, match="mine: too few different texts"):
        hold_out(_task(), [Example("a", None, 0), Example("b", None, 1)] * rows, "mine")


def _texts(examples: list[Example]) -> set[tuple[str, str | None]]:
    return {(example.text, example.pair) for example in examples}


@pytest.mark.parametrize("kind", ["single_label", "regression"])
def test_no_text_is_on_both_sides(kind: Any) -> None:
    # 40 texts of three rows each; every third text is the same but for its pair.
    examples = [Example(str(number % 40 // 3), str(number % 40), number % 40 % 2) for number in range(120)]
    data = hold_out(_task(kind), examples, "mine")
    assert not _texts(data.train) & _texts(data.dev["held_out"])
    assert len(data.dev["held_out"]) == 12
    assert Counter(example.text for example in [*data.train, *data.dev["held_out"]]) == Counter(
        example.text for example in examples
    )


def test_texts_of_several_classes_stay_in_training() -> None:
    examples = [Example(str(number // 2), None, number % 2) for number in range(40)]
    examples += [Example(f"clear {number}", None, number % 2) for number in range(4)]
    held = hold_out(_task(), examples, "mine").dev["held_out"]
    assert len(held) == 2
    assert all(example.text.startswith("clear") for example in held)


def test_dev_rows_that_occur_in_training_are_counted(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,pair,label\na,1,x\nb,1,y\nb,2,x\n")
    (tmp_path / "dev.csv").write_text("text,pair,label\na,1,y\na,2,x\nb,2,x\nb,2,x\n")

    def notes(dev: str) -> tuple[str, ...]:
        settings = FinetuneSettings(
            model="tiny", output=tmp_path, train=tmp_path / "train.csv", dev=tmp_path / dev, pair_column="pair"
        )
        return read_labelled_data(settings).notes

    assert any("3 rows also occur in train" in note for note in notes("dev.csv"))
    (tmp_path / "other.csv").write_text("text,pair,label\na,2,x\n")
    assert notes("other.csv") == (f"train: {tmp_path}/train.csv, 3 rows", f"dev: {tmp_path}/other.csv, 1 rows")


def test_no_data_at_all() -> None:
    with pytest.raises(InputError, match=r"give task.* or train"):
        read_labelled_data(FinetuneSettings(model="tiny", output=Path("out")))


def test_mnli_is_scored_on_both_of_its_dev_sets(shared_data: Path) -> None:
    settings = FinetuneSettings(model="tiny", output=Path("out"), task="MNLI", data_dir=shared_data / "glue")
    data = read_labelled_data(settings)
    assert list(data.dev) == ["validation", "validation_mismatched"]
    assert (len(data.train), *map(len, data.dev.values())) == (19_734, 4_908, 4_916)
    assert any("19,734 of 392,702" in note for note in data.notes)


def test_dev_labels_must_be_known_from_training(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\na,x\nb,y\n")
    (tmp_path / "dev.csv").write_text("text,label\na,x\nb,z\n")
    settings = FinetuneSettings(
        model="tiny", output=tmp_path / "out", train=tmp_path / "train.csv", dev=tmp_path / "dev.csv"
    )
    with pytest.raises(InputError, match=r"dev\.csv:3: label 'z'"):
        read_labelled_data(settings)
