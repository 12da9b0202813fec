"""The C++ tests: cpp/ built alone, with Meson, and run."""

import build_tools
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]  # compilers may take long

DOCTEST = "/usr/include/doctest/doctest.h"


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    build_tools.needs("c++", "ninja", modules=["mesonbuild"], files=[DOCTEST])
    folder = tmp_path_factory.mktemp("cpp") / "build"
    build_tools.meson("setup", folder, build_tools.CPP, "-Dtests=enabled", f"-Ddoctest={DOCTEST}")
    build_tools.meson("compile", "-C", folder)
    return folder


def test_contracts_of_the_library(build):
    build_tools.meson("test", "-C", build, "--no-rebuild", "--print-errorlogs")
