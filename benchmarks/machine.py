"""Describes where the figures were taken."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

from .catalogue import versions


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _chosen(path: str) -> str:
    """The bracketed word of a kernel setting such as ``always [madvise] never``."""
    words = _read(path).split()
    return next((word.strip("[]") for word in words if word.startswith("[")), "absent")


def _field(path: str, key: str) -> str:
    for line in _read(path).splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return "unknown"


def describe() -> dict[str, str]:
    """Processor, memory, kernel, its settings that matter, versions and date."""
    pages = "/sys/kernel/mm/transparent_hugepage/"
    memory = int(_field("/proc/meminfo", "MemTotal").split()[0]) * 1024
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "processor": _field("/proc/cpuinfo", "model name"),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory / 2**30:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "huge pages": _chosen(pages + "enabled"),
        "huge pages in shared memory": _chosen(pages + "shmem_enabled"),
        "libc": " ".join(platform.libc_ver()),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "load before": f"{os.getloadavg()[0]:.2f}",
        **versions(),
    }
