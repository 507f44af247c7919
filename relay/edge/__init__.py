"""The visitors' side of the relay: the guard, the routing, the relay's own answers."""
