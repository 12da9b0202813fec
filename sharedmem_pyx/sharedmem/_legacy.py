"""Names of the numpy-sharedmem package of 2009."""

from sharedmem._creation import empty as shared_empty
from sharedmem._creation import ones as shared_ones
from sharedmem._creation import zeros as shared_zeros

__all__ = ["shared_empty", "shared_ones", "shared_zeros"]
