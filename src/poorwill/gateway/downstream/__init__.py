"""The client's side of the gateway: connections, requests as they arrive, answers as they leave."""
