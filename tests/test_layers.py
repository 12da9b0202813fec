"""The C++ library's layers: no file includes a header of a layer above its own."""

import re

import build_tools

SOURCES = build_tools.CPP / "src"

#: Folders of cpp/src from the lowest to the highest; cpp/README.rst says what each may know. The files of
#: cpp/src itself come last.
ORDER = ("os", "segment", "shared", "heap", "references", "members", ".")

#: Public headers that a layer below the files of cpp/src may include: values, errors, what os/ implements.
PLAIN = {"error.hpp", "export.hpp", "segment.hpp", "handle.hpp", "robust_mutex.hpp"}


def layer(path):
    """The index in ORDER of the folder that a source lies in."""
    parts = path.relative_to(SOURCES).parts
    return ORDER.index(parts[0] if len(parts) > 1 else ".")


def includes(path):
    """The project's own headers that a source includes: (public or not, path as it is written)."""
    for line in path.read_text().splitlines():
        if found := re.match(r'#include (?:<sharedmem/(.+)>|"(.+)")', line):
            yield bool(found[1]), found[1] or found[2]


def sources():
    return sorted(p for p in SOURCES.rglob("*.[ch]pp"))


def test_every_folder_has_its_place_in_the_order():
    assert {p.name for p in SOURCES.iterdir() if p.is_dir()} == set(ORDER) - {"."}


def test_no_include_runs_upward():
    wrong = []
    for path in sources():
        for public, name in includes(path):
            if public:
                upward = ORDER[layer(path)] != "." and name not in PLAIN
            else:
                assert (SOURCES / name).is_file(), f"{path}: includes are written relative to cpp/src: {name}"
                upward = layer(SOURCES / name) > layer(path)
            if upward:
                wrong.append(f"{path.relative_to(SOURCES)} includes {name}")
    assert wrong == []


def test_no_public_header_includes_an_internal_one():
    public = build_tools.CPP / "include/sharedmem"
    wrong = [(p.name, name) for p in public.glob("*.hpp") for is_public, name in includes(p) if not is_public]
    assert wrong == []


def test_only_the_lowest_layer_includes_headers_of_the_system():
    own = re.compile(r"#include <((?:sys|linux|asm)/[^>]+|(?:unistd|sched|fcntl|pthread|signal|dirent)\.h)>")
    found = {
        str(path.relative_to(SOURCES)): own.findall(path.read_text())
        for path in sources()
        if own.search(path.read_text()) and ORDER[layer(path)] != "os"
    }
    assert found == {}
