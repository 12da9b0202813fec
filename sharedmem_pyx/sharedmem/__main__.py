"""``python -m sharedmem``: a demonstration, and reports on the shared memory in use."""

from __future__ import annotations

import argparse
import errno
import io
import multiprocessing
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

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
arena, alive and dead, with what each of them allocates from; and the names of
arrays and locks, with who builds them, or has them.
"""

_TOP = """\
Arenas, processes and names of this user, refreshed until q or Ctrl-C is pressed.
Where standard output is no terminal, or TERM is "dumb", they are printed once.
"""

_PROBE = """\
Tells what this Windows does with shared memory, one fact per line, and whether the
library works on it: for the library's authors, who have not tried it on every
system. It takes some seconds and 300 MiB, and changes nothing.
"""

_UNLINK = """\
Takes names away, of this user and SHAREDMEM_NAMESPACE. Arrays stay with the
processes that have them. A name that is being built belongs to the process that
builds; end that one.
"""

_NEEDS_RICH = "python -m sharedmem {command}: error: it needs rich: pip install 'numpy-sharedmem[cli]'"

_STATUS = """\
exit status: 0 all results are right; 1 one is wrong, or something failed;
2 the arguments cannot be used; 130 interrupted
"""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors take one line, and that does not hide that its help could not be written."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is None or file is not sys.stdout:
            super()._print_message(message, file)
        else:
            file.write(message)
            file.flush()


def _size(text: str) -> int:
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _workers(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes, 1 or more")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0.1 to 3600")
    return seconds


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

    top = commands.add_parser(
        "top",
        help="arenas, processes and names, refreshed until q is pressed",
        description=_TOP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument(
        "--interval",
        type=_seconds,
        default=1.0,
        metavar="SECONDS",
        help="time between two looks (default: %(default)g)",
    )

    commands.add_parser(
        "probe",
        help="what this Windows does with shared memory, to be sent to the authors",
        description=_PROBE,
        epilog="exit status: 0 the library works here; 1 it does not, or this is not Windows",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    unlink = commands.add_parser(
        "unlink",
        help="take names of arrays away",
        description=_UNLINK,
        epilog="exit status: 0 all are gone; 1 one could not be taken away, which is said; 2 bad arguments; "
        "130 interrupted",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    unlink.add_argument("names", nargs="+", metavar="NAME", help="as it was given to create or get_or_create")
    unlink.add_argument(
        "--missing-ok", action="store_true", help="a name that does not exist is not an error"
    )
    return parser


def _demo(options: argparse.Namespace) -> int:
    from sharedmem._cli import demo

    try:
        return demo.run(options.size, options.workers, options.start_method)
    except demo.InputError as error:
        print(f"python -m sharedmem demo: error: {error}", file=sys.stderr)
        return 2
    except (demo.WorkerError, MemoryError) as error:
        print(f"python -m sharedmem demo: failed: {error}", file=sys.stderr)
        return 1


def _top(interval: float) -> int:
    try:
        from sharedmem._cli import top

        return top.run(interval)
    except ImportError as error:
        if not (error.name or "").startswith("rich"):
            raise
        print(
            "python -m sharedmem top: error: it needs rich: pip install 'numpy-sharedmem[cli]'",
            file=sys.stderr,
        )
        return 2


def _unlink(names: Sequence[str], missing_ok: bool) -> int:
    from sharedmem import unlink

    status = 0
    for name in names:
        try:
            unlink(name, missing_ok=missing_ok)
        except (OSError, ValueError) as error:
            print(f"python -m sharedmem unlink: error: {error}", file=sys.stderr)
            status = 1
    return status


def _probe() -> int:
    if sys.platform != "win32":
        raise OSError("probe works on Windows only")
    from sharedmem._cli import probe

    return probe.run()


def _run(options: argparse.Namespace) -> int:
    if options.command == "demo":
        return _demo(options)
    if options.command == "probe":
        return _probe()
    if options.command == "top":
        return _top(options.interval)
    if options.command == "unlink":
        return _unlink(options.names, options.missing_ok)
    from sharedmem._cli import info

    return info.run(as_json=options.json)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command that `arguments` name and gives the exit status."""
    called = "python -m sharedmem"
    if isinstance(sys.stdout, io.TextIOWrapper):  # names may have characters that its encoding has not
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        options = _parser().parse_args(arguments)
        called += f" {options.command}"
        status = _run(options)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where a failure can still be reported
        return status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except OSError as error:
        if not _reader_has_gone(error):
            print(f"{called}: error: {error}", file=sys.stderr)
        _drop_output()
        return 1  # as rich does when the reader has gone


def _reader_has_gone(error: OSError) -> bool:
    """Whether the reader of our output has closed it (`... | head`), which is no error.

    Of a pipe, Windows says that it is an invalid argument.
    """
    if sys.platform == "win32" and error.args == (errno.EINVAL, os.strerror(errno.EINVAL)):
        return True
    return isinstance(error, BrokenPipeError)


def _drop_output() -> None:
    """Python flushes standard output once more at exit: not to where it has just failed."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
