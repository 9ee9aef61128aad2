"""The dialects that engines and clients speak, as the gateway is told of them."""
