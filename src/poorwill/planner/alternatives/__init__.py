"""What a trace would cost without scale-to-zero: duty-cycle arithmetic and hosted APIs."""
