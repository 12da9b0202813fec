"""Ranks that a launcher starts as programs of their own: one data set for all of them."""

import os
import subprocess
import sys

import numpy as np

import sharedmem


def read_tokens():
    return sharedmem.array(np.arange(12_000))


def rank():
    """What each rank does; `torchrun` sets these variables, too."""
    number, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    tokens = sharedmem.get_or_create("ranks-tokens-v1", read_tokens)
    mine = tokens[number::ranks]
    print(f"rank {number} of {ranks}: {len(mine)} tokens, sum {mine.sum()}")


def main():
    keeper = sharedmem.get_or_create("ranks-tokens-v1", read_tokens)  # until the last rank has ended
    ranks = [
        subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, "RANK": str(number), "WORLD_SIZE": "3"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    for each in ranks:
        print(each.communicate()[0], end="")
    print("read-only:", not keeper.flags.writeable)


if __name__ == "__main__":
    rank() if "RANK" in os.environ else main()
