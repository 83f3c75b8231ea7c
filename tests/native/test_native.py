from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from squeezebert import Classifier, artifact, checkpoint
from squeezebert.errors import InputError
from squeezebert.export.native import export
from squeezebert.runtime.engines import native
from squeezebert.runtime.engines.native import NativeEngine, instruction_sets
from squeezebert.runtime.engines.reference import ReferenceEngine, ReferenceModel
from squeezebert.runtime.predictor import Predictor

LENGTHS = np.array([1, 2, 3, 5, 15, 17, 31, 33, 127])
UNEQUAL = {"q_groups": 2, "k_groups": 2, "v_groups": 2, "post_attention_groups": 2, "output_groups": 1}


def tokens(vocabulary: int = 2048) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    draw = np.random.default_rng(0)
    return draw.integers(0, vocabulary, LENGTHS.sum()), draw.integers(0, 2, LENGTHS.sum())


def relative(got: Any, want: Any) -> float:
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


@pytest.mark.parametrize(
    "changes", [{}, UNEQUAL, {"hidden_act": "silu"}, {"hidden_size": 96, "intermediate_size": 192}]
)
def test_equals_numpy_reference(save_checkpoint: Callable[..., Path], tmp_path: Path, changes: dict[str, Any]) -> None:
    export(save_checkpoint(**changes), tmp_path / "artifact")
    reference = ReferenceModel.load(tmp_path / "artifact")
    ids, types = tokens()
    results = {
        name: NativeEngine.load(tmp_path / "artifact", threads=2, instruction_set=name).run_ragged(
            ids, types, LENGTHS, logits=True, pooled=True, hidden=True, mean=True
        )
        for name in instruction_sets()
    }
    first = next(iter(results.values()))
    for name, result in results.items():
        for output, values in result.items():
            np.testing.assert_array_equal(values, first[output], err_msg=f"{name}, {output}")
    start = 0
    for row, length in enumerate(LENGTHS):
        part = slice(start, start + length)
        want = reference.run(ids[part], types[part])
        # A value on the border between two levels may fall to either side: 1 of 127 at the most, in few places.
        assert relative(first["hidden"][part], want["hidden"]) < 2e-3
        apart = first["pooled"][row] - want["pooled"]
        assert np.abs(apart).max() < 1e-2
        bound = np.linalg.norm(reference.tensors["classifier.weight"], axis=1) * np.linalg.norm(apart) + 1e-5
        assert (np.abs(first["logits"][row] - want["logits"]) <= bound).all()
        np.testing.assert_allclose(first["mean"][row], first["hidden"][part].mean(axis=0), atol=1e-5)
        start += length


def test_close_to_torch(save_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder = save_checkpoint()
    export(folder, tmp_path / "artifact")
    model = checkpoint.load(folder).model
    ids, types = tokens()
    result = NativeEngine.load(tmp_path / "artifact").run_ragged(ids, types, LENGTHS, hidden=True)["hidden"]
    start = 0
    with torch.inference_mode():
        for length in LENGTHS:
            part = slice(start, start + length)
            want = model.transformer(torch.tensor(ids[None, part]), None, torch.tensor(types[None, part]))
            # Two layers of int8: each step is at most max / 254, about 0.6 % of a block's usual size.
            assert relative(result[part], want.last_hidden_state[0].numpy()) < 0.03
            start += length


def test_outlier_channel(save_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder = save_checkpoint()
    loaded = checkpoint.load(folder)
    with torch.no_grad():
        for layer in loaded.model.transformer.layers:
            layer.attention_norm.weight[5] *= 100
            layer.feed_forward_norm.weight[5] *= 100
    checkpoint.save(loaded.model, folder)
    export(folder, tmp_path / "artifact")
    ids, types = tokens()
    engine = NativeEngine.load(tmp_path / "artifact")
    got = engine.run_ragged(ids[:17], types[:17], np.array([17]), hidden=True)["hidden"]
    with torch.inference_mode():
        output = loaded.model.transformer(torch.tensor(ids[None, :17]), None, torch.tensor(types[None, :17]))
    want = output.last_hidden_state[0].numpy()
    others = np.arange(want.shape[1]) != 5
    assert relative(got[:, others], want[:, others]) < 0.05


def test_token_classification(save_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder = save_checkpoint("token_classification", num_labels=5)
    export(folder, tmp_path / "artifact")
    ids, _ = tokens()
    engine = NativeEngine.load(tmp_path / "artifact")
    got = engine.run_ragged(ids[:20], None, np.array([3, 17]), logits=True)["logits"]
    with torch.inference_mode():
        want = checkpoint.load(folder, "token_classification").model(torch.tensor(ids[None, 3:20])).logits[0].numpy()
    assert got.shape == (20, 5)
    assert relative(got[3:], want) < 0.05
    with pytest.raises(InputError, match="no pooler"):
        engine.run_ragged(ids[:3], None, np.array([3]), pooled=True)


def test_threads_of_python(save_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    export(save_checkpoint(), tmp_path / "artifact")
    engine = NativeEngine.load(tmp_path / "artifact", threads=2)
    ids, types = tokens()
    want = engine.run_ragged(ids, types, LENGTHS, logits=True)["logits"]
    with ThreadPoolExecutor(8) as pool:
        for result in pool.map(lambda _: engine.run_ragged(ids, types, LENGTHS, logits=True)["logits"], range(64)):
            np.testing.assert_array_equal(result, want)


def test_manifest(save_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    export(
        save_checkpoint(num_labels=2, id2label={0: "bad", 1: "good"}, problem_type="single_label_classification"),
        tmp_path / "artifact",
    )
    assert artifact.is_artifact(tmp_path / "artifact")
    engine = NativeEngine.load(tmp_path / "artifact")
    assert (engine.labels, engine.kind) == (("bad", "good"), "single_label")
    assert (engine.max_length, engine.default_length, engine.pair) == (512, 64, False)


def test_bad_input(save_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    export(save_checkpoint(), tmp_path / "artifact")
    engine = NativeEngine.load(tmp_path / "artifact")
    one = np.array([1])
    for ids, lengths, message in (
        (np.array([2048]), one, "id 2048 is outside the vocabulary"),
        (np.array([2**40]), one, "outside the vocabulary"),
        (np.array([5]), np.array([0]), "lengths add up to 0"),
        (np.array([5]), np.array([2]), "lengths add up to 2"),
        (np.arange(5), np.array([9, -4]), "a sequence has -4 tokens"),
        (np.zeros(513, int), np.array([513]), "the model takes 1 to 512"),
        (np.zeros(10**6, int), np.array([10**6]), "has 1000000 tokens; the model takes 1 to 512"),
        (np.array([0.5]), one, "whole numbers"),
    ):
        with pytest.raises(InputError, match=message):
            engine.run_ragged(ids, None, lengths, logits=True)
    with pytest.raises(InputError, match="2 token ids, but 1 segments"):
        engine.run_ragged(np.array([5, 6]), one, np.array([2]), logits=True)
    with pytest.raises(InputError, match="segment 2"):
        engine.run_ragged(np.array([5]), np.array([2]), one, logits=True)
    with pytest.raises(InputError, match="cannot run here"):
        NativeEngine.load(tmp_path / "artifact", instruction_set="mmx")
    (tmp_path / "artifact" / "model.safetensors").unlink()
    with pytest.raises(InputError, match="no such file"):
        NativeEngine.load(tmp_path / "artifact")


@pytest.mark.parametrize(
    ("kind", "labels"),
    [("multi_label_classification", 4), ("regression", 1), ("single_label_classification", 3)],
)
def test_sequence_heads_and_pairs_through_the_predictor(
    save_classifier: Callable[..., Path], tmp_path: Path, kind: str, labels: int
) -> None:
    folder = save_classifier(tuple("abcd"[:labels]), problem_type=kind)
    export(folder, tmp_path / "artifact")
    rows = [("a great film", None), ("dull", "so moving and good"), ("not bad but long , how long", "what")]
    exact = Predictor.load(folder, engine="torch")
    want = np.stack(list(exact.logits(rows)))
    for predictor in (Predictor.load(tmp_path / "artifact"), Predictor.load(folder, engine="native")):
        assert predictor.engine.kind == exact.engine.kind
        got = np.stack(list(predictor.logits(rows)))
        assert got.shape == (3, labels)
        assert relative(got, want) < 0.05  # two layers of int8, as in test_close_to_torch, and a pooler
        assert relative(got[1], want[2]) > 0.05  # the comparison tells rows apart


def test_embeddings(save_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder = save_checkpoint("encoder")
    export(folder, tmp_path / "artifact")
    model = checkpoint.load(folder, "encoder").model
    ids, _ = tokens()
    got = NativeEngine.load(tmp_path / "artifact").run_ragged(
        ids[:20], None, np.array([3, 17]), pooled=True, mean=True, hidden=True
    )
    with torch.inference_mode():
        for row, part in enumerate((slice(0, 3), slice(3, 20))):
            want = model(torch.tensor(ids[None, part]))
            states = want.last_hidden_state[0].numpy()
            assert relative(got["hidden"][part][0], states[0]) < 0.03  # CLS
            assert relative(got["mean"][row], states.mean(axis=0)) < 0.03
            assert relative(got["pooled"][row], want.pooled[0].numpy()) < 0.05


@pytest.mark.parametrize("head", ["masked_lm", "pretraining"])
def test_masked_language_model(save_checkpoint: Callable[..., Path], tmp_path: Path, head: str) -> None:
    folder = save_checkpoint(head, real_vocab_size=2041)
    export(folder, tmp_path / "artifact")
    ids, _ = tokens(2041)
    gaps = [0, 7, 30]
    got = NativeEngine.load(tmp_path / "artifact", threads=2).masked_logits(ids[:31].tolist(), gaps)
    assert got.shape == (3, 2048)
    assert np.isneginf(got[:, 2041:]).all()
    oracle = ReferenceModel.load(tmp_path / "artifact").run(ids[:31], gaps_M=gaps)["vocabulary"]
    assert relative(got[:, :2041], oracle[:, :2041]) < 2e-3  # as the hidden states of test_equals_numpy_reference
    assert np.isneginf(oracle[:, 2041:]).all()
    with torch.inference_mode():
        model = checkpoint.load(folder, "masked_lm").model
        want = model(torch.tensor(ids[None, :31]), masked_positions=torch.tensor(gaps)).logits.numpy()
    assert relative(got[:, :2041], want[:, :2041]) < 0.05
    for wrong, message in ((31, "outside the batch of 31 tokens"), (-1, "position -1")):
        with pytest.raises(InputError, match=message):
            NativeEngine.load(tmp_path / "artifact").masked_logits(ids[:31].tolist(), [wrong])
    assert ("pooler.dense.weight" in ReferenceModel.load(tmp_path / "artifact").tensors) == (head == "pretraining")


def test_a_checkpoint_in_memory_equals_its_artifact(save_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder = save_checkpoint()
    export(folder, tmp_path / "artifact")
    ids, types = tokens()
    results = [
        engine.run_ragged(ids, types, LENGTHS, logits=True)["logits"]
        for engine in (NativeEngine.load(tmp_path / "artifact"), NativeEngine.from_checkpoint(folder))
    ]
    np.testing.assert_array_equal(*results)


def test_pytorch_files_are_quantised_too(save_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder = save_checkpoint()
    want = NativeEngine.from_checkpoint(folder).run_ragged(np.array([5, 6]), None, np.array([2]), logits=True)
    torch.save(checkpoint.read_weights(folder), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    got = NativeEngine.from_checkpoint(folder).run_ragged(np.array([5, 6]), None, np.array([2]), logits=True)
    np.testing.assert_array_equal(got["logits"], want["logits"])


def test_numpy_stands_in_for_the_engine(save_classifier: Callable[..., Path], tmp_path: Path) -> None:
    folder = save_classifier()
    rows = [("a great film", None), ("dull", None)]
    want = np.stack(list(Predictor.load(folder, engine="native").logits(rows)))
    engine = ReferenceEngine.from_checkpoint(folder, "sequence_classification")
    assert engine.tokenizer is not None
    got = np.stack(list(Predictor(engine, engine.tokenizer).logits(rows)))
    assert relative(got, want) < 1e-2


def test_saving_writes_the_checkpoint_or_the_artifact(save_classifier: Callable[..., Path], tmp_path: Path) -> None:
    folder = save_classifier()
    Classifier.load(folder, engine="native").save(tmp_path / "copy")
    want, got = (checkpoint.load(each).model.state_dict() for each in (folder, tmp_path / "copy"))
    assert all(torch.equal(got[name], value) for name, value in want.items())
    export(folder, tmp_path / "artifact")
    Classifier.load(tmp_path / "artifact").save(tmp_path / "exported")
    assert artifact.read_manifest(tmp_path / "exported") == artifact.read_manifest(tmp_path / "artifact")
    exported = Classifier.load(tmp_path / "exported")
    export(save_classifier(("x", "y")), tmp_path / "exported")
    with pytest.raises(InputError, match="was changed since the model was loaded"):
        exported.save(tmp_path / "again")
    classifier = Classifier.load(tmp_path / "copy", engine="native")
    checkpoint.save(checkpoint.load(folder, num_labels=3, require_head=False).model, tmp_path / "copy")
    with pytest.raises(InputError, match="was changed since the model was loaded"):
        classifier.save(tmp_path / "again")


def test_a_library_that_is_another_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ctypes.util import find_library

    native._library.cache_clear()
    try:
        for path, message in ((find_library("m"), "an older build"), (str(tmp_path / "none.so"), "cannot be loaded")):
            monkeypatch.setenv(native.LIBRARY_VARIABLE, str(path))
            with pytest.raises(InputError, match=message):
                instruction_sets()
    finally:
        native._library.cache_clear()


def test_replaced_while_it_is_loaded(
    save_classifier: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(save_classifier(("good", "bad")), tmp_path / "artifact")
    export(save_classifier(("bad", "good")), tmp_path / "other")
    load = native._open

    def replace(*arguments: Any) -> Any:
        handle = load(*arguments)
        (tmp_path / "artifact").rename(tmp_path / "former")
        (tmp_path / "other").rename(tmp_path / "artifact")
        return handle

    monkeypatch.setattr(native, "_open", replace)
    with pytest.raises(InputError, match="was replaced while it was being loaded"):
        NativeEngine.load(tmp_path / "artifact")


_PROGRAM = """
import numpy as np, os, resource, signal, sys, threading, time
from squeezebert.errors import InputError
from squeezebert.runtime import models
from squeezebert.runtime.engines.native import NativeEngine

folder = models.find("small-sst2")
def run(engine, tokens=40):
    return engine.run_ragged(np.arange(1000, 1000 + tokens), None, np.array([tokens]), logits=True)["logits"]
"""


def program(text: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own, without torch."""
    return subprocess.run([sys.executable, "-c", _PROGRAM + text], capture_output=True, text=True, timeout=600)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_goes_on_alone() -> None:
    done = program("""
engine = NativeEngine.load(folder, threads=3)
want = run(engine)
child = os.fork()
if child == 0:
    signal.alarm(60)  # where it hangs
    same = np.array_equal(run(engine), want)
    del engine
    sys.exit(0 if same else 1)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
sys.exit(status if np.array_equal(run(engine), want) else 2)
""")
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="needs limits on memory")
def test_threads_that_the_system_refuses() -> None:
    done = program("""
limit = 1 << 30  # bytes; 1,023 stacks take several times as much
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    NativeEngine.load(folder, threads=1024)
except InputError as error:
    print(error)
print(NativeEngine.load(folder, threads=2).threads)
""")
    assert done.stdout.splitlines() == ["the system refuses to start 1024 threads; ask for fewer", "2"], done.stderr


def test_a_program_ends_while_a_thread_runs_the_engine() -> None:
    done = program("""
engine = NativeEngine.load(folder, threads=1)
def work():
    ids, lengths = np.full(512 * 20, 1000), np.full(20, 512)
    while True:
        engine.run_ragged(ids, None, lengths, logits=True)
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.5)
""")
    assert done.returncode == 0, (done.returncode, done.stderr)
