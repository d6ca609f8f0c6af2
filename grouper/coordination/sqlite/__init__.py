"""The engine of one machine: an SQLite file, and a file beside it that says who is alive."""
