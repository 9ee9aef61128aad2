"""What people see of a fleet: logs, metrics, traces, the admin listener, the dashboard, load tests."""
