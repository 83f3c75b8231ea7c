from __future__ import annotations

import re
from pathlib import Path

import pytest

from squeezebert.errors import InputError
from squeezebert.model.config import SIZES
from squeezebert.training.recipes import DistillationRecipe, PhaseRecipe, Recipe, load_recipe, recipe_names
from squeezebert.training.schedule import Schedule
from squeezebert.training.settings import describe_fields
from squeezebert.training.speed import training_flops


def test_recipes_of_the_package() -> None:
    assert recipe_names() == [
        "continue-laptop",
        "cut-laptop",
        "distil-laptop",
        "joint-laptop",
        "laptop",
        "one-gpu-1h",
        "one-gpu-24h",
        "pairs-laptop",
        "paper",
        "sentences-laptop",
    ]


def test_recipes_of_measured_runs_are_still_read() -> None:
    paths = sorted((Path(__file__).parents[2] / "benchmarks" / "recipes").glob("*.toml"))
    assert {path.stem: load_recipe(str(path)).tokens for path in paths} == {
        "small-decay": 900 * 128 * 64,
        "small-long": 4800 * 64 * 128,
    }


def test_paper_is_the_model_card_s() -> None:
    paper = load_recipe("paper")
    assert paper.optimizer == "lamb"
    assert [(p.steps, p.length, p.batch_size, p.learning_rate, p.warmup_proportion) for p in paper.phases] == [
        (56_000, 128, 8192, 2.5e-3, 0.28),
        (6_000, 512, 8192, 2.5e-3, 0.28),
    ]
    schedule = Schedule([phase.schedule() for phase in paper.phases])
    rates = {step: schedule.learning_rate_at(step) for step in (0, 15_679, 15_680, 15_681, 55_999, 56_000, 57_680)}
    assert max(rates.values()) == rates[15_680] == rates[57_680] == 2.5e-3
    assert rates[0] == rates[56_000] == 0.0


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("continue-laptop", "small"),
        ("laptop", "small"),
        ("one-gpu-1h", "small"),
        ("one-gpu-24h", "base"),
        ("paper", "base"),
    ],
)
def test_description_states_steps_tokens_and_flop(name: str, size: str) -> None:
    recipe = load_recipe(name)
    flops = sum(
        phase.steps
        * phase.batch_size
        * training_flops(SIZES[size], length=phase.length, masking_rate=0.15, mlm_only=False)
        for phase in recipe.phases
    )
    stated = re.search(r"([\d,]+) steps, ([\d.]+) ([MG]) tokens, ([\d.e]+) FLOP", recipe.description)
    assert stated is not None
    assert int(stated[1].replace(",", "")) == recipe.steps
    assert float(stated[2]) * {"M": 1e6, "G": 1e9}[stated[3]] == pytest.approx(recipe.tokens, rel=0.01)
    assert float(stated[4]) == pytest.approx(flops, rel=0.03)
    assert "`" + size + "`" in recipe.description


def test_every_field_is_described() -> None:
    for settings in (Recipe, PhaseRecipe, DistillationRecipe):
        assert set(describe_fields(settings)) == set(settings.__dataclass_fields__)


@pytest.mark.parametrize(
    ("name", "size", "hours"), [("one-gpu-1h", "small", 1), ("one-gpu-24h", "base", 23), ("paper", "base", 12)]
)
def test_projected_time_is_that_of_the_flop(name: str, size: str, hours: float) -> None:
    """At the rate that the description states: so many TFLOP/s, or 40 % of an H200's 989."""
    recipe = load_recipe(name)
    flops = sum(
        phase.steps
        * phase.batch_size
        * training_flops(SIZES[size], length=phase.length, masking_rate=0.15, mlm_only=False)
        for phase in recipe.phases
    )
    stated = re.search(r"at (\d+) TFLOP/s", recipe.description)
    rate = float(stated[1]) * 1e12 if stated else 0.4 * 989e12
    assert flops / rate / 3600 == pytest.approx(hours, rel=0.04)
    number = {1: "one hour"}.get(hours, f"{hours} h")
    assert number in recipe.description


def test_changes_by_name_and_place() -> None:
    changes = ["phases.1.steps=10", "seed = 7", "optimizer=adamw", "clip=0", "compile=true", 'precision="bf16"']
    recipe = load_recipe("paper", changes)
    assert (recipe.phases[0].steps, recipe.phases[1].steps) == (56_000, 10)
    assert (recipe.seed, recipe.optimizer, recipe.clip, recipe.compile, recipe.precision) == (
        7,
        "adamw",
        0.0,
        True,
        "bf16",
    )
    assert isinstance(recipe.clip, float)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("steps=1", r"steps is unknown; the names are description, phases, .*"),
        ("phases.0.rate=1", r"phases\.0\.rate is unknown; the names are steps, .*"),
        ("phases.2.steps=1", r"--set phases\.2\.steps: there is no phases\.2 in the recipe"),
        ("phases.x.steps=1", r"--set phases\.x\.steps: there is no phases\.x in the recipe"),
        ("phase.0.steps=1", r"--set phase\.0\.steps: there is no phase in the recipe"),
        ("seed.x=1", r"--set seed\.x: there is no seed in the recipe"),
        ("phases.0=1", r"--set phases\.0: name a field, such as phases\.0\.steps"),
        ("phases.0.steps=0", r"schedule: steps must be at least 1, not 0"),
        ("phases.0.steps=1.5", r"recipe: phases\.0\.steps must be a whole number, not 1\.5"),
        ("phases.0.length=4", r"recipe: length must be at least 8, not 4"),
        ("phases.0.batch_size=true", r"recipe: phases\.0\.batch_size must be a whole number, not True"),
        ("phases=3", r"recipe: phases must be a list of tables.*"),
        ("phases=[]", r"recipe: phases must hold at least one phase"),
        ("optimizer=sgd", r"recipe: optimizer must be one of lamb, adamw, not 'sgd'"),
        ("compile=1", r"recipe: compile must be true or false, not 1"),
        ("dropout=1", r"recipe: dropout must be at least 0 and below 1, not 1\.0"),
        ("seed=9223372036854775808", r"recipe: seed must be below 2 \*\* 63, not 9223372036854775808"),
        ("weight_decay=0", r"recipe: lamb has no trust ratio where weight_decay is 0.*set adapt_undecayed=true, or .*"),
        ("sentence_order_weight=0", r"recipe: sentence_order_weight must be above 0, not 0\.0"),
        ("masking_rate=2", r"masking: rate must lie between 0 and 1, not 2\.0"),
        ("seed", r"--set seed: write key=value"),
    ],
)
def test_wrong_changes_are_refused_in_one_line(change: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        load_recipe("paper", [change])
    assert re.fullmatch(r"(recipe: )?" + message, str(error.value))


def test_own_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('description = "x"\n[[phases]]\nsteps = 1\nlength = 16\nbatch_size = 2\nlearning_rate = 1e-3\n')
    assert load_recipe(str(path)).tokens == 32
    path.write_text('description = "x"\n[[phases]]\nsteps = 1\nlength = 16\nlearning_rate = 1e-3\n')
    with pytest.raises(InputError, match=r"^recipe: phases\.0\.batch_size is missing$"):
        load_recipe(str(path))
    path.write_text("description = ")
    with pytest.raises(InputError, match=r"mine\.toml: not valid TOML \("):
        load_recipe(str(path))
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"mine\.toml: not a text file in UTF-8"):
        load_recipe(str(path))
    with pytest.raises(
        InputError, match=r"recipe 'nothing' is unknown; use one of continue-laptop, .*, or a \.toml file"
    ):
        load_recipe("nothing")


def test_what_is_learned_from_a_teacher() -> None:
    recipe = load_recipe("distil-laptop", ["distillation.layers=[2, 4]", "distillation.mlm=1"])
    assert recipe.distillation == DistillationRecipe(layers=(2, 4), mlm=1.0, embedding_steps=2000)
    assert recipe.to_dict()["distillation"]["layers"] == [2, 4]
    assert "distillation" not in load_recipe("laptop").to_dict()
    heads = [load_recipe(name).predicts for name in ("distil-laptop", "laptop")]
    assert [*heads, recipe.predicts, load_recipe("laptop", ["mlm_only=true"]).predicts] == [
        "encoder", "pretraining", "masked_lm", "masked_lm",
    ]  # fmt: skip
    for change, message in (
        ("distillation.sentence_order=1", r"distillation\.sentence_order needs distillation\.mlm above 0"),
        ("distillation.hidden=-1", r"distillation\.hidden must be at least 0"),
        ("distillation.last_layer=0", r"distillation\.last_layer must be above 0"),
        ("distillation.layers=[1.5]", r"distillation\.layers must be a list of whole numbers"),
        ("distillation=1", r"distillation must be a table"),
        ("distillation.layer=1", r"distillation\.layer is unknown"),
        ("distillation={embedding=0, hidden=0}", "needs a weight above 0"),
    ):
        with pytest.raises(InputError, match=message):
            load_recipe("distil-laptop", [change])


def test_weight_of_the_sentence_order_goes_without_a_teacher() -> None:
    assert load_recipe("laptop", ["sentence_order_weight=4"]).sentence_order_weight == 4.0
    for name, changes in (("laptop", ["mlm_only=true"]), ("joint-laptop", [])):
        with pytest.raises(InputError, match=r"leave it at 1 with mlm_only, .* set distillation\.sentence_order"):
            load_recipe(name, [*changes, "sentence_order_weight=4"])


def test_a_phase_can_weigh_the_sentence_order_itself() -> None:
    recipe = load_recipe("paper", ["sentence_order_weight=4", "phases.1.sentence_order_weight=9"])
    assert [recipe.order_weight(phase) for phase in (0, 1)] == [4.0, 9.0]
    assert "sentence_order_weight" not in load_recipe("paper").to_dict()["phases"][1]
    with pytest.raises(InputError, match=r"sentence_order_weight must be above 0, not 0\.0"):
        load_recipe("paper", ["phases.1.sentence_order_weight=0"])
    with pytest.raises(InputError, match=r"phases\.1\.sentence_order_weight must be a number, not 'much'"):
        load_recipe("paper", ["phases.1.sentence_order_weight='much'"])
    with pytest.raises(InputError, match=r"leave it at 1 with mlm_only"):
        load_recipe("paper", ["mlm_only=true", "phases.1.sentence_order_weight=9"])


def test_overlaps_go_with_the_sentence_order() -> None:
    changes = ["phases.0.overlap=4", "phases.0.overlap_steps=10"]
    assert load_recipe("laptop", ["divergence=0.0", *changes]).phases[0].overlap_steps == 10
    with pytest.raises(InputError, match="the loss rises while passages cease to overlap; set divergence=0"):
        load_recipe("laptop", changes)
    for name, change in (("laptop", "mlm_only=true"), ("cut-laptop", "seed=1")):
        with pytest.raises(InputError, match="overlap is for runs that learn the sentence order"):
            load_recipe(name, [change, *changes])
    for change in changes:
        with pytest.raises(InputError, match="overlap and overlap_steps go together"):
            load_recipe("laptop", [change])
    with pytest.raises(InputError, match="overlap must be at least 0"):
        load_recipe("laptop", ["phases.0.overlap=-1"])
    # Runs begun before there were overlaps can go on.
    assert "overlap" not in load_recipe("laptop").to_dict()["phases"][0]


def test_both_orders_go_with_the_sentence_order() -> None:
    assert load_recipe("laptop", ["both_orders=true"]).both_orders
    for name, change in (("laptop", "mlm_only=true"), ("distil-laptop", "distillation.mlm=1")):
        with pytest.raises(InputError, match="both_orders is for runs that learn the sentence order"):
            load_recipe(name, [change, "both_orders=true"])
    with pytest.raises(InputError, match=r"both_orders needs an even phases\.0\.batch_size, not 31"):
        load_recipe("laptop", ["both_orders=true", "phases.0.batch_size=31"])
