"""The logs that Dask's servers keep, so that no array stays because of them.

A worker, scheduler or nanny keeps the last ten thousand records of its logger, for
`Client.get_worker_logs`. The record of a failed transfer has a traceback, whose frames have the arrays that
were being sent to a worker that was killed. They would be in memory until that many others had been logged.
"""

from __future__ import annotations

import copy
import functools
import logging
from typing import Any

_plain = logging.Formatter()


def _emit(handler: Any, record: logging.LogRecord) -> None:
    """Keep what a record says, in place of the objects that it is about."""
    kept = copy.copy(record)
    try:
        kept.msg, kept.args = record.getMessage(), None
        if record.exc_info:
            kept.exc_text = (handler.formatter or _plain).formatException(record.exc_info)
            kept.exc_info = None
    except Exception:
        handler.handleError(record)
    else:
        type(handler).emit(handler, kept)


def keep_text_only(server: Any) -> None:
    """Have a server's log keep text, which reads as before.

    Other handlers of its logger get each record as it is.

    Parameters
    ----------
    server : object
        Of Dask. Nothing is done if it has no such log. It can be repeated.
    """
    handler = getattr(server, "_deque_handler", None)
    if isinstance(handler, logging.Handler) and "emit" not in vars(handler):
        handler.emit = functools.partial(_emit, handler)  # type: ignore[method-assign]
