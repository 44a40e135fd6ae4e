"""The endpoints' figures as Prometheus reads them."""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from online_gateway.dataplane.statistics import BUCKETS, EndpointStatistics, Histogram
from online_gateway.information import EndpointInfo

_ENDPOINT = "endpoint"
_OUTCOMES = ("handled", "failed", "refused", "cancelled")


class _Endpoints(Collector):
    """Gives the figures once."""

    def __init__(self, infos: Sequence[EndpointInfo]) -> None:
        self._infos = infos

    def collect(self) -> Iterator[Metric]:
        """All families."""
        yield self._calls()
        for name, words, histogram in (
            ("handling", "From a call's arrival to its answer.", lambda s: s.handling),
            ("inference", "Time that a call spent in the endpoint's code.", lambda s: s.inference),
        ):
            yield self._durations(f"inference_{name}_seconds", words, histogram)
        for name, words, value in (
            ("queue_calls", "Calls that wait for a worker.", lambda info: info.statistics.queue_now),
            ("queue_calls_max", "The most calls that have waited at once.", lambda info: info.statistics.queue_max),
            ("workers", "Workers that are connected.", lambda info: len(info.workers)),
            ("ready", "1 where a call can be answered now.", lambda info: int(info.state == "ready")),
            ("generation", "The generation that answers; 0 for none.", lambda info: info.generation or 0),
        ):
            yield self._gauge(f"inference_{name}", words, value)
        yield self._memory()

    def _calls(self) -> Metric:
        family = CounterMetricFamily("inference_calls", "Calls, by how they ended.", labels=(_ENDPOINT, "outcome"))
        for info in self._infos:
            for outcome in _OUTCOMES:
                family.add_metric((info.name, outcome), getattr(info.statistics, outcome))
        return family

    def _durations(self, name: str, words: str, histogram: Callable[[EndpointStatistics], Histogram]) -> Metric:
        family = HistogramMetricFamily(name, words, labels=(_ENDPOINT,))
        for info in self._infos:
            counted = histogram(info.statistics)
            bounds = [*map(str, BUCKETS), "+Inf"]
            buckets = list(zip(bounds, map(float, accumulate(counted.counts)), strict=True))
            family.add_metric((info.name,), buckets, counted.total_seconds)
        return family

    def _gauge(self, name: str, words: str, value: Callable[[EndpointInfo], float]) -> Metric:
        family = GaugeMetricFamily(name, words, labels=(_ENDPOINT,))
        for info in self._infos:
            family.add_metric((info.name,), value(info))
        return family

    def _memory(self) -> Metric:
        family = GaugeMetricFamily(
            "inference_worker_memory_bytes", "Resident memory of a worker.", labels=("pool", "worker")
        )
        workers = {(info.pool, one.worker_id): one.memory_bytes for info in self._infos for one in info.workers}
        for labels, memory_bytes in workers.items():
            family.add_metric(labels, memory_bytes)
        return family


def exposition(infos: Sequence[EndpointInfo]) -> tuple[bytes, bytes]:
    """The text and its content type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Endpoints(infos))
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4.encode()
