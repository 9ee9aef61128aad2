"""Wakes as traces: a file for Chrome's and Perfetto's viewers, and OpenTelemetry spans if configured.

The file is in the Trace Event Format (complete events, `ph: "X"`, times in microseconds). OpenTelemetry needs
the extra `poorwill[otel]` and an endpoint in the environment; without both nothing is sent or imported.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from poorwill.core.entries import WakeBegan, WakeEnded
from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.core.extras import install_extra
from poorwill.core.ports.log import Log
from poorwill.core.ports.view import EventFeed
from poorwill.policies.coldstart.starts import FinishedWake

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""OpenTelemetry's own names (its specification, OTLP exporter configuration)."""


def chrome_trace(wakes: Iterable[FinishedWake]) -> dict[str, object]:
    """Return wakes in the Trace Event Format: a process for each model, a thread for each replica."""
    events: list[dict[str, object]] = []
    processes: dict[str, int] = {}
    threads: dict[str, tuple[int, int]] = {}
    for wake in wakes:
        pid = processes.setdefault(wake.model, len(processes) + 1)
        _, tid = threads.setdefault(wake.replica, (pid, len(threads) + 1))
        where = {"ph": "X", "pid": pid, "tid": tid}
        events.append(
            {
                **where,
                "name": f"wake from {wake.from_tier}",
                "cat": "wake",
                "ts": wake.began_us,
                "dur": wake.took_us,
                "args": {
                    "wake": wake.wake,
                    "ok": wake.ok,
                    "why": wake.why,
                    "failure": wake.failure,
                },
            }
        )
        for span in wake.spans:
            args = {"bytes_read": span.bytes_read, "detail": span.detail}
            took_us = span.ended_us - span.began_us
            name = {"name": str(span.phase), "cat": "phase", "ts": span.began_us, "dur": took_us}
            events.append({**where, **name, "args": args})
    for model, pid in processes.items():
        named = {"ph": "M", "name": "process_name", "args": {"name": model}}
        events.append({**named, "pid": pid, "tid": 0})
    for replica, (pid, tid) in threads.items():
        named = {"ph": "M", "name": "thread_name", "args": {"name": replica}}
        events.append({**named, "pid": pid, "tid": tid})
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def endpoint_of(env: Mapping[str, str]) -> str | None:
    """Return the configured OpenTelemetry endpoint, None if tracing is off."""
    return next((env[name] for name in ENDPOINT_VARIABLES if env.get(name)), None)


class CountingExporter:
    """Passes spans to an OpenTelemetry exporter and counts those that it could not send."""

    def __init__(self, exporter: "SpanExporter") -> None:
        self._exporter = exporter
        self._lost = self._reported = 0

    def export(self, spans: "Sequence[ReadableSpan]") -> "SpanExportResult":
        """Send; blocks up to the exporter's own time limit, retries included."""
        result = self._exporter.export(spans)
        if result.name != "SUCCESS":
            self._lost += len(spans)
        return result

    def lost(self) -> int:
        """Return how many spans were lost since the last call. From one thread only."""
        lost, reported = self._lost, self._reported
        self._reported = lost
        return lost - reported

    def shutdown(self) -> None:
        """Stop."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what the exporter still has."""
        return self._exporter.force_flush(timeout_millis)


class WakeTracer:
    """Sends wakes as OpenTelemetry spans: one for the wake, one below it for each phase."""

    def __init__(self, provider: "TracerProvider", exporter: CountingExporter | None = None) -> None:
        self._provider = provider
        self._exporter = exporter
        self._tracer = provider.get_tracer("poorwill")

    def send(self, wake: FinishedWake) -> None:
        """Queue one wake; the provider sends it in the background. Never blocks."""
        from opentelemetry import trace

        whole = self._tracer.start_span(
            f"wake {wake.model}",
            context=trace.set_span_in_context(trace.INVALID_SPAN),
            start_time=wake.began_us * 1000,
            attributes={
                "poorwill.wake": wake.wake,
                "poorwill.model": wake.model,
                "poorwill.replica": wake.replica,
                "poorwill.from_tier": str(wake.from_tier),
                "poorwill.ok": wake.ok,
            },
        )
        if not wake.ok:
            whole.set_status(trace.Status(trace.StatusCode.ERROR, wake.failure))
        inside = trace.set_span_in_context(whole)
        for span in wake.spans:
            attributes: dict[str, str | int] = {"poorwill.detail": span.detail}
            if span.bytes_read is not None:
                attributes["poorwill.bytes_read"] = span.bytes_read
            part = self._tracer.start_span(
                str(span.phase),
                context=inside,
                start_time=span.began_us * 1000,
                attributes=attributes,
            )
            part.end(end_time=span.ended_us * 1000)
        whole.end(end_time=wake.ended_us * 1000)

    def lost(self) -> int:
        """Return how many spans could not be sent since the last call."""
        return self._exporter.lost() if self._exporter else 0

    def close(self) -> int:
        """Send what is left and stop; blocks up to the exporter's own time limit.

        Returns how many more spans never arrived.
        """
        self._provider.shutdown()
        return self.lost()


def open_tracer(env: Mapping[str, str]) -> WakeTracer | None:
    """Return a tracer if an endpoint is configured, None if tracing is off.

    Raises OperatorFault if an endpoint is configured but the extra is not installed.
    """
    if endpoint_of(env) is None:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            "an OpenTelemetry endpoint is configured, but the exporter is not installed",
            hint=f"{install_extra('otel')}, or unset {' and '.join(ENDPOINT_VARIABLES)}",
        ) from error
    _silence_library()
    provider = TracerProvider(resource=Resource.create({"service.name": "poorwill"}))
    exporter = CountingExporter(OTLPSpanExporter())
    provider.add_span_processor(BatchSpanProcessor(cast("SpanExporter", exporter)))
    return WakeTracer(provider, exporter)


def _silence_library() -> None:
    """Keep OpenTelemetry's own messages off stderr: lost spans are counted and logged here."""
    library = logging.getLogger("opentelemetry")  # noqa: TID251 - not ours: it takes no Log
    library.propagate = False
    if not library.handlers:
        library.addHandler(logging.NullHandler())


async def trace_wakes(events: Callable[[], EventFeed], tracer: WakeTracer | None, *, log: Log) -> None:
    """Send every wake that ends from now on, until cancelled or the feed ends; nothing without a tracer.

    A wake whose beginning the feed dropped is not sent. Spans that cannot be sent are logged; nothing is
    raised. At the end, cancelled or not, the rest is sent within the exporter's own time limit.
    """
    if tracer is None:
        return
    feed = events()
    try:
        await _send_ended(feed, tracer, log)
    finally:
        feed.close()
        _log_lost(await asyncio.shield(asyncio.to_thread(tracer.close)), log)


def _log_lost(count: int, log: Log) -> None:
    if count:
        log.warning("spans were not sent", count=count, endpoint=ENDPOINT_VARIABLES[-1])


async def _send_ended(events: EventFeed, tracer: WakeTracer, log: Log) -> None:
    begun: dict[str, WakeBegan] = {}
    with contextlib.suppress(StopAsyncIteration):
        while True:
            entry = await events.__anext__()
            _log_lost(tracer.lost(), log)
            if isinstance(entry, WakeBegan):
                begun[entry.wake] = entry
            elif isinstance(entry, WakeEnded) and entry.wake in begun:
                try:
                    tracer.send(_finished(begun.pop(entry.wake), entry))
                except Exception as error:
                    log.warning("a wake was not traced", wake=entry.wake, why=repr(error))


def _finished(began: WakeBegan, ended: WakeEnded) -> FinishedWake:
    return FinishedWake(
        wake=began.wake,
        model=began.model,
        replica=began.replica,
        from_tier=began.from_tier,
        began_us=began.at_us,
        ended_us=ended.at_us,
        ok=ended.ok,
        failure="" if ended.ok else ended.why,
        why=began.why,
        asked_by=began.asked_by,
        held=began.held,
        served=len(ended.served),
        budget_us=began.budget_us,
        image_bytes=0,
        spans=ended.anatomy,
        prices_nusd=(None,) * len(ended.anatomy),
    )
