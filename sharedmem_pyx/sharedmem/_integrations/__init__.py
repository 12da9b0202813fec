"""Which modules of other packages this library adds itself to, and by what.

None of them is imported here: each is handled when it is imported. A library that has a
pickler, a type or a pool of its own has one file in this folder, whose functions take the module.
"""

import functools
import sys
import warnings
from types import ModuleType

from sharedmem._startup import when_imported

#: Module that is awaited, file of this folder, function in it.
HOOKS: tuple[tuple[str, str, str], ...] = (
    # Pools report what could not be loaded, instead of waiting for ever; queues give it up.
    ("multiprocessing.pool", "multiprocessing_", "watch_pool"),
    ("multiprocessing.queues", "multiprocessing_", "watch_queues"),
    ("concurrent.futures.process", "multiprocessing_", "watch_executor"),
    # A copy of multiprocessing that pickles by dill: pathos, mpire, ppft.
    ("multiprocess.reduction", "multiprocess_", "hook_pickler"),
    ("multiprocess.connection", "multiprocess_", "watch_connections"),
    ("multiprocess.queues", "multiprocess_", "watch_queues"),
    ("multiprocess.pool", "multiprocess_", "watch_pool"),
    # Executors that pickle by cloudpickle.
    ("loky.backend.reduction", "loky_", "hook_pickler"),
    ("joblib.externals.loky.backend.reduction", "loky_", "hook_pickler"),
    # joblib's own reducers of arrays, and the pickler of its multiprocessing backend.
    ("joblib._memmapping_reducer", "joblib_", "wrap_reducers"),
    ("joblib.pool", "joblib_", "hook_pickler"),
    ("joblib.parallel", "joblib_", "add_backend"),
    # Objects that hold shared memory and are no ndarrays.
    ("pyarrow.lib", "arrow_", "add_buffers"),
    ("pandas.core.arrays.arrow.array", "pandas_", "add_columns"),
    ("pandas.core.arrays.string_arrow", "pandas_", "add_columns"),
    ("torch.multiprocessing", "torch_", "add_tensors"),
    ("torch.multiprocessing.queue", "torch_", "hook_queues"),
)
if sys.platform != "win32":
    # Unread messages of its workers when a loop over it ends early; they are read as only POSIX allows.
    HOOKS += (("torch.utils.data.dataloader", "torch_unread", "watch_loaders"),)


def _file(name: str) -> ModuleType:
    match name:  # with plain imports, so that PyInstaller and the like find the modules
        case "multiprocessing_":
            from sharedmem._integrations import multiprocessing_

            return multiprocessing_
        case "multiprocess_":
            from sharedmem._integrations import multiprocess_

            return multiprocess_
        case "loky_":
            from sharedmem._integrations import loky_

            return loky_
        case "joblib_":
            from sharedmem._integrations import joblib_

            return joblib_
        case "arrow_":
            from sharedmem._integrations import arrow_

            return arrow_
        case "pandas_":
            from sharedmem._integrations import pandas_

            return pandas_
        case "torch_":
            from sharedmem._integrations import torch_

            return torch_
        case "torch_unread":
            from sharedmem._integrations import torch_unread

            return torch_unread
    raise ImportError(f"no file of this folder is called {name}")


def _call(file: str, function: str, module: ModuleType) -> None:
    install = getattr(_file(file), function)
    try:
        install(module)
    except (
        AttributeError,
        ImportError,
    ) as error:  # another version, which can be used nevertheless
        warnings.warn(
            f"sharedmem does not know this version of {module.__name__}, which sends arrays as if sharedmem "
            f"were not there: {error}",
            RuntimeWarning,
            stacklevel=2,
        )


def install() -> None:
    """Await the modules of the table."""
    for name, file, function in HOOKS:
        when_imported(name, functools.partial(_call, file, function))
