"""One verb per file. A verb parses nothing and prints everything: streams and environment are arguments."""
