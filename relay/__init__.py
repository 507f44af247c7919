"""The tunnel relay and its agent; this room holds the version and nothing else."""

__version__ = "0.1.0"
