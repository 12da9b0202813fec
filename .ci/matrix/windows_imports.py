"""What the DLLs in a wheel for Windows import: fails unless it is of the wheel, of Python or of the system.

python3 .ci/matrix/windows_imports.py WHEEL
"""

import re
import sys
import zipfile

import pefile

# What every Windows 10 has: the universal C runtime is part of it.
SYSTEM = re.compile(r"(kernel32|advapi32|ntdll|api-ms-win-crt-[a-z]+-l1-1-0)\.dll")
PYTHON = re.compile(r"python3[0-9]*\.dll")


def main(path):
    """Prints each DLL's imports; the exit status."""
    with zipfile.ZipFile(path) as wheel:
        libraries = {name: wheel.read(name) for name in wheel.namelist() if name.endswith((".dll", ".pyd"))}
    own = {name.rpartition("/")[2].lower() for name in libraries}
    strange = []
    for name, data in libraries.items():
        found = [part.dll.decode().lower() for part in pefile.PE(data=data).DIRECTORY_ENTRY_IMPORT]
        print(f"{name}: {', '.join(found)}")
        strange += [
            dll for dll in found if dll not in own and not PYTHON.fullmatch(dll) and not SYSTEM.fullmatch(dll)
        ]
    if strange or not libraries:
        print(
            f"neither of the wheel nor of the system: {', '.join(strange)}"
            if strange
            else "there is no DLL in it"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
