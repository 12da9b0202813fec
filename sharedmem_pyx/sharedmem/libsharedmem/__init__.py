"""Declarations of the C++ library for ``cimport``; there is nothing to import from Python."""
