"""One HTTP exchange, or one upgraded connection, over one stream: heads, framing, hygiene, the object with events."""
