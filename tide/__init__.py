"""tide: local-first SQLite sync for Python apps."""

__version__ = "0.1.0"
