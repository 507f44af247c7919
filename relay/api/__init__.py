"""What is served beside tunnels: the agents' door, the API on the same listener, the internal listener."""
