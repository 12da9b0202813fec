"""Checks the DLLs of a wheel for Windows.

Whatever they import must be in the wheel, or belong to Python or to the system. No module of Python may have
an import library beside it: linkers make one, and it is of no use, because nobody links with a module.

python3 .ci/matrix/windows_imports.py WHEEL
"""

import re
import sys
import zipfile

import pefile

# What every Windows 10 has: the universal C runtime is part of it.
SYSTEM = re.compile(r"(kernel32|advapi32|ntdll|api-ms-win-crt-[a-z]+-l1-1-0)\.dll")
PYTHON = re.compile(r"python3[0-9]*\.dll")
IMPORT_LIBRARY_OF_MODULE = re.compile(r"\.cp3[^/]*\.(dll\.a|lib|a)$")


def main(path):
    """Prints each DLL's imports; the exit status."""
    with zipfile.ZipFile(path) as wheel:
        useless = [name for name in wheel.namelist() if IMPORT_LIBRARY_OF_MODULE.search(name)]
        libraries = {name: wheel.read(name) for name in wheel.namelist() if name.endswith((".dll", ".pyd"))}
    own = {name.rpartition("/")[2].lower() for name in libraries}
    strange = []
    for name, data in libraries.items():
        program = pefile.PE(data=data)
        at_once = program.DIRECTORY_ENTRY_IMPORT
        later = getattr(program, "DIRECTORY_ENTRY_DELAY_IMPORT", [])
        found = [part.dll.decode().lower() for part in [*at_once, *later]]
        print(f"{name}: {', '.join(found)}")
        strange += [
            dll for dll in found if dll not in own and not PYTHON.fullmatch(dll) and not SYSTEM.fullmatch(dll)
        ]
    faults = [f"neither of the wheel nor of the system: {', '.join(strange)}"] if strange else []
    faults += [f"import library of a module: {name}" for name in useless]
    faults += [] if libraries else ["there is no DLL in it"]
    print("\n".join(faults), end="\n" if faults else "")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
