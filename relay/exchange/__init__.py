"""One HTTP exchange, or one upgraded connection, over one stream: heads, framing, hygiene, and the object with events."""
