#: Full names of the compiled modules that are in this one's shared object.
modules: frozenset[str]
