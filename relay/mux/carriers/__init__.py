"""Carriers: one room each; import the one that you need by name."""
