-- What keeps a store in order while many write to it.

-- The number of the last batch that a process has written: what comes in again, from its spool, is known by it.
ALTER TABLE processes ADD COLUMN written INTEGER NOT NULL DEFAULT 0;

-- What one process at a time does for all, such as removing what is old; whose turn it is ends by itself.
CREATE TABLE chores (
    name        TEXT    NOT NULL PRIMARY KEY,
    process_id  TEXT    NOT NULL,
    until       INTEGER NOT NULL
) WITHOUT ROWID;
