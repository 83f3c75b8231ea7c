from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest

from squeezebert.artifact import Manifest
from squeezebert.errors import InputError
from squeezebert.export import golden as goldens
from squeezebert.export.golden import Golden, Probe
from squeezebert.export.verify import Accuracy, Report, agreements, checks, clock, differences, labels_differ, notes

MANIFEST = Manifest(
    format="onnx",
    precision="int8",
    head="sequence_classification",
    labels=("bad", "good"),
    problem_type="single_label_classification",
    max_position_embeddings=512,
    max_length=None,
    pair=None,
    tolerance=0.1,
)
GOOD = Report(
    executed=True,
    largest_difference=0.1,
    relative_difference=0.05,
    label_agreement=1.0,
    bytes=50,
    fp32_bytes=200,
    latency_ms={"1x32": 1.0, "1x128": 2.0, "8x128": 3.0},
    fp32_latency_ms={"1x32": 2.0, "1x128": 3.0, "8x128": 4.0},
    threads=1,
    machine="",
)


def golden(logits: Any, labels: tuple[str, ...] = ("bad", "good")) -> Golden:
    values = np.array(logits, dtype=np.float32)
    rows = np.ones((len(values), 2), np.int64)
    return Golden([Probe(rows, rows, rows, sentences=False)], [{"logits": values}], labels)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, None),
        ({"relative_difference": 0.11}, "difference: 11.00% of the largest output, where 10.00% is allowed"),
        ({"relative_difference": float("nan")}, "difference: "),
        ({"companions": {"model.ort": 0.1}}, None),
        ({"companions": {"model.ort": 0.11}}, "model.ort: 11.00% of the largest output, where 10.00% is allowed"),
        ({"companions": {"model.ort": float("nan")}}, "model.ort: "),
        ({"bytes": 200}, "size: 0.0 MB, not smaller"),
        ({"latency_ms": {"1x32": 2.5, "1x128": 2.0, "8x128": 3.0}}, None),  # one of three may be slower
        ({"latency_ms": {"1x32": 2.5, "1x128": 3.5, "8x128": 3.0}}, "latency: not faster than fp32 here"),
        ({"latency_ms": {"1x20": 2.5, "8x20": 3.0}, "fp32_latency_ms": {"1x20": 2.0, "8x20": 4.0}}, None),
        ({"latency_ms": {"1x20": 2.5, "8x20": 5.0}, "fp32_latency_ms": {"1x20": 2.0, "8x20": 4.0}}, "latency: "),
        ({"fp32_bytes": None, "fp32_latency_ms": None}, None),
        ({"accuracy": Accuracy(metric="accuracy", rows=9, checkpoint=0.900, artifact=0.898)}, None),
        (
            {"accuracy": Accuracy(metric="accuracy", rows=9, checkpoint=0.900, artifact=0.896)},
            "accuracy: 0.40 points lost on accuracy, 0.3 allowed",
        ),
    ],
)
def test_checks_name_what_is_not_good_enough(changes: dict[str, Any], message: str | None) -> None:
    failed = checks(replace(GOOD, **changes), MANIFEST, 0.3)
    if message is None:
        assert failed == []
    else:
        assert len(failed) == 1
        assert failed[0].startswith(message)


@pytest.mark.parametrize(
    ("precision", "size", "note"),
    [
        ("int8", 57, None),  # 200 / 57 = 3.509
        ("int8", 58, "size: 3.45 times smaller than fp32, where int8 is meant to be 3.5 times"),
        ("fp16", 105, None),  # 200 / 105 = 1.905
        ("fp16", 106, "size: 1.89 times smaller than fp32, where fp16 is meant to be 1.9 times"),
        ("fp32", 200, None),
    ],
)
def test_a_size_that_falls_short_is_noted(precision: str, size: int, note: str | None) -> None:
    found = replace(GOOD, bytes=size, fp32_bytes=None if precision == "fp32" else 200)
    assert notes(found, replace(MANIFEST, precision=precision)) == ([] if note is None else [note])
    if note is not None:
        noted = replace(found, notes=(note,))
        assert f"note        {note}" in noted.describe()
        assert noted.to_dict()["notes"] == [note]


def test_fp32_may_be_as_slow_as_it_likes() -> None:
    slow = replace(GOOD, latency_ms=dict.fromkeys(GOOD.latency_ms, 99.0))
    assert checks(slow, replace(MANIFEST, precision="fp32"), 0.3) == []


@pytest.mark.parametrize(
    ("want", "got", "largest", "relative"),
    [
        ([[1.0, -4.0]], [[1.5, -4.0]], 0.5, 0.125),
        ([[1.0, -np.inf]], [[0.5, -np.inf]], 0.5, 0.5),
        ([[1.0, -np.inf]], [[1.0, -9.0]], np.inf, np.inf),
        ([[1.0, -4.0]], [[1.0, np.nan]], np.inf, np.inf),
    ],
)
def test_differences(want: Any, got: Any, largest: float, relative: float) -> None:
    assert differences(golden(want), [{"logits": np.array(got, np.float32)}]) == (largest, relative)


def test_agreement_goes_by_name() -> None:
    want = golden([[0.0, 4.0], [4.0, 0.0], [1.0, 1.1]])
    same = list(want.outputs)
    assert agreements(MANIFEST, want, same) == (1.0, 1.0)
    swapped = replace(MANIFEST, labels=("good", "bad"))
    assert agreements(swapped, want, same) == (0.0, 0.0)
    assert labels_differ(swapped, want) == ["labels: good, bad, where the checkpoint has bad, good"]
    # The last row is decided by less than the tolerance: it may turn.
    turned = [{"logits": np.array([[0.0, 4.0], [4.0, 0.0], [1.1, 1.0]], np.float32)}]
    assert agreements(MANIFEST, want, turned) == (2 / 3, 1.0)
    # Of another number of labels there is nothing to compare; the check of labels says so.
    fewer = replace(MANIFEST, labels=("bad",))
    assert agreements(fewer, want, same) == (None, None)
    assert len(labels_differ(fewer, want)) == 1
    three = replace(MANIFEST, problem_type="multi_label_classification")
    assert agreements(three, want, [{"logits": np.zeros((3, 3), np.float32)}]) == (None, None)


def test_clock_times_models_in_turns() -> None:
    calls: list[tuple[int, tuple[int, ...]]] = []

    def model(number: int) -> Any:
        def run(ids: Any, mask: Any, types: Any) -> dict[str, Any]:
            assert 0 <= ids.min() <= ids.max() < 50
            calls.append((number, ids.shape))
            return {}

        return run

    first, second = clock([model(0), model(1)], max_length=100, known_ids=50)
    assert list(first) == list(second) == ["1x32", "1x100", "8x100"]
    assert [number for number, _ in calls] == [0, 1] * (len(calls) // 2)
    calls.clear()
    assert list(clock([model(0)], max_length=20, known_ids=50)[0]) == ["1x20", "8x20"]
    assert [shape for _, shape in calls] == sorted((shape for _, shape in calls), key=lambda shape: shape[0])


def test_probes_spread_over_lengths_batches_and_paddings() -> None:
    probes = goldens.probes(None, vocab_size=50, max_length=512, pair=False)
    assert [probe.ids.shape for probe in probes] == [(1, 1), (1, 2), (1, 31), (1, 128), (1, 512), (3, 31), (8, 128)]
    for probe in probes:
        assert probe.ids.max() < 50
        np.testing.assert_array_equal(np.sort(probe.mask)[:, ::-1], probe.mask)  # padding at the end
    short = goldens.probes(None, vocab_size=50, max_length=16, pair=False)
    assert max(probe.ids.shape[1] for probe in short) == 16


def test_golden_outputs_come_back_as_they_were(tmp_path: Path) -> None:
    probes = goldens.probes(None, vocab_size=50, max_length=64, pair=False)

    def run(ids: Any, mask: Any, types: Any) -> dict[str, Any]:
        tokens = np.stack([ids, types], axis=-1).astype(np.float32)
        return {"last_hidden_state": tokens, "pooled": ids[:, :1].astype(np.float32)}

    want = goldens.record(probes, run, ("ä", "b"))
    goldens.save(want, tmp_path)
    got = goldens.load(tmp_path)
    assert got.labels == ("ä", "b")
    for mine, theirs, probe in zip(got.outputs, want.outputs, got.probes, strict=True):
        np.testing.assert_array_equal(mine["last_hidden_state"], theirs["last_hidden_state"])
        last = probe.ids[np.arange(len(probe.ids)), probe.mask.sum(axis=1) - 1]
        np.testing.assert_array_equal(mine["last_hidden_state"][:, 2, 0], last)
    whole = (tmp_path / "golden.npz").read_bytes()
    np.savez(tmp_path / "empty.npz", labels=np.array(["a"]))
    np.save(tmp_path / "array.npy", np.zeros(3))
    flipped = bytearray(whole)
    with ZipFile(tmp_path / "golden.npz") as file:
        start = file.infolist()[1].header_offset
    data = start + 30 + int.from_bytes(whole[start + 26 : start + 28], "little") + whole[start + 28]
    flipped[data] ^= 0xFF  # of the compressed stream, the first byte
    others = [(tmp_path / name).read_bytes() for name in ("empty.npz", "array.npy")]
    for content in (b"PK no", b"", whole[:200], bytes(flipped), *others):
        (tmp_path / "golden.npz").write_bytes(content)
        with pytest.raises(InputError, match="damaged"):
            goldens.load(tmp_path)


def test_wide_outputs_are_thinned() -> None:
    mask = np.ones((2, 5), np.int64)
    parts = goldens.kept({"logits": np.zeros((2, 5, 30522), np.float32)}, mask)
    assert parts["logits"].shape == (2, 3, 509)
