"""BERT checkpoints, read as SqueezeBERTs whose layers have one group: the same network under other names.

BERT and ELECTRA (whose embeddings have the width of its layers) keep their vocabulary, heads and outputs, so what works
on a SqueezeBERT works on them: finetuning, scoring, teaching. Devlin et al. 2019; Iandola et al. 2020, section 3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from squeezebert import checkpoint
from squeezebert.errors import InputError
from squeezebert.files import read_json
from squeezebert.model import hf
from squeezebert.model.config import ModelConfig
from squeezebert.model.heads import HEADS
from squeezebert.tokenizer import Tokenizer

MODEL_TYPES = ("bert", "electra")
_GROUPS = ("q_groups", "k_groups", "v_groups", "post_attention_groups", "intermediate_groups", "output_groups")
# (BERT, SqueezeBERT) of the modules of a layer, both as they are published.
_LAYER = (
    ("attention.self.", "attention."),
    ("attention.output.dense", "post_attention.conv1d"),
    ("attention.output.LayerNorm", "post_attention.layernorm"),
    ("intermediate.dense", "intermediate.conv1d"),
    ("output.dense", "output.conv1d"),
    ("output.LayerNorm", "output.layernorm"),
)


def is_bert(folder: str | Path) -> bool:
    """Whether a folder holds a checkpoint that this module reads."""
    path = Path(folder) / checkpoint.CONFIG
    return path.is_file() and read_json(path).get("model_type") in MODEL_TYPES


def load_encoder(source: str | Path) -> checkpoint.Loaded:
    """Load the bare encoder of a BERT, or of one of our checkpoints.

    Args:
        source: Folder or hub id.

    Raises:
        InputError: It cannot be read, or is neither; the message names file and tensor.
    """
    if checkpoint.is_size(source):
        raise InputError(f"{source}: a size name stands for random weights, which teach nothing; give a checkpoint")
    folder = checkpoint.resolve(source)
    if not is_bert(folder):
        return checkpoint.load(folder, "encoder")
    config, tensors = _read(folder)
    return _build(str(source), folder, "encoder", config, tensors)


def convert(source: str | Path, folder: str | Path) -> checkpoint.LoadReport:
    """Rewrite a BERT checkpoint in the layout of SqueezeBERT's, adding no weight that it lacks but a pooler's.

    Args:
        source: Folder or hub id.
        folder: Where to write.

    Raises:
        InputError: ``source`` cannot be read, or is no BERT.
        OSError: ``folder`` cannot be written, or the disk is full.
    """
    origin = checkpoint.resolve(source)
    config, tensors = _read(origin)
    loaded = _build(str(source), origin, hf.find_head(tensors), config, tensors)
    checkpoint.save(loaded.model, folder, tokenizer=loaded.tokenizer)
    return loaded.report


def _read(folder: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Configuration, and tensors under SqueezeBERT's published names."""
    path = folder / checkpoint.CONFIG
    values = read_json(path)
    if values.get("model_type") not in MODEL_TYPES:
        raise InputError(
            f"{path}: model_type is {values.get('model_type')!r}; {', '.join(MODEL_TYPES)} and {hf.MODEL_TYPE} "
            "can be read"
        )
    if values.get("position_embedding_type", "absolute") != "absolute":
        raise InputError(f"{path}: position_embedding_type must be absolute, as in BERT's first release")
    as_ours = {**values, "model_type": hf.MODEL_TYPE, **dict.fromkeys(_GROUPS, 1)}
    # An ELECTRA of two widths has a projection in between; config_from_published refuses it.
    config = hf.config_from_published({"embedding_size": values.get("hidden_size"), **as_ours}, str(path))
    return config, {_rename(name): tensor for name, tensor in checkpoint.read_weights(folder).items()}


def _rename(name: str) -> str:
    name = re.sub(r"^(bert|electra)\.", hf.PREFIX, name)
    # As TensorFlow called them, and early files with it.
    name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
    found = re.match(r"(.*encoder\.layer)\.(\d+)\.(.*)", name)
    if found is None:
        return name
    start, number, rest = found.groups()
    for theirs, ours in _LAYER:
        if rest.startswith(theirs):
            return f"{start}s.{number}.{ours}{rest.removeprefix(theirs)}"
    return name


def _build(
    source: str, folder: Path, head: str, config: ModelConfig, tensors: Mapping[str, Tensor]
) -> checkpoint.Loaded:
    tokenizer = None
    if any((folder / name).exists() for name in checkpoint.VOCABULARIES):
        tokenizer = Tokenizer.load(folder)
        config = config.replace(real_vocab_size=min(tokenizer.vocab_size, config.vocab_size))
    model = HEADS[head](config)
    shapes: dict[str, Any] = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    state = {name: tensor for name, tensor in hf.state_to_ours(tensors, head).tensors.items() if name in shapes}
    missing = [name for name in shapes if name not in state and "pooler" not in name]
    wrong = [name for name, tensor in state.items() if tuple(tensor.shape) != shapes[name]]
    if missing or wrong:
        raise InputError(
            f"{folder}: {len(missing) + len(wrong)} weights missing or of a wrong shape ({(missing + wrong)[0]}, ...); "
            "the files are incomplete, or the config is another model's"
        )
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=False)
    absent = tuple(hf.to_published(name) for name in shapes if name not in state)
    report = checkpoint.LoadReport(source, missing=absent, head=head)
    return checkpoint.Loaded(model.eval(), config, tokenizer, report)
