"""Groups of contenders for which the same questions make sense."""

#: Everything that makes arrays.
CREATORS = (
    "numpy",
    "sharedmem",
    "rawarray",
    "shared_memory",
    "SharedArray",
    "shared-ndarray2",
    "torch-fd",
    "torch-fs",
    "joblib",
    "ray",
)

#: Everything that hands an array to a process which is already running.
SENDERS = (
    "sharedmem",
    "shared_memory",
    "SharedArray",
    "shared-ndarray2",
    "torch-fd",
    "torch-fs",
    "ray",
    "pickle",
)
