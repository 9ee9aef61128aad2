"""The Hugging Face hub: which of its files are a model, and the child process that downloads them."""
