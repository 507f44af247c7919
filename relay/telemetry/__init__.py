"""Numbers that are counted where things happen, as plain integers, and turned into samples when somebody asks."""
