from __future__ import annotations

from typing import Any

import pytest

from squeezebert.model.config import SIZES
from squeezebert.model.heads import HEADS
from squeezebert.model.shapes import parameter_shapes, uses_pooler


@pytest.mark.parametrize("changes", [{}, {"q_groups": 2, "k_groups": 1, "output_groups": 8, "num_labels": 5}])
@pytest.mark.parametrize("head", HEADS)
def test_equals_the_model_s_own(head: str, changes: dict[str, Any]) -> None:
    config = SIZES["tiny"].replace(**changes)
    model = HEADS[head](config)
    assert parameter_shapes(config, head) == {name: tuple(each.shape) for name, each in model.named_parameters()}


def test_pooler_is_used_as_the_classes_say() -> None:
    assert {head: getattr(model, "uses_pooler", True) for head, model in HEADS.items()} == {
        head: uses_pooler(head) for head in HEADS
    }
