"""Code of docs/devices.md: the Java and C of an app for Android run here, and give the engine's logits."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from squeezebert.export.native import export
from squeezebert.runtime.engines.native import NativeEngine

_ROOT = Path(__file__).resolve().parents[2]
_DEVICES = _ROOT / "docs" / "devices.md"
_MAIN = """
package org.example;

public final class Main {
    public static void main(String[] arguments) {
        SqueezeBert model = new SqueezeBert(arguments[0], 2);
        for (int text = 1; text < arguments.length; ++text) {
            String[] words = arguments[text].split(" ");
            int[] ids = new int[words.length];
            for (int i = 0; i < ids.length; ++i) ids[i] = Integer.parseInt(words[i]);
            try {
                StringBuilder line = new StringBuilder();
                for (float logit : model.logits(ids)) line.append(logit).append(' ');
                System.out.println(line);
            } catch (IllegalArgumentException problem) {
                System.out.println(problem.getMessage());
            }
        }
        model.close();
        model.close();
        try {
            model.logits(new int[] {1});
        } catch (IllegalStateException problem) {
            System.out.println(problem.getMessage());
        }
        try {
            new SqueezeBert("absent", 2);
        } catch (IllegalArgumentException problem) {
            System.out.println(problem.getMessage());
        }
    }
}
"""


def block(language: str) -> str:
    """The one fenced block of a language."""
    (code,) = re.findall(rf"^```{language}\n(.*?)^```$", _DEVICES.read_text(), re.MULTILINE | re.DOTALL)
    return str(code)


def succeed(*command: str | Path) -> str:
    """What a command printed."""
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def jni_headers() -> list[str | Path]:
    """The compiler's arguments for jni.h of the installed JDK."""
    javac = shutil.which("javac")
    if javac is None or shutil.which("java") is None:
        pytest.skip("needs a JDK (javac, java)")
    include = Path(javac).resolve().parents[1] / "include"
    systems = [each.parent for each in include.glob("*/jni_md.h")]
    if not systems:
        pytest.skip("needs the JDK's C headers (jni.h)")
    return [part for folder in (include, *systems) for part in ("-I", folder)]


def tool(name: str) -> str:
    """A program of this machine."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name}")
    return found


@pytest.mark.slow
def test_java(native_library: Path, save_classifier: Callable[..., Path], tmp_path: Path) -> None:
    headers, cc = jni_headers(), tool("cc")
    for name, code in (("SqueezeBert.java", block("java")), ("Main.java", _MAIN), ("squeezebert_jni.c", block("c"))):
        (tmp_path / name).write_text(code)
    succeed("javac", "-Xlint:all", "-Werror", "-d", tmp_path, tmp_path / "SqueezeBert.java", tmp_path / "Main.java")
    strict = ("-std=c11", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror")
    library = (native_library, f"-Wl,-rpath,{native_library.parent}")
    folders = (*headers, "-I", _ROOT / "native" / "include")
    shared = tmp_path / "libsqueezebert_jni.so"
    succeed(cc, *strict, *folders, "-shared", "-fPIC", "-o", shared, tmp_path / "squeezebert_jni.c", *library)

    export(save_classifier(), tmp_path / "artifact")
    engine = NativeEngine.load(tmp_path / "artifact")
    draw = np.random.default_rng(0)
    texts = [draw.integers(0, engine.tokenizer.vocab_size, length) for length in (1, 5, 31, 128)]
    words = [" ".join(map(str, text)) for text in texts]
    # -Xcheck:jni: the virtual machine watches what the C code does with it.
    command = ["java", "-Xcheck:jni", f"-Djava.library.path={tmp_path}", "-cp", tmp_path, "org.example.Main"]
    lines = succeed(*command, tmp_path / "artifact", *words, "5 1000000").splitlines()
    want = engine.run_ragged(np.concatenate(texts), None, np.array([len(text) for text in texts]), logits=True)
    got = np.array([line.split() for line in lines[: len(texts)]], np.float32)
    np.testing.assert_array_equal(got, want["logits"])
    outside, closed, absent = lines[len(texts) :]
    assert "id 1000000 is outside the vocabulary" in outside
    assert closed == "the model was closed"
    assert absent.startswith("absent")


def test_the_apps_cmake_lists(tmp_path: Path) -> None:
    """The CMakeLists.txt of an app finds the engine's."""
    cmake, _ = tool("cmake"), tool("c++")
    (tmp_path / "CMakeLists.txt").write_text(block("cmake"))
    (tmp_path / "squeezebert_jni.c").write_text(block("c"))
    (tmp_path / "squeezebert").mkdir()
    (tmp_path / "squeezebert" / "native").symlink_to(_ROOT / "native")
    succeed(cmake, "-S", tmp_path, "-B", tmp_path / "build")
    assert "squeezebert_jni" in succeed(cmake, "--build", tmp_path / "build", "--target", "help")
