"""Settings and the numbers in messages mean the same in every locale."""

import shutil
import subprocess

import pytest
from support import TIMEOUT, check_python


@pytest.fixture(scope="module")
def comma(tmp_path_factory):
    """The folder of a locale, for LOCPATH, that writes one half as "0,5"."""
    if shutil.which("localedef") is None:
        pytest.skip("needs localedef")
    folder = tmp_path_factory.mktemp("locales")
    source = folder / "source"
    source.write_text(
        'LC_NUMERIC\ndecimal_point "<U002C>"\nthousands_sep "<U002E>"\ngrouping 3;3\nEND LC_NUMERIC\n'
    )
    # Everything else is missing, which it warns of.
    command = [
        "localedef",
        "-c",
        "-i",
        str(source),
        "-f",
        "UTF-8",
        "--no-archive",
        str(folder / "xx_XX.UTF-8"),
    ]
    done = subprocess.run(command, capture_output=True, timeout=TIMEOUT)
    if not (folder / "xx_XX.UTF-8" / "LC_NUMERIC").exists():
        pytest.skip(f"localedef: {done.stderr.decode(errors='replace').strip()[-200:]}")
    return str(folder)


# As programs do that heed the user's locale: Qt, GTK, R, `locale.setlocale(LC_ALL, "")`.
HEEDS = """
import ctypes, locale, os
locale.setlocale(locale.LC_NUMERIC, "xx_XX.UTF-8")
assert locale.localeconv()["decimal_point"] == ","
import sharedmem
"""


def test_sizes_and_seconds_do_not_depend_on_the_locale(comma):
    code = (
        HEEDS
        + """
sharedmem.new_arena()
print(sharedmem.memory_limit()["cache"])
"""
    )
    settings = {"SHAREDMEM_CACHE_LIMIT": "0.5GiB", "SHAREDMEM_LINGER": "0.5", "SHAREDMEM_ARENA_SIZE": "1.5e9"}
    assert check_python(code, LOCPATH=comma, **settings) == str(1 << 29)


def test_a_decimal_comma_is_invalid_in_any_locale(comma):
    code = (
        HEEDS
        + """
for name in "SHAREDMEM_CACHE_LIMIT", "SHAREDMEM_LINGER", "SHAREDMEM_ARENA_SIZE":
    os.environ[name] = "1,5"
    try:
        sharedmem.new_arena()
        print("taken", name)
    except ValueError as error:
        assert name in str(error), error
    del os.environ[name]
"""
    )
    assert check_python(code, LOCPATH=comma) == ""


def test_numbers_in_messages_do_not_depend_on_the_locale(comma):
    code = (
        HEEDS
        + """
try:
    sharedmem.empty(15 << 57, "u1")
except MemoryError as error:
    print(error)
"""
    )
    assert "cannot allocate 1.9 EiB (" in check_python(code, LOCPATH=comma)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("512M", 512 << 20),
        ("1e9", 10**9),
        (" 2 GiB", 2 << 30),
        ("+3k", 3 << 10),
        (".5T", 1 << 39),
        ("7B", 7),
        ("1GB", 10**9),
        ("2kb", 2000),
    ],
)
def test_what_is_a_size(text, expected):
    code = "import sharedmem; sharedmem.new_arena(); print(sharedmem.memory_limit()['cache'])"
    assert check_python(code, SHAREDMEM_CACHE_LIMIT=text) == str(expected)


@pytest.mark.parametrize("text", ["-1", "GiB", "1,5", "nan", "0x10", "5 apples", "1 2", "1e30", "inf"])
def test_invalid_sizes(text):
    code = """
import sharedmem
try:
    sharedmem.new_arena()
except ValueError as error:
    assert "SHAREDMEM_CACHE_LIMIT" in str(error), error
    print("refused")
"""
    assert check_python(code, SHAREDMEM_CACHE_LIMIT=text) == "refused"
