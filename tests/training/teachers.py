"""Tiny teachers of random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

LABELS = ("negative", "positive")


def save_roberta(folder: Path, texts: list[str], labels: tuple[str, ...] = LABELS, seed: int = 0, **config: Any) -> str:
    """Save a RoBERTa classifier with a byte-level BPE tokenizer, as unlike ours as they come."""
    import tokenizers
    import transformers

    backend = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    backend.train_from_iterator(
        texts,
        tokenizers.trainers.BpeTrainer(
            vocab_size=300, special_tokens=special, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet()
        ),
    )
    backend.post_processor = tokenizers.processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        model_max_length=64,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = transformers.RobertaForSequenceClassification(
        transformers.RobertaConfig(
            vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
            max_position_embeddings=66, pad_token_id=1, bos_token_id=0, eos_token_id=2, type_vocab_size=1,
            initializer_range=0.5, id2label=dict(enumerate(labels)), label2id={v: i for i, v in enumerate(labels)},
            **config,
        )
    )  # fmt: skip
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
