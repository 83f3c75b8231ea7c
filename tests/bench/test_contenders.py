from __future__ import annotations

import importlib.util

import pytest

from squeezebert.bench import contenders
from squeezebert.bench.contenders import Contender, choose, why_not
from squeezebert.errors import InputError

ALL = contenders.contenders(["avx2", "reference"])


def test_everyone_has_a_name_of_their_own() -> None:
    assert len({each.key for each in ALL}) == len({each.title for each in ALL}) == len(ALL)
    titles = {each.key: each.title for each in ALL}
    assert titles["native-avx2"] == "squeezebert, native engine, avx2"
    assert titles["torch"] == "squeezebert, torch engine, fp32"
    assert titles["transformers-fp32-bert"] == "transformers eager, BERT-base"
    assert titles["openvino-int8-squeezebert-split"] == "OpenVINO int8, SqueezeBERT (split)"


def test_patterns() -> None:
    assert [each.key for each in choose(ALL, ["torch", "native*"])] == ["native-avx2", "torch"]
    assert [each.key for each in choose(ALL, ["*-bf16-bert"])] == ["openvino-bf16-bert"]
    with pytest.raises(InputError, match="--contenders: nobody is called 'tflite'; there are native-avx2 "):
        choose(ALL, ["torch", "tflite"])


def test_reference_takes_part_where_it_is_named() -> None:
    assert len(choose(ALL, [])) == len(ALL) - 1
    assert [each.key for each in choose(ALL, ["native-reference"])] == ["native-reference"]


def test_who_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    by_key = {each.key: each for each in ALL}
    monkeypatch.setattr(contenders, "cpu_features", lambda: ["avx2"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "nncf" else object())
    assert why_not(by_key["onnxruntime-int8-bert"]) is None
    assert why_not(by_key["openvino-fp32-bert"]) == "nncf is not installed: pip install 'squeezebert[bench]'"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert why_not(by_key["openvino-bf16-bert"]) == "not on this CPU: it has no bf16"
    monkeypatch.setattr(contenders, "cpu_features", lambda: ["avx512_bf16"])
    assert why_not(by_key["openvino-bf16-bert"]) is None
    (engine, *_) = contenders.contenders([])
    assert engine == Contender(stack="native", model="squeezebert", precision="int8")
    assert why_not(engine) == "this installation has no native engine"
