"""Invoices in, the ledger out: the FinOps FOCUS format, and reconciliation."""
