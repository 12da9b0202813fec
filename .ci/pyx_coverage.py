"""Coverage of Cython lines, from what gcov counted in the C++ that Cython made of them.

    python .ci/pyx_coverage.py BUILD_FOLDER

Cython writes the place of each statement above the code it becomes. A line counts as run if any of its
code was; what is left are lines that no test came to, but not single errors that never occurred.
"""

import itertools
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

_PLACE = re.compile(r' */\* "sharedmem/([\w/]+)\.pyx":(\d+)$')


def lines_by_code(text, module):
    """For each line of generated code the line of `module` that it belongs to, or None."""
    now = None
    for line in text.splitlines():
        place = _PLACE.match(line)
        if place:
            now = int(place[2]) if place[1] == module else None
        elif line.startswith("}"):
            now = None  # the end of a function
        yield now


def counts(build):
    """{module: {line: how often it was run}} of all modules in a build folder."""
    found = {}
    for generated in build.glob("sharedmem_pyx/sharedmem/_core.*.p/**/*.pyx.cpp"):
        folder = next(each for each in generated.parents if each.name.endswith(".p"))
        module = generated.relative_to(folder).as_posix().removesuffix(".pyx.cpp")
        # Object files lie flat in the folder: Meson writes each "/" of a name as "_".
        data = folder / f"meson-generated_{module.replace('/', '_')}.pyx.cpp.gcda"
        if not data.exists():
            continue  # nobody has imported it
        line_of = [None, *lines_by_code(generated.read_text(), module)]
        gcov = ["gcov", "--json-format", "--stdout", str(data.relative_to(build))]
        text = subprocess.run(gcov, cwd=build, capture_output=True, check=True, text=True).stdout
        runs = found.setdefault(module, Counter())
        for file in json.loads(text)["files"]:
            if file["file"].endswith(generated.name):
                for line in file["lines"]:
                    if line_of[line["line_number"]] is not None:
                        runs[line_of[line["line_number"]]] += line["count"]
    return found


def ranges(lines):
    """Line numbers as text: ``"3-5,9"``."""
    parts = []
    for _, group in itertools.groupby(enumerate(lines), lambda pair: pair[1] - pair[0]):
        numbers = [number for _, number in group]
        parts.append(f"{numbers[0]}-{numbers[-1]}" if len(numbers) > 1 else f"{numbers[0]}")
    return ",".join(parts)


def main():
    everything = counts(Path(sys.argv[1]))
    total = run = 0
    for name, lines in sorted(everything.items()):
        missing = sorted(line for line, count in lines.items() if count == 0)
        total, run = total + len(lines), run + len(lines) - len(missing)
        print(f"{name + '.pyx':14} {len(lines):5} {1 - len(missing) / len(lines):6.0%}  {ranges(missing)}")
    print(f"{'TOTAL':14} {total:5} {run / total:6.0%}")


if __name__ == "__main__":
    main()
