"""Published names against those of transformers' own classes, and config fields both ways."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from squeezebert.errors import InputError
from squeezebert.model import hf
from squeezebert.model.config import ModelConfig
from squeezebert.model.heads import HEADS

transformers = pytest.importorskip("transformers")

SMALL: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 64,
    "max_position_embeddings": 24, "q_groups": 2, "k_groups": 2, "v_groups": 2, "post_attention_groups": 2,
    "intermediate_groups": 4, "output_groups": 1,
}  # fmt: skip
THEIRS = [head for head in HEADS if head != "pretraining"]


def published_state(head: str) -> dict[str, torch.Tensor]:
    config = transformers.SqueezeBertConfig(**SMALL, embedding_size=SMALL["hidden_size"])
    state: dict[str, torch.Tensor] = getattr(transformers, hf.ARCHITECTURES[head])(config).state_dict()
    return state


@pytest.mark.parametrize("head", THEIRS)
def test_names_and_shapes_are_those_of_transformers(head: str) -> None:
    ours = HEADS[head](ModelConfig(**SMALL)).state_dict()
    theirs = published_state(head)
    copies = {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
    published = hf.state_to_published(ours)
    assert {name: tensor.shape for name, tensor in published.items()} == {
        name: tensor.shape for name, tensor in theirs.items() if name not in copies
    }


@pytest.mark.parametrize("head", THEIRS)
def test_renaming_there_and_back_is_exact(head: str) -> None:
    theirs = published_state(head)
    renamed = hf.state_to_ours(theirs, head)
    assert renamed.unexpected == ()
    assert renamed.tensors.keys() == HEADS[head](ModelConfig(**SMALL)).state_dict().keys()
    back = hf.state_to_published(renamed.tensors)
    for name, tensor in back.items():
        assert torch.equal(tensor, theirs[name]), name


def test_the_head_of_bert_for_sentence_order() -> None:
    assert hf.to_published("sentence_order.weight") == "cls.seq_relationship.weight"
    assert hf.to_ours("cls.seq_relationship.bias") == "sentence_order.bias"


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_the_encoder_is_read_with_and_without_its_prefix(prefix: str) -> None:
    names = ["embeddings.LayerNorm.weight", "encoder.layers.11.output.conv1d.bias", "pooler.dense.weight"]
    assert [hf.to_ours(prefix + name) for name in names] == [
        "embeddings.norm.weight",
        "layers.11.feed_forward.output.bias",
        "pooler.dense.weight",
    ]


@pytest.mark.parametrize(
    "name",
    [
        "bert.embeddings.LayerNorm.weight", "encoder.layer.0.attention.self.query.weight", "classifier.scale",
        "mlm.bias", "cls.predictions.weight", "transformer.classifier.weight", "weight", "",
        "encoder.layers.x.attention.query.weight",
    ],
)  # fmt: skip
def test_other_names_are_not_ours(name: str) -> None:
    assert hf.to_ours(name) is None


def test_a_parameter_that_stands_twice_is_refused() -> None:
    twice = {"pooler.dense.bias": torch.zeros(2), "transformer.pooler.dense.bias": torch.zeros(2)}
    with pytest.raises(InputError, match=r"pooler\.dense\.bias and pooler\.dense\.bias are the same parameter"):
        hf.state_to_ours(twice, "encoder")


def test_buffers_and_tied_copies_are_dropped_and_a_lone_decoder_bias_is_taken() -> None:
    bias = torch.arange(4.0)
    published = {
        "transformer.embeddings.position_ids": torch.arange(3)[None],
        "cls.predictions.decoder.weight": torch.zeros(4, 2),
        "cls.predictions.decoder.bias": bias,
    }
    renamed = hf.state_to_ours(published, "masked_lm")
    assert renamed.unexpected == ()
    assert list(renamed.tensors) == ["mlm.bias"]
    assert torch.equal(renamed.tensors["mlm.bias"], bias)


@pytest.mark.parametrize("head", HEADS)
def test_the_head_is_found_by_what_we_publish(head: str) -> None:
    names = hf.state_to_published(HEADS[head](ModelConfig(**SMALL)).state_dict())
    assert hf.find_head(names, [hf.ARCHITECTURES[head]]) == head


def test_a_classifier_without_architectures_is_for_sequences() -> None:
    assert hf.find_head(["transformer.pooler.dense.bias", "classifier.weight"]) == "sequence_classification"


CONFIGS = [
    ModelConfig(),
    ModelConfig(**SMALL, num_labels=3, id2label={0: "c", 1: "e", 2: "n"}, real_vocab_size=90),
    ModelConfig(num_labels=1, problem_type="regression", hidden_dropout_prob=0.0, layer_norm_eps=1e-5),
    ModelConfig(classifier_dropout=0.3, hidden_act="gelu_new", pad_token_id=5, initializer_range=0.05),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_configs_come_back_equal(config: ModelConfig) -> None:
    values = hf.config_to_published(config, "sequence_classification")
    assert hf.config_from_published(values, "config.json") == config


@pytest.mark.parametrize("config", CONFIGS)
def test_transformers_reads_our_config_as_we_do(config: ModelConfig) -> None:
    values = hf.config_to_published(config, "sequence_classification")
    theirs = transformers.SqueezeBertConfig.from_dict(values)
    for name in [*SMALL, "hidden_dropout_prob", "layer_norm_eps", "problem_type", "pad_token_id", "num_labels"]:
        assert getattr(theirs, name) == getattr(config, name), name
    assert theirs.embedding_size == config.hidden_size
    assert tuple(theirs.id2label.values()) == config.labels
    assert hf.config_from_published(theirs.to_dict(), "config.json") == config


def test_fields_that_a_published_config_leaves_out_have_its_defaults() -> None:
    theirs = transformers.SqueezeBertConfig()
    ours = hf.config_from_published({"model_type": "squeezebert"}, "config.json")
    for name in [*SMALL, "type_vocab_size", "hidden_act", "layer_norm_eps", "initializer_range", "num_labels"]:
        assert getattr(ours, name) == getattr(theirs, name), name


def test_num_labels_without_names_as_in_the_published_mnli_config() -> None:
    ours = hf.config_from_published({"model_type": "squeezebert", "num_labels": 3}, "config.json")
    assert (ours.num_labels, ours.id2label, ours.labels) == (3, {}, ("LABEL_0", "LABEL_1", "LABEL_2"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "bert"}, "c.json: model_type is 'bert'; only 'squeezebert'"),
        ({"model_type": None}, "c.json: model_type is None"),
        ({"hidden_size": "768"}, "c.json: hidden_size must be a positive whole number, not '768'"),
        (
            {"hidden_size": 100, "embedding_size": 100},
            "c.json: hidden_size 100 is not a multiple of num_attention_heads",
        ),
        ({"embedding_size": 128}, "c.json: embedding_size 128 differs from hidden_size"),
        ({"num_hidden_layers": 2.5}, "c.json: num_hidden_layers must be"),
        ({"vocab_size": None}, "c.json: vocab_size must be"),
        ({"q_groups": 0}, "c.json: q_groups must be"),
        ({"q_groups": 5}, "c.json: hidden_size 768 is not a multiple of q_groups 5"),
        ({"hidden_act": "mish"}, "c.json: hidden_act 'mish' is unknown"),
        ({"hidden_act": ["gelu"]}, "c.json: hidden_act"),
        ({"hidden_dropout_prob": "0.1"}, "c.json: hidden_dropout_prob must be"),
        ({"layer_norm_eps": "tiny"}, "c.json: layer_norm_eps must be a positive number"),
        ({"initializer_range": 0}, "c.json: initializer_range must be a positive number"),
        ({"pad_token_id": -1}, "c.json: pad_token_id must be"),
        ({"pad_token_id": 30522}, "c.json: pad_token_id 30522 must lie below vocab_size 30522"),
        ({"real_vocab_size": "all"}, "c.json: real_vocab_size must be"),
        ({"problem_type": "ranking"}, "c.json: problem_type 'ranking'"),
        ({"id2label": ["no", "yes"]}, "c.json: id2label must map"),
        ({"id2label": {"a": "no"}}, "c.json: id2label must map"),
        ({"id2label": {"0": 1}}, "c.json: id2label must map"),
        ({"id2label": {"1": "no", "2": "yes"}}, "c.json: id2label names outputs"),
        ({"id2label": {"0": "no", "1": "yes"}, "num_labels": 3}, "c.json: num_labels is 3, but id2label names 2"),
        ({"num_labels": "three"}, "c.json: num_labels must be"),
    ],
)
def test_wrong_fields_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        hf.config_from_published({"model_type": "squeezebert", **values}, "c.json")
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
