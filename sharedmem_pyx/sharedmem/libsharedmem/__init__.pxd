# Marks a package for `cimport sharedmem.libsharedmem.NAME`.
