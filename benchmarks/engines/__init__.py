"""Engines with and without this library, each a program of its own: the engine must be installed."""
