"""The commands of ``python -m sharedmem``."""
