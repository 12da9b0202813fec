"""Finds cases and contenders by name."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from typing import TYPE_CHECKING

from .model import Case

if TYPE_CHECKING:
    from .contenders.base import Contender

#: Cases in the order of the report, each a module of `benchmarks.cases`.
CASES = (
    "start_up",
    "create_empty_small",
    "create_filled_small",
    "ones_frame",
    "ones_large_first",
    "ones_large_warm",
    "ones_by_size",
    "copy_threads",
    "numpy_allocator",
    "pickle_roundtrip",
    "objects",
    "objects_shared",
    "share",
    "read_only",
    "files",
    "handover",
    "handover_by_size",
    "transport_by_size",
    "transport_objects",
    "transport_event_loop",
    "transport_memory",
    "torch_loader",
    "dask",
    "dask_memory",
    "joblib",
    "joblib_memory",
    "mpi",
    "stream",
    "first_pass",
    "pool_sum",
    "million_live",
    "cost_by_live",
    "cost_by_processes",
    "scaling",
    "names",
    "once_per_host",
    "fork_live",
    "atomics",
    "events",
    "latest",
    "queues",
    "fragmentation",
    "fragmentation_shifting",
)

#: Contenders by name: module of `benchmarks.contenders`, class.
CONTENDERS = {
    "numpy": ("plain", "Plain"),
    "sharedmem": ("own", "Own"),
    "rawarray": ("rawarray", "RawArrays"),
    "shared_memory": ("named", "Named"),
    "SharedArray": ("sharedarray", "SharedArrays"),
    "shared-ndarray2": ("ndarray2", "NDArray2"),
    "torch-fd": ("torch_", "TorchDescriptors"),
    "torch-fs": ("torch_", "TorchFiles"),
    "joblib": ("joblib_", "Joblib"),
    "ray": ("ray_", "Ray"),
    "pickle": ("pickled", "Pickled"),
    "pickle 5 by hand": ("messages", "ByHand"),
    "fastshare": ("messages", "FastShare"),
}

#: What must be importable for a contender, where that is not the standard library.
MODULES = {
    "sharedmem": "sharedmem",
    "SharedArray": "SharedArray",
    "shared-ndarray2": "shared_ndarray2",
    "torch-fd": "torch",
    "torch-fs": "torch",
    "joblib": "joblib",
    "ray": "ray",
    "fastshare": "fastshare",
}

#: Distributions whose versions a report states.
DISTRIBUTIONS = {
    "numpy": "numpy",
    "sharedmem": "numpy-sharedmem",
    "SharedArray": "SharedArray",
    "shared-ndarray2": "shared-ndarray2",
    "torch-fd": "torch",
    "torch-fs": "torch",
    "joblib": "joblib",
    "ray": "ray",
    "fastshare": "fastshare",
    "dask": "distributed",
    "mpi4py": "mpi4py",
}


def case(name: str) -> Case:
    return importlib.import_module(f"benchmarks.cases.{name}").CASE


def contender(name: str) -> Contender:
    module, attribute = CONTENDERS[name]
    return getattr(importlib.import_module(f"benchmarks.contenders.{module}"), attribute)()


def installed(name: str) -> bool:
    """Whether the contender `name` can be imported here."""
    module = MODULES.get(name)
    return module is None or importlib.util.find_spec(module) is not None


def missing(case: Case) -> list[str]:
    """What `case` needs and cannot be imported here."""
    return [module for module in case.needs if importlib.util.find_spec(module) is None]


def versions() -> dict[str, str]:
    """Versions of the distributions that contenders come from."""
    found = {}
    for distribution in dict.fromkeys(DISTRIBUTIONS.values()):
        try:
            found[distribution] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
