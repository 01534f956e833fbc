"""The requests to an engine: addresses and connections, bulk requests, and errors."""
