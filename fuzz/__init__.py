"""Coverage-guided fuzz targets (atheris): one room each. `scripts/fuzz` runs them all, `python -m fuzz.NAME` one."""
