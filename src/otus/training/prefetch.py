"""Reading ahead, and several files at once, so that the network need not wait for them.

A thread reads and decodes the next batches while the network learns from the one before.
"""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

S = TypeVar("S")
T = TypeVar("T")

#: So many batches wait at most: memory stays small, and a slow file does not keep the network waiting.
_DEPTH = 4

#: So many stretches are read and decoded at once: a disk is waited for, and decoders run beside one another.
_READERS = 4


def prefetched(source: Iterator[T]) -> Iterator[T]:
    """Yield what `source` yields, in the same order, read ahead in a thread; an error comes at its place.

    The thread has ended when the iterator has ended or was closed.
    """
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(_DEPTH)
    closed = threading.Event()

    def put(entry: tuple[str, Any]) -> None:
        while not closed.is_set():
            try:
                return ready.put(entry, timeout=0.1)
            except queue.Full:
                continue

    def read() -> None:
        try:
            for item in source:
                put(("item", item))
                if closed.is_set():
                    return
        except BaseException as error:
            put(("error", error))
        else:
            put(("end", None))

    thread = threading.Thread(target=read, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            kind, content = ready.get()
            if kind == "end":
                return
            if kind == "error":
                raise content
            yield content
    finally:
        closed.set()
        thread.join()


def several_at_once(read: Callable[[S], T], what: Sequence[S]) -> list[T]:
    """Return what `read` gives for each of `what`, in the same order, read by several threads.

    Of several errors that of the first is raised. No thread is left.
    """
    if len(what) < 2:
        return [read(one) for one in what]
    with ThreadPoolExecutor(min(_READERS, len(what)), thread_name_prefix="reader") as threads:
        return list(threads.map(read, what))
