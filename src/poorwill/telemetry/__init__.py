"""Logs as JSON lines, metrics as Prometheus text, spans as OpenTelemetry if configured."""
