"""poorwill: scale-to-zero serving for large language models."""

__version__ = "0.1.0"
