# Nothing for Python: what it has is declared in making.pxd.
