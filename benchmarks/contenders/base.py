"""The methods by which the cases use a library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..model import Setting
from ..transport import PipeConsumer, QueueStream, WorkerPool

#: What the cases fill arrays with, by the name of the creating function.
FILL = {"empty": None, "zeros": 0.0, "ones": 1.0, "full": 2.5}


class Contender:
    """A library that makes arrays and, where it can, hands them to processes.

    An *item* is what the library's user would keep to own an array. Arrays
    are one-dimensional and of float64.

    Attributes
    ----------
    name : str
        Name on the command line and in reports.
    inherited : bool
        Items reach only processes forked after them: no message can carry one.
    """

    name = ""
    inherited = False

    def open(self, setting: Setting) -> None:
        """Imports the library and starts what it needs."""

    def close(self) -> None:
        """Ends what `open` started."""

    def creator(self, function: str) -> Callable[[int], Any]:
        """The call that makes an item of so many elements by ``np.<function>``."""
        raise NotImplementedError

    def drop(self, item: Any) -> None:
        """Frees an item beyond dropping its last reference, where that is needed."""

    def array(self, item: Any) -> np.ndarray:
        """An ndarray over the item's memory; it must go before the item does."""
        return item

    def cycle(self, function: str, elements: int) -> tuple[str, dict[str, Any]]:
        """A statement that makes one item and frees it, and the names it uses."""
        names = {"create": self.creator(function), "drop": self.drop}
        if type(self).drop is Contender.drop:
            return f"create({elements})", names
        return f"drop(create({elements}))", names

    def pack(self, item: Any) -> Any:
        """What goes through a Pipe or Queue to name the item."""
        return item

    def unpack(self, message: Any) -> Any:
        """The item that a received message names."""
        return message

    def let_go(self, item: Any) -> None:
        """Ends the use of an item received from a process that keeps it."""

    def hand_off(self, item: Any) -> None:
        """Ends the sender's use of an item that its receiver will free."""

    def discard(self, item: Any) -> None:
        """Frees a received item whose sender has handed it off."""
        self.drop(item)

    def dumps(self, obj: Any) -> Any:
        """A message with a whole object in it."""
        raise NotImplementedError

    def loads(self, message: Any) -> tuple[Any, Any]:
        """The object of a message, and what `end_message` needs to free it."""
        raise NotImplementedError

    def end_message(self, rest: Any) -> None:
        """Frees what a message held; the object has gone already."""

    def consumer(self, function: Callable[[np.ndarray], Any], item: Any = None) -> Any:
        """A process that calls `function` on each array it is sent, and answers."""
        return PipeConsumer(self, function, item)

    def stream(self, function: Callable[[np.ndarray], Any], depth: int) -> Any:
        """A process that calls `function` on each array of a stream."""
        return QueueStream(self, function, depth)

    def pool(self, workers: int, item: Any = None) -> Any:
        """Processes that work on parts of an array."""
        return WorkerPool(self, workers, item)


def filled(array: np.ndarray, function: str) -> np.ndarray:
    """Gives `array`, of unset contents, those that ``np.<function>`` would."""
    value = FILL[function]
    if value is not None:
        array.fill(value)
    return array
