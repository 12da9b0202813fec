"""Measures one case with one contender: the program each measurement runs in."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import NoReturn

from . import catalogue
from .model import Sample


def _measure(case_name: str, contender_name: str, quick: bool) -> list[Sample]:
    case = catalogue.case(case_name)
    setting = case.setting(quick)
    if contender_name in case.floors:
        return list(case.floors[contender_name](setting))
    contender = catalogue.contender(contender_name)
    contender.open(setting)
    try:
        return list(case.measure(contender, setting))
    finally:
        contender.close()


def _ended(signal_number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(f"ended by signal {signal_number}")


def main(case_name: str, contender_name: str, quick: str, result: str) -> None:
    """Writes the samples, or what went wrong, as JSON to the file `result`."""
    signal.signal(signal.SIGTERM, _ended)
    maker = os.getpid()
    try:
        samples = _measure(case_name, contender_name, quick == "quick")
        answer = {"samples": [asdict(sample) for sample in samples]}
    except Exception as error:
        traceback.print_exc()
        answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
    if os.getpid() == maker:
        Path(result).write_text(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
