"""Token ids to vectors: word, position and segment embeddings, summed and normalised."""

from __future__ import annotations

from torch import Tensor, nn

from squeezebert.model.config import ModelConfig


class Embeddings(nn.Module):
    """BERT's embeddings (Devlin et al. 2019, section 3.2)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.word = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.position = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: Tensor, position_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """Embed ids of any one shape ``[...]``, giving ``[..., C]``. No token types: all of the first segment."""
        types = self.token_type.weight[0] if token_type_ids is None else self.token_type(token_type_ids)
        x: Tensor = self.dropout(self.norm(self.word(input_ids) + self.position(position_ids) + types))
        return x
