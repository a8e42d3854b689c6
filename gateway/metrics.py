"""A page of figures for Prometheus, on the loopback: heights, results, waiting work.

The names begin with ``gridwitness_``. CometBFT has a page of its own.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from socketserver import ThreadingMixIn
from types import TracebackType
from typing import Any, NamedTuple, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.counters import Counters
from gateway.schema import ConfigError

_HOST = "127.0.0.1"
_PREFIX = "gridwitness_"
_PATH = "/metrics"


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


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing of each request."""


def _only_page(registry: CollectorRegistry) -> Callable[..., Iterable[bytes]]:
    """Give the application: the page at ``/metrics``, and nothing elsewhere."""
    page = make_wsgi_app(registry)

    def answer(environment: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environment.get("PATH_INFO") == _PATH:
            found: Iterable[bytes] = page(environment, start)
            return found
        start("404 Not Found", [("Content-Type", "text/plain")])
        return [f"the figures are at {_PATH}\n".encode()]

    return answer


class Page:
    """The page, served in a thread of its own until ``close``. ``read`` is called in that thread.

    Raises ConfigError where the port is taken.
    """

    def __init__(self, port: int, read: Callable[[], Iterable[Gauge]], counters: Counters) -> None:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Source(read, counters))
        try:
            self._server = make_server(_HOST, port, _only_page(registry), _Server, _Silent)
        except OSError as e:
            said = f"the page of figures cannot be at {_HOST}:{port}: {e.strerror}"
            raise ConfigError(said) from e
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

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
