from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from squeezebert import checkpoint
from squeezebert.data.tasks import GLUE
from squeezebert.errors import DivergedError, InputError
from squeezebert.training import glue_suite
from squeezebert.training.glue_presets import NINE
from squeezebert.training.glue_suite import SuiteSettings, run_suite, search
from squeezebert.training.losses import ClassificationLoss
from squeezebert.training.run_folder import occupy
from squeezebert.training.settings import FinetuneSettings

_TASKS = ("rte", "cola", "mnli")
_PRESETS = "".join(
    f'[{name}]\nsource = "a test"\n{body}'
    for name, body in {
        **dict.fromkeys(NINE, ""),
        "cola": 'start = "encoder"\n',
        "defaults": "epochs = 1\nbatch_size = 4\nlearning_rate = 1e-3\ndropout = 0.1\nmax_length = 16\n"
        "alpha = 0.9\ntemperature = 2.0\n",
    }.items()
)


@pytest.fixture(scope="module")
def glue(tmp_path_factory: pytest.TempPathFactory, write_glue: Callable[..., Path]) -> Path:
    return write_glue(tmp_path_factory.mktemp("glue"))


@pytest.fixture
def make(tmp_path: Path, glue: Path) -> Callable[..., SuiteSettings]:
    """A function that makes settings: three tasks, two steps each."""
    (tmp_path / "presets.toml").write_text(_PRESETS)

    def make(**changes: Any) -> SuiteSettings:
        values: dict[str, Any] = {
            "model": "tiny", "output": tmp_path / "suite", "data_dir": glue, "tasks": _TASKS, "seeds": (1,),
            "presets": str(tmp_path / "presets.toml"), "device": "cpu",
        }  # fmt: skip
        return SuiteSettings(**{**values, **changes})

    return make


def _figures(folder: Path) -> dict[str, Any]:
    """Each task's figures without its times."""
    return {
        path.parent.name: [
            {key: value for key, value in each.items() if "second" not in key}
            for each in json.loads(path.read_text())["seeds"]
        ]
        for path in sorted(folder.glob("*/metrics.json"))
    }


def test_a_suite_leaves_a_model_of_each_task_and_a_scorecard(
    make: Callable[..., SuiteSettings], capsys: pytest.CaptureFixture[str]
) -> None:
    output = run_suite(make(tasks=NINE, seeds=(1, 2)))
    assert output is not None
    assert {path.name for path in output.iterdir()} == {
        *NINE, "suite.json", "scorecard.json", "scorecard.md", "scorecard.png",
    }  # fmt: skip
    said = capsys.readouterr().err
    # MNLI is the start of others, so it comes first.
    assert said.index("--- mnli, 1 of 9 to do ---") < said.index("--- cola, 2 of 9 to do ---")
    for name in NINE:
        loaded = checkpoint.load(output / name)
        assert loaded.extra["task"] == name
        assert loaded.extra["max_length"] == 16
        # The best seed's model is kept, once.
        assert not list(output.glob(f"{name}/seed-*/model"))
        assert len(json.loads((output / name / "metrics.json").read_text())["seeds"]) == 2
    card = json.loads((output / "scorecard.json").read_text())
    assert len(card["rows"]) == 10
    assert all(row["ours"]["suite"]["complete"] is False for row in card["rows"])
    record = json.loads((output / "mnli" / "record.json").read_text())
    assert record["data"]["train"] == {"rows": 8, "official": 392_702}
    assert record["examples"] == 16
    assert record["start"] == "encoder"
    assert record["settings"]["learning_rate"] == 1e-3
    assert record["source"] == "a test; a test"


def test_finished_tasks_are_not_run_again(
    make: Callable[..., SuiteSettings], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_suite(make(tasks=("rte",)))
    ran = []
    finetune = glue_suite.finetune
    monkeypatch.setattr(glue_suite, "finetune", lambda settings: ran.append(settings.task) or finetune(settings))
    run_suite(make())
    assert ran == ["mnli", "cola"]
    run_suite(make())
    assert ran == ["mnli", "cola"]
    assert "3 of 3 tasks finished" in capsys.readouterr().err
    # The scorecard has all that the folder holds.
    run_suite(make(tasks=("wnli",)))
    assert "| RTE |" in (make().output / "scorecard.md").read_text()


def test_an_interrupted_suite_says_how_to_go_on_and_does(
    make: Callable[..., SuiteSettings], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = run_suite(make())
    assert whole is not None
    calls = 0
    loss = ClassificationLoss.__call__

    def interrupt(self: ClassificationLoss, *args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:  # the first step of the second task
            os.kill(os.getpid(), signal.SIGINT)
        return loss(self, *args)

    other = make().output.with_name("other")
    with monkeypatch.context() as patch:
        patch.setattr(ClassificationLoss, "__call__", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_suite(make(output=other))
    assert "or, to go on with the suite, repeat: " in capsys.readouterr().err
    assert {path.parent.name for path in other.glob("*/record.json")} == {"mnli"}
    assert (other / "scorecard.md").exists()
    run_suite(make(output=other))
    assert "1 of 3 tasks finished" in capsys.readouterr().err
    assert _figures(other) == _figures(whole)


_KILLED = """
import os, signal, sys
from pathlib import Path
from squeezebert.training.glue_suite import SuiteSettings, run_suite
from squeezebert.training.losses import ClassificationLoss

calls, loss = 0, ClassificationLoss.__call__

def kill(self, *args):
    global calls
    calls += 1
    if calls == 4:  # the last step of the second task
        os.kill(os.getpid(), signal.SIGKILL)
    return loss(self, *args)

ClassificationLoss.__call__ = kill
glue, output, presets = map(Path, sys.argv[1:])
run_suite(SuiteSettings(model="tiny", output=output, data_dir=glue, tasks=("rte", "cola", "mnli"), seeds=(1,),
    presets=str(presets), device="cpu"))
"""


@pytest.mark.slow
def test_a_killed_suite_goes_on(make: Callable[..., SuiteSettings], glue: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    arguments = [sys.executable, "-c", _KILLED, str(glue), str(killed), str(tmp_path / "presets.toml")]
    process = subprocess.run(arguments, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert process.returncode == -signal.SIGKILL
    finished = killed / "mnli" / "metrics.json"
    before = finished.stat().st_mtime_ns, finished.read_bytes()
    assert not (killed / "cola" / "metrics.json").exists()
    run_suite(make(output=killed))
    assert (finished.stat().st_mtime_ns, finished.read_bytes()) == before
    assert _figures(killed).keys() == set(_TASKS)


@pytest.mark.parametrize("left", ["empty", "leftover", "unrecorded"])
def test_a_kill_between_two_files_does_no_harm(make: Callable[..., SuiteSettings], left: str) -> None:
    output = run_suite(make(tasks=("rte",)))
    assert output is not None
    folder = output / ("rte" if left == "unrecorded" else "cola")
    folder.mkdir(exist_ok=True)
    if left == "leftover":
        (folder / ".settings.json.1.tmp").write_text("{")
    if left == "unrecorded":
        (folder / "record.json").unlink()
    run_suite(make(tasks=("rte", "cola")))
    assert (output / "rte" / "record.json").exists()
    assert (output / "cola" / "record.json").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": (1, 2)}, r"rte.settings\.json: seeds was \[1\] when the run began, and is \[1, 2\] now"),
        ({"model": "small"}, "was tiny when the .* began, and is small now"),
    ],
)
def test_another_suite_in_the_same_folder_is_refused(
    make: Callable[..., SuiteSettings], changes: dict[str, Any], message: str
) -> None:
    run_suite(make(tasks=("rte",)))
    with pytest.raises(InputError, match=message):
        run_suite(make(**{"tasks": ("rte",), **changes}))


def test_another_model_under_the_same_name_is_refused(
    make: Callable[..., SuiteSettings], save_classifier: Callable[..., Path]
) -> None:
    model = save_classifier()
    run_suite(make(tasks=("rte",), model=str(model)))
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    with pytest.raises(InputError, match=r"weights_sha256 was [0-9a-f]{64} when the suite began"):
        run_suite(make(tasks=("rte", "cola"), model=str(model)))


def test_bad_settings_are_told_before_anything_is_written(
    make: Callable[..., SuiteSettings], tmp_path: Path, write_glue: Callable[..., Path]
) -> None:
    with pytest.raises(InputError, match="there is no GLUE task 'sst5'"):
        make(tasks=("sst5",))
    with pytest.raises(InputError, match="ax has no training data"):
        make(tasks=("ax",))
    with pytest.raises(InputError, match="bells and whistles need teachers"):
        make(bells_and_whistles=True)
    with pytest.raises(InputError, match="presets 'x' are unknown"):
        run_suite(make(presets="x"))
    (tmp_path / "teachers" / "mnli").mkdir(parents=True)
    with pytest.raises(InputError, match=r"teachers: no teacher for mnli; put a finetuned one in .*teachers/mnli"):
        run_suite(make(teachers=str(tmp_path / "teachers")))
    assert not make().output.exists()
    # The last task's file is missing: found out before the first is run.
    data = write_glue(tmp_path / "glue")
    (data / "RTE" / "dev.tsv").unlink()
    with pytest.raises(InputError, match=r"rte: no dev\.tsv"):
        run_suite(make(data_dir=data))
    assert not list(make().output.glob("*/settings.json"))


def test_a_teacher_with_other_labels_is_told_before_the_first_run(
    make: Callable[..., SuiteSettings], tmp_path: Path, save_classifier: Callable[..., Path]
) -> None:
    labels = {"mnli": GLUE["mnli"].labels, "cola": GLUE["cola"].labels, "rte": ("yes", "no")}
    for name, each in labels.items():
        shutil.copytree(save_classifier(each), tmp_path / "teachers" / name)
    with pytest.raises(InputError, match="its labels are yes, no, but those of rte are entailment, not_entailment"):
        run_suite(make(teachers=str(tmp_path / "teachers")))
    assert not make().output.exists()


def test_a_teacher_whose_layers_cannot_be_compared_is_told_before_the_first_run(
    make: Callable[..., SuiteSettings], tmp_path: Path, save_classifier: Callable[..., Path]
) -> None:
    path = tmp_path / "presets.toml"
    path.write_text(path.read_text().replace("[rte]\n", "[rte]\nhidden = 1.0\n"))
    student = run_suite(make(output=tmp_path / "students", tasks=("mnli",)))
    for name in _TASKS:
        shutil.copytree(save_classifier(GLUE[name].labels), tmp_path / "teachers" / name)
    changes = {"model": str(student / "mnli"), "teachers": str(tmp_path / "teachers")}
    with pytest.raises(InputError, match=r"teachers/rte: .*leave hidden out"):
        run_suite(make(**changes))
    assert not make().output.exists()


def test_a_run_that_is_at_work_is_left_alone(make: Callable[..., SuiteSettings]) -> None:
    settings = make(tasks=("rte",))
    glue_suite._begin(settings)
    with occupy(settings.output / "rte", resume=False):
        being_written = settings.output / "rte" / ".settings.json.1.tmp"
        being_written.touch()
        with pytest.raises(InputError, match="another run is at work in this folder"):
            run_suite(settings)
        assert being_written.exists()


def test_a_folder_with_other_files_is_refused(make: Callable[..., SuiteSettings]) -> None:
    output = make().output
    output.mkdir()
    (output / "notes.txt").touch()
    with pytest.raises(InputError, match="holds files, but no GLUE suite"):
        run_suite(make())


def test_a_suite_has_one_table_of_presets(make: Callable[..., SuiteSettings]) -> None:
    run_suite(make(tasks=("cola",)))
    with pytest.raises(InputError, match=r"presets was .* when the suite began, and is small-laptop now"):
        run_suite(make(tasks=("rte",), presets="small-laptop"))


def test_bells_and_whistles_start_from_mnlis_student_with_a_teacher_for_each(
    make: Callable[..., SuiteSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teachers = run_suite(make(output=tmp_path / "teachers"))
    ran = []
    finetune = glue_suite.finetune
    monkeypatch.setattr(glue_suite, "finetune", lambda settings: ran.append(settings) or finetune(settings))
    settings = make(bells_and_whistles=True, teachers=str(teachers))
    output = run_suite(settings)
    assert output is not None
    student = str(output / "mnli")
    # The paper's chain: MNLI first, whose student starts all but CoLA.
    assert [(each.task, each.model) for each in ran] == [("mnli", "tiny"), ("cola", "tiny"), ("rte", student)]
    assert [each.teacher for each in ran] == [(str(tmp_path / "teachers" / name),) for name in ("mnli", "cola", "rte")]
    assert {(each.alpha, each.temperature) for each in ran} == {(0.9, 2.0)}
    records = {name: json.loads((output / name / "record.json").read_text()) for name in _TASKS}
    assert {name: record["start"] for name, record in records.items()} == {
        "mnli": "encoder", "cola": "encoder", "rte": "mnli",
    }  # fmt: skip
    text = (output / "scorecard.md").read_text()
    assert f"- Finetuned with bells and whistles; teachers: `{tmp_path / 'teachers'}`" in text
    assert "| rte | MNLI's student | seed 1 | 0.001 | 0.1 | 1 | 4 | 0.9 | 2 |" in text
    with pytest.raises(InputError, match="bells_and_whistles was True when the suite began, and is False now"):
        run_suite(make(teachers=str(teachers), tasks=("cola",)))


def test_without_bells_teachers_leave_the_start_alone(make: Callable[..., SuiteSettings], tmp_path: Path) -> None:
    teachers = run_suite(make(output=tmp_path / "teachers", tasks=("rte",)))
    assert teachers is not None
    # One teacher for all tasks, given by its own folder.
    output = run_suite(make(tasks=("rte",), teachers=str(teachers / "rte")))
    assert output is not None
    settings = json.loads((output / "rte" / "record.json").read_text())["settings"]
    assert (settings["model"], settings["teacher"]) == ("tiny", [str(teachers / "rte")])
    digest = hashlib.sha256()
    for file in ("config.json", "model.safetensors"):
        digest.update((teachers / "rte" / file).read_bytes())
    record = json.loads((output / "rte" / "record.json").read_text())
    assert record["teachers_sha256"] == {str(teachers / "rte"): digest.hexdigest()}
    assert "- Finetuned distilled; teachers: " in (output / "scorecard.md").read_text()


def test_the_chain_needs_mnli(make: Callable[..., SuiteSettings], tmp_path: Path) -> None:
    teachers = run_suite(make(output=tmp_path / "teachers"))
    chain = {"bells_and_whistles": True, "teachers": str(teachers)}
    with pytest.raises(InputError, match=r"rte starts from MNLI's student, which is not in .*; add mnli to --tasks"):
        run_suite(make(tasks=("rte",), **chain))
    run_suite(make(tasks=("mnli",), **chain))
    run_suite(make(tasks=("rte",), **chain))
    assert (make().output / "rte" / "record.json").exists()


def test_presets_follow_the_models_size(make: Callable[..., SuiteSettings]) -> None:
    assert [make(model=name, presets=None).preset_name for name in ("base", "small")] == ["base", "small"]


def test_a_search_is_checked_before_its_first_run(
    make: Callable[..., SuiteSettings], tmp_path: Path, write_glue: Callable[..., Path]
) -> None:
    with pytest.raises(InputError, match=r"learning_rate must be above 0 and below 1, not 3\.0"):
        search(make(tasks=("rte",)), [1e-3, 3.0], [0.1])
    data = write_glue(tmp_path / "glue")
    (data / "RTE" / "dev.tsv").unlink()
    with pytest.raises(InputError, match=r"rte: no dev\.tsv"):
        search(make(tasks=("cola", "rte"), data_dir=data), [1e-3], [0.1])
    assert not make().output.exists()


def test_a_search_ranks_what_it_tried(make: Callable[..., SuiteSettings], monkeypatch: pytest.MonkeyPatch) -> None:
    settings = make(tasks=("rte", "cola"))
    found = search(settings, [1e-3, 1e-5], [0.0, 0.1])
    assert list(found) == ["cola", "rte"]
    for tried in found.values():
        assert {(each["learning_rate"], each["dropout"]) for each in tried} == {
            (1e-3, 0.0), (1e-3, 0.1), (1e-5, 0.0), (1e-5, 0.1),
        }  # fmt: skip
        assert [each["mean"] for each in tried] == sorted((each["mean"] for each in tried), reverse=True)
    run = json.loads((settings.output / "rte" / "rate-1e-05-dropout-0" / "settings.json").read_text())["settings"]
    assert (run["learning_rate"], run["dropout"], run["epochs"]) == (1e-5, 0.0, 1)
    assert not list(settings.output.rglob("*.safetensors"))
    assert (settings.output / "search.md").read_text().count("\n| rte |") == 4
    monkeypatch.setattr(glue_suite, "finetune", lambda settings: pytest.fail("run again"))
    assert search(settings, [1e-3, 1e-5], [0.0, 0.1]) == found


def test_a_search_goes_on_where_a_trial_diverges(
    make: Callable[..., SuiteSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    finetune = glue_suite.finetune
    rates = []

    def diverging(settings: FinetuneSettings) -> object:
        rates.append(settings.learning_rate)
        if settings.learning_rate == 0.5:
            raise DivergedError("step 3: loss or gradient is not a finite number")
        return finetune(settings)

    monkeypatch.setattr(glue_suite, "finetune", diverging)
    settings = make(tasks=("rte",))
    found = search(settings, [0.5, 1e-3], [0.0])["rte"]
    assert rates == [0.5, 1e-3]
    assert [(each["learning_rate"], each["mean"] is None) for each in found] == [(1e-3, False), (0.5, True)]
    assert "| rte | accuracy | 0.5 | 0 | diverged |" in (settings.output / "search.md").read_text()
    # Another rate later: what was found stays, and what diverged is not tried again.
    assert [each["learning_rate"] for each in search(settings, [0.5, 1e-4], [0.0])["rte"]][-1] == 0.5
    assert rates == [0.5, 1e-3, 1e-4]
    kept = json.loads((settings.output / "search.json").read_text())
    assert sorted(each["learning_rate"] for each in kept["tasks"]["rte"]) == [1e-4, 1e-3, 0.5]
    (settings.output / "search.json").write_text(json.dumps({**kept, "weights_sha256": "0"}))
    with pytest.raises(InputError, match="weights_sha256 was 0 when the search began"):
        search(settings, [1e-4], [0.0])
