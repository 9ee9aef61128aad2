"""poorwill: scale-to-zero serving for large language models."""
