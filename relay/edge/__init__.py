"""The visitors' side of the relay: the guard, the routes, the relay's own answers."""
