"""The journal: what runs leave behind in a database, how it gets there, and how it is read."""
