"""Which modules of other packages this library changes, and by which functions.

None of them is imported here: each is changed when the program imports it. There is one file in this folder
for each library that has a pickler, a type or a pool of its own; its functions take the module.
"""

import functools
import sys
import warnings
from types import ModuleType

from sharedmem._startup import when_imported

#: Module that is awaited, file of this folder, function in it.
HOOKS: tuple[tuple[str, str, str], ...] = (
    # Pools report what could not be loaded, instead of waiting for ever; queues free its memory. The memory
    # of tasks that are lost with killed workers of pools and executors is freed, too.
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
    # They give back tasks that a killed worker had not loaded.
    ("loky.process_executor", "loky_", "watch_executor"),
    ("joblib.externals.loky.process_executor", "loky_", "watch_executor"),
    # joblib's own reducers of arrays, and the pickler of its multiprocessing backend.
    ("joblib._memmapping_reducer", "joblib_", "wrap_reducers"),
    ("joblib.pool", "joblib_", "hook_pickler"),
    ("joblib.parallel", "joblib_", "add_backend"),
    # Objects other than ndarrays that hold shared memory.
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
    except (AttributeError, ImportError) as error:  # another version, usable without these changes
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
