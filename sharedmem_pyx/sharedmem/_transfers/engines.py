"""Dask, Ray and MPI get the data of shared arrays instead of handles.

Their messages are kept, forwarded, written to disk and sent to other machines, and some are read several
times. A handle in them would be stale as soon as no process holds the array. Each function below changes one
module of these libraries, after its import; `sharedmem._transfers.saving` has the table of these modules.
"""

from __future__ import annotations

import contextlib
import pickle
import sys
from types import FrameType, ModuleType
from typing import Any

from sharedmem._transfers.saving import always_by_value

_dumps_by_value = always_by_value(pickle.dumps)


def dumps_for_dask(obj: Any) -> bytes:
    """Pickles messages of Dask's ``scheduler="processes"``, which sends this function to its workers, too."""
    import cloudpickle  # type: ignore[import-not-found,import-untyped,unused-ignore]

    data: bytes = always_by_value(cloudpickle.dumps)(obj, protocol=pickle.HIGHEST_PROTOCOL)
    return data


def change_dask_multiprocessing(module: ModuleType) -> None:
    if hasattr(module, "_dumps"):
        module.__dict__["_dumps"] = dumps_for_dask


class _Caller:
    """Finds out, while it is pickled, whether the pickler is written in C.

    Such a pickler has no frame, so the frame below `__reduce_ex__` is that of the function that called it.
    """

    def __init__(self, frame: FrameType) -> None:
        self.frame = frame
        self.pickles_directly = False

    def __reduce_ex__(self, protocol: Any) -> str:
        self.pickles_directly = sys._getframe(1) is self.frame
        raise pickle.PicklingError


def change_mpi(module: ModuleType) -> None:
    """Makes `mpi4py.MPI.pickle` pickle by value, unless the program has given it another pickler before."""
    mpi_pickle: Any = getattr(module, "pickle", None)
    if not hasattr(mpi_pickle, "PROTOCOL"):
        return
    caller = _Caller(sys._getframe())
    with contextlib.suppress(Exception):  # PicklingError, or any error of another pickler
        mpi_pickle.dumps(caller)
    if caller.pickles_directly:
        mpi_pickle.__init__(_dumps_by_value, None, mpi_pickle.PROTOCOL)
