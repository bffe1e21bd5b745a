-- Up to which number the ends that a process has noted at once, in a log of its own, are in the tables.
ALTER TABLE processes ADD COLUMN ends INTEGER NOT NULL DEFAULT 0;
