from .creation import empty as shared_empty
from .creation import ones as shared_ones
from .creation import zeros as shared_zeros

__all__ = ["shared_empty", "shared_ones", "shared_zeros"]
