-- A job whose run takes over what a durable run has finished: that run, and the task run from which on it is run anew.
ALTER TABLE jobs ADD COLUMN fork_of TEXT;
ALTER TABLE jobs ADD COLUMN fork_before TEXT;

-- What is removed when it is old is found by its age.
CREATE INDEX cache_records_created ON cache_records (created) WHERE expires IS NULL;
CREATE INDEX audit_records_at ON audit_records (at);
CREATE INDEX events_at ON events (at);
CREATE INDEX artifacts_updated ON artifacts (updated);
