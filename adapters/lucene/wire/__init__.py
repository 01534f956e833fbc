"""How an engine is reached: connections, requests in bulk and together, and what its refusals mean."""
