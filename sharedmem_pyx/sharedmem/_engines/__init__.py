"""Engines that this library is put into on purpose, by a line of the program.

They use the layer below and nothing else of this package: `sharedmem.place`, the files `parcels` and
`probing` of `sharedmem._transfers`, and public functions. None is imported by ``import sharedmem``.
"""
