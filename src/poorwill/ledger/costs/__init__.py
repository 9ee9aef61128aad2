"""What the ledger's time cost and for whom: spans times rates, and busy time shared among keys."""
