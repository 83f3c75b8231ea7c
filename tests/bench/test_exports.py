from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from squeezebert import checkpoint
from squeezebert.bench import exports
from squeezebert.bench.contenders import PACKAGES, Contender, Stack
from squeezebert.bench.exports import plan
from squeezebert.bench.peers import build
from squeezebert.bench.runners import Job, load

pytest.importorskip("transformers")
VOCABULARY = 2048


def test_peers_are_seeded() -> None:
    ids = torch.arange(1, 15).view(2, 7)
    inputs = (ids, (ids != 14).long(), torch.zeros_like(ids))
    with torch.inference_mode():
        for form in ("conv", "split"):
            logits = [build("squeezebert", form, "tiny", VOCABULARY)(*inputs) for _ in range(2)]
            assert logits[0].shape == (2, 2)
            assert torch.equal(*logits)


def test_plan(tmp_path: Path) -> None:
    def steps(**about: str) -> list[tuple[str, str]]:
        return [(each.precision, each.target) for each in plan(Contender(**about), "tiny", 64, tmp_path)]  # type: ignore[arg-type]

    assert steps(stack="transformers", model="bert", precision="fp32") == []
    fp32 = steps(stack="openvino", model="bert", precision="fp32")
    assert [precision for precision, _ in fp32] == ["fp32"]
    assert steps(stack="openvino", model="bert", precision="bf16") == fp32
    both = steps(stack="openvino", model="bert", precision="int8")
    assert both[0] == fp32[0]
    assert both[1][0] == "int8"
    assert both[1][1] != fp32[0][1]


def test_stand_in_tokenizer() -> None:
    tokenizer = exports.stand_in_tokenizer(500)
    assert tokenizer.vocab_size == 500
    assert tokenizer.unk_id not in tokenizer.encode("a gripping film, 10 of 10").input_ids


def test_our_checkpoint_is_a_classifier_of_random_weights(tmp_path: Path) -> None:
    """Also of the size that a model of the package, an encoder with a vocabulary of its own, is named after."""
    exports.stand_in_tokenizer(500).save(tmp_path)
    step = exports.Export(
        kind="checkpoint", size="small", vocab_size=512, target=str(tmp_path / "model"), source=str(tmp_path)
    )
    exports.make(step)
    loaded = checkpoint.load(tmp_path / "model")
    assert loaded.report.head == "sequence_classification"
    assert (loaded.config.hidden_size, loaded.config.vocab_size) == (384, 512)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["conv", "split"])
@pytest.mark.parametrize("stack", ["onnxruntime", "openvino"])
def test_exported_peers_equal_torch(stack: Stack, form: str, tmp_path: Path) -> None:
    if any(importlib.util.find_spec(package) is None for package in PACKAGES[stack]):
        pytest.skip(f"{stack} is not installed")
    contender = Contender(stack=stack, model="squeezebert", precision="fp32", form=form)
    (step,) = plan(contender, "tiny", VOCABULARY, tmp_path)
    exports.make(step)
    exports.stand_in_tokenizer(VOCABULARY).save(tmp_path)
    loaded = load(
        Job(
            contender=contender, model=step.target, tokenizer=str(tmp_path), size="tiny", vocab_size=VOCABULARY,
            threads=1,
        )
    )  # fmt: skip
    # Another shape than that of the trace, padded.
    ids = np.random.default_rng(0).integers(1, VOCABULARY, (3, 21))
    mask = (np.arange(21) < np.array([[21], [5], [13]])).astype(np.int64)
    types = np.zeros_like(ids)
    with torch.inference_mode():
        want = build("squeezebert", form, "tiny", VOCABULARY)(*map(torch.from_numpy, (ids, mask, types))).numpy()
    # fp32 sums of 256 terms in another order; logits are about 0.1.
    np.testing.assert_allclose(loaded.run(ids, mask, types), want, atol=1e-5)
    rows = [("a film", None), ("a much longer text about a film", None)]
    assert np.shape(loaded.classify(rows)) == (2, 2)
