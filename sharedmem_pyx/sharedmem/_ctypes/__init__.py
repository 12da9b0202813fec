"""multiprocessing's Array, Value and the like, and views between ctypes and NumPy."""
