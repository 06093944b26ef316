"""Keras answers each program as if it had been started for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.keras_process import Keras

PROGRAM = """
import keras, os
print(os.getcwd(), "left" in globals(), hasattr(keras, "left"), keras.layers.Dense(1).name, keras.backend.floatx())
left = keras.left = True
keras.backend.set_floatx("float64")
"""


def test_a_program_finds_nothing_of_the_one_before_it(keras: Keras, tmp_path: Path) -> None:
    """No name, layer, setting or output; it runs in its folder, on the torch backend."""
    for _ in range(2):
        assert keras.run(PROGRAM, tmp_path) == f"{tmp_path} False False dense float32\n"
    assert keras.run("import keras; print(keras.backend.backend())", tmp_path) == "torch\n"


@pytest.mark.parametrize(("program", "said"), [("1 / 0", "ZeroDivisionError"), ("raise SystemExit('no')", "no")])
def test_a_program_that_fails_is_a_failure_with_its_traceback(
    keras: Keras, program: str, said: str, tmp_path: Path
) -> None:
    """It ends with what it said on standard error; the next program runs."""
    with pytest.raises(AssertionError, match=said):
        keras.run(program, tmp_path)
    assert keras.run("print('next')", tmp_path) == "next\n"
