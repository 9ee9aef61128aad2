"""The bill and everything that explains it: grouped costs, statements, comparisons, invoices."""
