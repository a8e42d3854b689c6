"""A page of figures for Prometheus, on the loopback: heights, results, waiting work.

The names begin with ``gridwitness_``. CometBFT has a page of its own.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import NamedTuple, Self

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.counters import Counters
from gateway.schema import ConfigError

_HOST = "127.0.0.1"
_PREFIX = "gridwitness_"


class Gauge(NamedTuple):
    """A figure that goes up and down: its name (with the unit), what it is, its value now."""

    name: str
    text: str
    value: float


class _Source(Collector):
    def __init__(self, read: Callable[[], Iterable[Gauge]], counters: Counters) -> None:
        self._read = read
        self._counters = counters

    def collect(self) -> Iterator[Metric]:
        for gauge in self._read():
            yield GaugeMetricFamily(_PREFIX + gauge.name, gauge.text, value=gauge.value)
        yield _events(self._counters.snapshot())


def _events(counts: Mapping[str, int]) -> Metric:
    """Give the counters as one metric; ``area.what`` is told by labels."""
    family = CounterMetricFamily(
        f"{_PREFIX}events", "What happened since the start.", labels=["area", "what"]
    )
    for name, count in counts.items():
        area, _, what = name.partition(".")
        family.add_metric([area, what], count)
    return family


class Page:
    """The page, served in a thread of its own until ``close``. ``read`` is called in that thread.

    Raises ConfigError where the port is taken.
    """

    def __init__(self, port: int, read: Callable[[], Iterable[Gauge]], counters: Counters) -> None:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Source(read, counters))
        try:
            self._server, self._thread = start_http_server(port, _HOST, registry)
        except OSError as e:
            raise ConfigError(f"the page of figures cannot be at {_HOST}:{port}: {e}") from e

    @property
    def port(self) -> int:
        """The port, chosen by the system where 0 was asked for."""
        return int(self._server.server_port)

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
