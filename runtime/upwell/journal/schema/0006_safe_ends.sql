-- The ends of task runs of strict flows, as they were written at once, until they are in the tables that people read.
CREATE TABLE safe_ends (
    key    INTEGER NOT NULL PRIMARY KEY,  -- the keys of a process's own ends begin where those of its series do
    facts  BLOB    NOT NULL               -- a message of the process's: rows for the tables
);
