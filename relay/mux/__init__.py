"""The mux: many streams over one carrier, each with its own credit, turns taken fairly. Knows nothing of HTTP."""
