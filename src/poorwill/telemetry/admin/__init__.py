"""The admin listener: status, metrics, events, operators' actions, the dashboard."""
