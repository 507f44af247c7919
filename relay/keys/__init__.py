"""Keys: their forms, scopes, signatures and the chain of the audit. Pure: no I/O, no clock; nothing of ours below."""
