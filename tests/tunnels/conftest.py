"""A migrated database for tests of admission."""

from tests.support.databases import sqlite_template, sqlite_url

__all__ = ["sqlite_template", "sqlite_url"]
