"""The wire: bytes to frames and back. No I/O, no clock, nothing of ours above, nothing of others beside."""
