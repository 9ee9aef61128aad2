"""Ollama's API (its docs/api.md of November 2026) on top of OpenAI's: requests there, answers back. Pure."""
