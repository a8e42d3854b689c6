"""Checking the signatures of the blocks to come on other cores, ahead of the rules.

The curve's library lets the interpreter go meanwhile. What passes is admitted to the verifier, so
that the application checks it no more; what does not is left to the application, whose refusal
names it.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from ledger.protocol.cose import Envelope
from ledger.protocol.errors import BadSignature, MalformedRecord
from ledger.protocol.p256 import PublicKey
from ledger.verify import Verifier

_AHEAD = 512  # records that are read before the rules need them
_SHARE = 32  # records of one task

_Item = TypeVar("_Item")
_Task = list[tuple[Envelope, Any, PublicKey]]


class Ahead(Generic[_Item]):
    """Gives the items of ``source`` in order, with their records' signatures checked before.

    ``raws`` gives an item's envelopes; ``key_of`` gives the 33-byte public key of an address, or
    None while it is not known. An error of the source comes up in its place, after the items
    before it. Use it as a context manager.
    """

    def __init__(
        self,
        source: Iterator[_Item],
        raws: Callable[[_Item], Iterable[object]],
        key_of: Callable[[bytes], bytes | None],
        verifier: Verifier,
    ) -> None:
        self._source = source
        self._raws = raws
        self._key_of = key_of
        self._verifier = verifier
        self._pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="audit")
        self._queue: deque[tuple[_Item | Exception, list[Future[_Task]], int]] = deque()
        self._ahead = 0

    def __enter__(self) -> "Ahead[_Item]":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def __iter__(self) -> Iterator[_Item]:
        self._fill()
        while self._queue:
            item, futures, size = self._queue.popleft()
            self._ahead -= size
            if isinstance(item, Exception):
                raise item
            for future in futures:
                for envelope, record, _ in future.result():
                    self._verifier.admit(envelope, record)
            yield item
            self._fill()

    def _fill(self) -> None:
        while self._ahead < _AHEAD:
            item: _Item | Exception | None
            try:
                item = next(self._source, None)
            except Exception as e:  # noqa: BLE001 - not handled here: it comes up in its turn
                item = e
            if item is None:
                return
            work = [] if isinstance(item, Exception) else self._work(item)
            shares = [work[i : i + _SHARE] for i in range(0, len(work), _SHARE)]
            size = max(1, len(work))
            self._queue.append((item, [self._pool.submit(_passing, s) for s in shares], size))
            self._ahead += size

    def _work(self, item: _Item) -> _Task:
        work = []
        for raw in self._raws(item):
            if not isinstance(raw, bytes):
                continue
            try:
                envelope, record = self._verifier.open(raw)
            except MalformedRecord:
                continue
            key = self._key_of(envelope.kid)
            if key is not None:
                work.append((envelope, record, self._verifier.key(key)))
        return work


def _passing(task: _Task) -> _Task:
    return [entry for entry in task if _fits(entry[0], entry[2])]


def _fits(envelope: Envelope, key: PublicKey) -> bool:
    try:
        envelope.verify(key)
    except BadSignature:
        return False
    return True
