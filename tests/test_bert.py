from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from squeezebert import bert, checkpoint
from squeezebert.cli import main
from squeezebert.errors import InputError
from squeezebert.tokenizer import Tokenizer

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]
SIZES = {
    "vocab_size": len(TOKENS), "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4,
    "intermediate_size": 40, "max_position_embeddings": 16, "initializer_range": 0.4, "hidden_act": "gelu",
}  # fmt: skip


def save(folder: Path, name: str, **config: Any) -> Any:
    """Save a tiny model of transformers with random weights and its vocabulary."""
    import transformers

    torch.manual_seed(0)
    kind = getattr(transformers, name)
    model = kind(kind.config_class(**{**SIZES, **config})).eval()
    for parameter in model.parameters():
        # Norms and biases too, which begin at one and zero.
        torch.nn.init.normal_(parameter, std=0.4)
    model.save_pretrained(folder)
    Tokenizer.from_vocab(TOKENS).save(folder)
    return model


def inputs() -> dict[str, torch.Tensor]:
    return {
        "input_ids": torch.tensor([[2, 5, 6, 3, 7, 3], [2, 9, 3, 0, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]]),
        "token_type_ids": torch.tensor([[0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0]]),
    }


@pytest.mark.parametrize(
    ("name", "config"), [("BertModel", {}), ("BertForMaskedLM", {}), ("ElectraModel", {"embedding_size": 24})]
)
def test_encoder_gives_the_hidden_states_of_transformers(tmp_path: Path, name: str, config: dict[str, Any]) -> None:
    model = save(tmp_path, name, **config)
    loaded = bert.load_encoder(tmp_path)
    with torch.inference_mode():
        expected = model(**inputs(), output_hidden_states=True).hidden_states
        ours = loaded.model(**inputs(), output_hidden_states=True).hidden_states
    assert len(ours) == 4
    mask = inputs()["attention_mask"].bool()
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one[mask], other[mask], rtol=1e-4, atol=1e-5)
    assert loaded.tokenizer is not None


def test_a_converted_classifier_gives_the_same_logits(tmp_path: Path) -> None:
    model = save(tmp_path / "bert", "BertForSequenceClassification", id2label={0: "no", 1: "yes", 2: "perhaps"})
    assert bert.is_bert(tmp_path / "bert")
    bert.convert(tmp_path / "bert", tmp_path / "ours")
    assert not bert.is_bert(tmp_path / "ours")
    loaded = checkpoint.load(tmp_path / "ours")
    assert loaded.config.labels == ("no", "yes", "perhaps")
    with torch.inference_mode():
        torch.testing.assert_close(
            loaded.model(**inputs()).logits, model(**inputs()).logits, rtol=1e-4, atol=1e-5
        )  # fmt: skip


def test_an_encoder_without_pooler_gets_one(tmp_path: Path) -> None:
    save(tmp_path / "bert", "BertForMaskedLM")
    report = bert.convert(tmp_path / "bert", tmp_path / "ours")
    assert report.missing == ("transformer.pooler.dense.weight", "transformer.pooler.dense.bias")
    assert checkpoint.find_head(tmp_path / "ours") == "masked_lm"


def test_other_networks_are_refused(tmp_path: Path) -> None:
    save(tmp_path, "BertModel")
    config = json.loads((tmp_path / "config.json").read_text())
    for change, message in (
        ({"model_type": "roberta"}, "model_type is 'roberta'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"model_type": "electra", "embedding_size": 12}, "embedding_size 12 differs"),
        ({"num_hidden_layers": 4}, "16 weights missing"),
        ({"intermediate_size": 48}, "weights missing or of a wrong shape"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(InputError, match=message):
            bert.convert(tmp_path, tmp_path / "ours")


def test_the_command_line_converts_a_bert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "bert", "BertForMaskedLM")
    words = ["model", "convert", str(tmp_path / "bert"), str(tmp_path / "ours")]
    assert main([*words, "--dtype", "fp16"]) == 2
    assert "a BERT is written in fp32" in capsys.readouterr().err
    assert main(words) == 0
    assert "head masked_lm" in capsys.readouterr().out
    assert checkpoint.find_head(tmp_path / "ours") == "masked_lm"
