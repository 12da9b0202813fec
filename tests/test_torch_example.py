"""The tutorial of torch's DataLoader, run as its reader would."""

import build_tools
import pytest
from test_examples import run_example

PROGRAM = build_tools.ROOT / "doc" / "examples" / "engines" / "data_loader.py"


def test_the_tutorial(start_method):
    pytest.importorskip("torch")
    assert run_example(PROGRAM, start_method) == PROGRAM.with_suffix(".out").read_text().strip()
