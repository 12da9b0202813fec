# What `cimport sharedmem` gives.
