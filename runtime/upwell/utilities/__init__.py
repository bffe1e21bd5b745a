"""Small public helpers, importable where users of other workflow tools look for them."""
