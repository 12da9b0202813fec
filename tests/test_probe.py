"""`python -m sharedmem probe`: what it prints on Windows, and that it is for Windows only."""

import sys

import commands
import pytest


@pytest.mark.skipif(sys.platform == "win32", reason="tests what other systems say")
def test_it_says_that_it_is_for_windows():
    status, out, err = commands.run("probe")
    assert (status, out) == (1, "")
    assert err == "python -m sharedmem probe: error: probe works on Windows only\n"


@pytest.mark.skipif(sys.platform != "win32", reason="for Windows only")
def test_each_fact_is_a_line_and_the_library_works():
    status, out, err = commands.run("probe")
    assert (status, err) == (0, ""), err
    facts = {line[:68].strip(): line[69:].strip() for line in out.splitlines()}
    for what in (
        "a reserved section can be made",
        "it can be seen whole, twice",
        "one piece of it can be committed",
        "... again",
        "a committed page can be made inaccessible",
    ):
        assert facts[what] == "yes", what
    assert facts["with views but no handle left it can be opened by name"].startswith("no, ")
    assert facts["the other view sees what was committed and written"] == "True"
    assert facts["the lock of a killed process is inherited"] == "True"
    assert "commit limit" in facts["twice the commit limit is a MemoryError"]
    assert facts["the library works here"] == "True"
