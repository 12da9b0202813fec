"""C++ programs on an installed cpp/, found by pkg-config, CMake and Meson: each built and run."""

import build_tools
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]  # compilers may take long

PROGRAM = """
#include <cstdio>
#include <sharedmem/home.hpp>

int main() {
  sharedmem::allocation a = sharedmem::home().allocate(1000);
  a.data[999] = std::byte{7};
  std::printf("%d\\n", std::to_integer<int>(a.data[999]));
  sharedmem::release(a.ref);
}
"""

CMAKE = """
cmake_minimum_required(VERSION 3.18)
project(consumer CXX)
find_package(sharedmem @version@ REQUIRED)
add_executable(consumer main.cpp)
target_link_libraries(consumer PRIVATE sharedmem::sharedmem)
"""

MESON = """
project('consumer', 'cpp', default_options: 'cpp_std=c++20')
executable('consumer', 'main.cpp', dependencies: dependency('sharedmem', version: '>=@version@'))
"""


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    """Where cpp/ was installed, alone."""
    build_tools.needs("c++", "ninja", modules=["mesonbuild"])
    folder = tmp_path_factory.mktemp("downstream")
    prefix = folder / "prefix"
    build_tools.meson(
        "setup", folder / "build", build_tools.CPP, "--prefix", prefix, "--libdir", "lib", "-Dtests=disabled"
    )
    build_tools.meson("install", "-C", folder / "build")
    return prefix


@pytest.fixture
def consumer(prefix, tmp_path):
    """A function that writes a consumer's folder: its build file, if it has one, and main.cpp."""

    def make(build_file=None, text=""):
        (tmp_path / "main.cpp").write_text(PROGRAM)
        if build_file is not None:
            version = (build_tools.CPP / "VERSION").read_text().strip()
            (tmp_path / build_file).write_text(text.replace("@version@", version))
        return tmp_path

    return make


@pytest.fixture
def finding(prefix):
    """Environment in which the installed library is found, to build with and to run with."""
    return build_tools.environment(
        PKG_CONFIG_PATH=str(prefix / "lib" / "pkgconfig"),
        CMAKE_PREFIX_PATH=str(prefix),
        LD_LIBRARY_PATH=str(prefix / "lib"),
    )


def check(program, env):
    assert build_tools.run(program, env=env) == "7\n"


def test_pkg_config(consumer, finding):
    build_tools.needs("pkg-config")
    folder = consumer()
    flags = build_tools.run("pkg-config", "--cflags", "--libs", "sharedmem", env=finding).split()
    build_tools.run("c++", "main.cpp", "-o", "consumer", *flags, cwd=folder)
    check(folder / "consumer", finding)


def test_cmake(consumer, finding):
    build_tools.needs("cmake")
    folder = consumer("CMakeLists.txt", CMAKE)
    build_tools.run("cmake", "-G", "Ninja", "-S", folder, "-B", folder / "build", env=finding)
    build_tools.run("cmake", "--build", folder / "build", env=finding)
    check(folder / "build" / "consumer", finding)


def test_meson(consumer, finding):
    build_tools.needs("pkg-config")
    folder = consumer("meson.build", MESON)
    build_tools.meson("setup", folder / "build", folder, env=finding)
    build_tools.meson("compile", "-C", folder / "build", env=finding)
    check(folder / "build" / "consumer", finding)
