"""The routes under `/api`: one file for each kind of thing."""
