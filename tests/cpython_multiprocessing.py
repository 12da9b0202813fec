"""CPython's own tests of multiprocessing, run without this library, with it imported, and with transport on.

Usage: python tests/cpython_multiprocessing.py [START_METHOD ...]

Every interpreter that the tests start imports the library, by a sitecustomize module. The outcome of each
test is compared with that of the run without the library: the exit status is 0 if they are the same. One that
differs is run again, since some fail on a busy machine. It takes minutes, and needs an interpreter that has
its package `test`.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

#: Runs by name: whether the library is imported, and the environment variable of `sharedmem.transport`.
RUNS = {"without": (False, ""), "imported": (True, ""), "transport": (True, "min_bytes=1")}

MODULE = """
import test._test_multiprocessing
test._test_multiprocessing.install_tests_in_module_dict(globals(), {method!r})
"""

# Runs all tests of the module, or those whose name contains one of the words, and writes their outcomes.
RUNNER = """
import json, sys, unittest

class Outcomes(unittest.TextTestResult):
    def stopTest(self, test):
        super().stopTest(test)
        found.setdefault(test.id(), "passed")

    def addSubTest(self, test, subtest, error):
        super().addSubTest(test, subtest, error)
        if error is not None:
            found[test.id()] = "failed"

def noting(name, outcome):
    add = getattr(unittest.TextTestResult, name)
    def method(self, test, *rest):
        add(self, test, *rest)
        found[test.id()] = outcome
    setattr(Outcomes, name, method)

for name, outcome in (("addError", "error"), ("addFailure", "failed"), ("addSkip", "skipped")):
    noting(name, outcome)

if __name__ == "__main__":
    found = {}
    loader = unittest.TestLoader()
    if sys.argv[2:]:
        loader.testNamePatterns = [f"*{word}*" for word in sys.argv[2:]]
    tests = loader.loadTestsFromName("mp_tests")
    unittest.TextTestRunner(resultclass=Outcomes, verbosity=2).run(tests)
    with open(sys.argv[1], "w") as file:
        json.dump(found, file)
"""


def run(method, imported, transport, words=()):
    """The outcome of each test of one start method, by name."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "sitecustomize.py").write_text("import sharedmem\n" if imported else "")
        (folder / "mp_tests.py").write_text(MODULE.format(method=method))
        (folder / "runner.py").write_text(RUNNER)
        env = dict(os.environ, PYTHONPATH=str(folder), SHAREDMEM_TRANSPORT=transport)
        env.pop("SHAREDMEM_ARENA", None)
        command = [sys.executable, "runner.py", "outcomes.json", *words]
        with open(folder / "said", "w+") as said:
            done = subprocess.run(command, env=env, cwd=folder, stdout=said, stderr=said)
            if done.returncode != 0:
                said.seek(0)
                raise RuntimeError(f"the tests did not run to their end:\n{said.read()[-2000:]}")
        return json.loads((folder / "outcomes.json").read_text())


def compare(method, words=()):
    """Runs the tests of one start method; the number of outcomes that differ."""
    results = {}
    for name, (imported, transport) in RUNS.items():
        results[name] = run(method, imported, transport, words)
        counted = {
            kind: list(results[name].values()).count(kind) for kind in sorted(set(results[name].values()))
        }
        print(f"{method}, {name}: {len(results[name])} tests, {counted}", flush=True)
    different = 0
    for name in ("imported", "transport"):
        for test in sorted(results["without"].keys() | results[name].keys()):
            before, now = results["without"].get(test), results[name].get(test)
            if before != now:
                again = outcomes_again(method, name, test)
                different += before not in again
                print(f"  {name}: {test}: {before} without, {now} with; then alone: {', '.join(again)}")
    return different


def outcomes_again(method, name, test):
    """The outcome of one test alone, run three times, since some fail on a busy machine."""
    word = test.partition(".")[2]
    return [run(method, *RUNS[name], [word]).get(test, "not run") for _ in range(3)]


def main():
    different = sum(compare(method) for method in sys.argv[1:] or ("fork", "spawn"))
    print("all outcomes are the same" if different == 0 else f"{different} outcomes differ")
    return different != 0


if __name__ == "__main__":
    sys.exit(main())
