"""``python -m sharedmem``: a demonstration, and a look at the shared memory in use."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from sharedmem import __version__
from sharedmem._cli.console import parse_bytes

_DEMO = """\
Several worker processes brighten a stack of images in place, and another process
compares the result, pixel by pixel, with what NumPy computes in a single process.
That is done for pickled copies, multiprocessing.Array and sharedmem with the same
work; a table shows for each the bytes sent between processes, seconds, and
memory. Nothing stays behind.
"""

_INFO = """\
Lists the shared-memory segments of this user, the processes that use this
library's, with the bytes each of them touched, and the participants of each
arena, alive and dead, with what each of them allocates from.
"""

_STATUS = """\
exit status: 0 all results are right; 1 one is wrong, or something failed;
2 the arguments cannot be used; 130 interrupted
"""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors take one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (--help tells more)\n")


def _size(text: str) -> int:
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _workers(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes, 1 or more")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m sharedmem",
        description="NumPy arrays in shared memory: a demonstration, and what is in use.",
    )
    parser.add_argument("--version", action="version", version=f"sharedmem {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    demo = commands.add_parser(
        "demo",
        help="processes work on one array: copies, multiprocessing.Array and sharedmem compared",
        description=_DEMO,
        epilog=_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    demo.add_argument(
        "--size",
        type=_size,
        metavar="BYTES",
        help="size of the stack, such as 256MiB (default: 1GiB, less where memory is short)",
    )
    demo.add_argument(
        "--workers",
        type=_workers,
        metavar="N",
        help="worker processes (default: one for each processor, 2 to 8)",
    )
    demo.add_argument(
        "--start-method",
        choices=multiprocessing.get_all_start_methods(),
        help="how processes are started (default: %(default)s)",
        default=multiprocessing.get_start_method(allow_none=True)
        or multiprocessing.get_all_start_methods()[0],
    )

    info = commands.add_parser(
        "info",
        help="shared-memory segments of this user, and who uses them",
        description=_INFO,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    info.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    return parser


def _demo(options: argparse.Namespace) -> int:
    from sharedmem._cli import demo

    try:
        return demo.run(options.size, options.workers, options.start_method)
    except demo.InputError as error:
        print(f"python -m sharedmem demo: error: {error}", file=sys.stderr)
        return 2
    except (demo.WorkerError, MemoryError, OSError) as error:
        print(f"python -m sharedmem demo: failed: {error}", file=sys.stderr)
        return 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command that `arguments` name and gives the exit status."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "demo":
            return _demo(options)
        from sharedmem._cli import info

        return info.run(as_json=options.json)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output went away (`... | head`): that is its right. Python flushes
        # standard output once more at exit and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1  # as rich does


if __name__ == "__main__":
    sys.exit(main())
