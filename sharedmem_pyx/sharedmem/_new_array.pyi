# Nothing for Python: what it has is declared in _new_array.pxd.
