"""Two programs that know nothing of each other but a name: a notebook, and a script that measures."""

import subprocess
import sys

import sharedmem

SCRIPT = """
import sharedmem
samples = sharedmem.attach("meet-by-name/samples", timeout=60)
for i in range(len(samples)):
    samples[i] = i * i
"""


def main():
    samples = sharedmem.create("meet-by-name/samples", 6)
    print("names:", [info.name for info in sharedmem.names() if info.name.startswith("meet-by-name/")])
    subprocess.run([sys.executable, "-c", SCRIPT], check=True)  # in another terminal
    print(samples)


if __name__ == "__main__":
    main()
