"""What people see of a fleet: logs as JSON lines, Prometheus text, OpenTelemetry spans, the admin listener, the
dashboard, load tests."""
