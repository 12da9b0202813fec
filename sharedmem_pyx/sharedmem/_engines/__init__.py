"""Support for engines that use this library only if a line of the program enables it.

The modules here may use `sharedmem.place`, the files `parcels` and `probing` of `sharedmem._transfers`, and
public functions, and nothing else of this package. ``import sharedmem`` imports none of them.
"""
