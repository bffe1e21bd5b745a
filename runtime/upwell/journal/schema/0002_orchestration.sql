-- What people configure and what happens around runs.

CREATE TABLE deployments (
    id               TEXT    NOT NULL PRIMARY KEY,
    flow             TEXT    NOT NULL,
    name             TEXT    NOT NULL,
    version          TEXT,
    description      TEXT,
    tags             TEXT,
    parameters       TEXT    NOT NULL DEFAULT '{}',   -- JSON
    parameter_schema TEXT,                            -- JSON schema
    entrypoint       TEXT,
    work_pool        TEXT,
    work_queue       TEXT,
    job_variables    TEXT    NOT NULL DEFAULT '{}',
    concurrency      INTEGER,
    when_full        TEXT    NOT NULL DEFAULT 'queue',
    paused           INTEGER NOT NULL DEFAULT 0,
    created          INTEGER NOT NULL,
    updated          INTEGER NOT NULL,
    UNIQUE (flow, name)
) WITHOUT ROWID;

CREATE TABLE schedules (
    id             TEXT    NOT NULL PRIMARY KEY,
    deployment_id  TEXT    NOT NULL,
    slug           TEXT    NOT NULL,
    kind           TEXT    NOT NULL,                  -- cron, interval, rrule
    expression     TEXT    NOT NULL,
    timezone       TEXT    NOT NULL DEFAULT 'UTC',
    anchor         INTEGER,
    parameters     TEXT    NOT NULL DEFAULT '{}',
    active         INTEGER NOT NULL DEFAULT 1,
    catchup        TEXT    NOT NULL DEFAULT 'latest', -- none, latest, all
    max_late       INTEGER,
    last_tick      INTEGER,
    next_tick      INTEGER,
    UNIQUE (deployment_id, slug)
) WITHOUT ROWID;
CREATE INDEX schedules_next ON schedules (next_tick) WHERE active = 1;

CREATE TABLE events (
    key          INTEGER PRIMARY KEY,
    id           TEXT    NOT NULL,
    at           INTEGER NOT NULL,
    event        TEXT    NOT NULL,
    resource_id  TEXT    NOT NULL,
    resource     TEXT    NOT NULL DEFAULT '{}',
    related      TEXT    NOT NULL DEFAULT '[]',
    payload      TEXT    NOT NULL DEFAULT '{}'
);
CREATE UNIQUE INDEX events_id ON events (id);
CREATE INDEX events_event ON events (event, key);
CREATE INDEX events_resource ON events (resource_id, key);

CREATE TABLE artifacts (
    id           TEXT    NOT NULL PRIMARY KEY,
    key          TEXT,
    kind         TEXT    NOT NULL,
    description  TEXT,
    data         TEXT,
    flow_run_id  TEXT,
    task_run_id  TEXT,
    created      INTEGER NOT NULL,
    updated      INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX artifacts_key ON artifacts (key, created);
CREATE INDEX artifacts_flow_run ON artifacts (flow_run_id);

CREATE TABLE variables (
    name     TEXT    NOT NULL PRIMARY KEY,
    value    TEXT    NOT NULL,                        -- JSON
    tags     TEXT,
    updated  INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE blocks (
    id       TEXT    NOT NULL PRIMARY KEY,
    kind     TEXT    NOT NULL,
    name     TEXT    NOT NULL,
    data     BLOB    NOT NULL,
    created  INTEGER NOT NULL,
    updated  INTEGER NOT NULL,
    UNIQUE (kind, name)
) WITHOUT ROWID;

CREATE TABLE automations (
    id           TEXT    NOT NULL PRIMARY KEY,
    name         TEXT    NOT NULL UNIQUE,
    description  TEXT,
    enabled      INTEGER NOT NULL DEFAULT 1,
    definition   TEXT    NOT NULL,                    -- JSON
    created      INTEGER NOT NULL,
    updated      INTEGER NOT NULL
) WITHOUT ROWID;
