"""Limits of keys and tunnels: how many requests, how fast, how much. Knows neither the registry nor the edge."""
