"""A version of a function that pickles shared arrays by value."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from sharedmem._messages import by_value


def always_by_value(save: Callable[..., Any]) -> Callable[..., Any]:
    """A function that does what `save` does, and pickles by value in it."""

    @functools.wraps(save)
    def save_by_value(*args: Any, **kwargs: Any) -> Any:
        token = by_value.set(True)
        try:
            return save(*args, **kwargs)
        finally:
            by_value.reset(token)

    return save_by_value
