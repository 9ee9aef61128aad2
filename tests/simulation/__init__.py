"""The whole controller under simulated weather: one process, virtual time, one seed (`./dev simulate`)."""
