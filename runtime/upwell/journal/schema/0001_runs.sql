-- What ran, what became of it, and who was at work. Written for SQLite; `sql.py` says it in PostgreSQL's words.
-- Times are microseconds since the epoch. Ids are UUIDs as text; lists of tags are JSON arrays.

-- One line for each process that writes here. `beat` counts its signs of life; `lost` processes may write no more.
CREATE TABLE processes (
    key          INTEGER PRIMARY KEY,   -- the keys of the series that it makes begin here
    id           TEXT    NOT NULL,
    host         TEXT    NOT NULL,  -- the machine since it was started, and the process namespace on it
    pid          INTEGER NOT NULL,
    pid_started  TEXT    NOT NULL,  -- tells it from a later process with the same pid
    state        TEXT    NOT NULL,  -- alive, ended, lost
    beat         INTEGER NOT NULL,
    seen         INTEGER NOT NULL,  -- when it gave the last sign of life, by its own clock
    lease_until  INTEGER NOT NULL
);
CREATE UNIQUE INDEX processes_id ON processes (id);
CREATE INDEX processes_alive ON processes (lease_until) WHERE state = 'alive';

CREATE TABLE flow_runs (
    id                  TEXT    NOT NULL PRIMARY KEY,
    flow                TEXT    NOT NULL,
    name                TEXT    NOT NULL,
    version             TEXT,
    state               TEXT    NOT NULL,
    state_name          TEXT,              -- where it says more than the type
    message             TEXT,
    created             INTEGER NOT NULL,
    started             INTEGER,
    ended               INTEGER,
    due                 INTEGER,           -- when a scheduled one is to start
    run_count           INTEGER NOT NULL,
    tags                TEXT,
    parameters          TEXT,              -- for people: JSON, bounded, secrets left out
    parent_flow_run_id  TEXT,
    parent_task_run_id  TEXT,
    root_flow_run_id    TEXT    NOT NULL,
    process_id          TEXT,
    deployment_id       TEXT,
    idempotency_key     TEXT,
    durable             INTEGER NOT NULL DEFAULT 0,
    source_hash         TEXT,
    entrypoint          TEXT,              -- where the flow is found again: `module:name`, or `path.py:name`
    arguments           BLOB,              -- a durable run's: exact
    result              BLOB,              -- a ResultRecord, where the result is stored
    crashes             INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX flow_runs_created ON flow_runs (created, id);
CREATE INDEX flow_runs_flow ON flow_runs (flow, created, id);
CREATE INDEX flow_runs_state ON flow_runs (state, created, id) WHERE state <> 'COMPLETED';
CREATE INDEX flow_runs_tags ON flow_runs (tags, created, id) WHERE tags IS NOT NULL;
CREATE INDEX flow_runs_parent ON flow_runs (parent_flow_run_id) WHERE parent_flow_run_id IS NOT NULL;
CREATE INDEX flow_runs_process ON flow_runs (process_id) WHERE ended IS NULL;
CREATE UNIQUE INDEX flow_runs_idempotency ON flow_runs (flow, idempotency_key) WHERE idempotency_key IS NOT NULL;

CREATE TABLE flow_run_states (
    key          INTEGER PRIMARY KEY,
    flow_run_id  TEXT    NOT NULL,
    at           INTEGER NOT NULL,
    state        TEXT    NOT NULL,
    name         TEXT,
    message      TEXT
);
CREATE INDEX flow_run_states_run ON flow_run_states (flow_run_id, key);

-- The runs of one task in one flow run (or outside of any): what they share is said once. The id of a run is made
-- of the series' random part plus the run's number, and of its time; so no run stores its id.
CREATE TABLE series (
    key          INTEGER NOT NULL PRIMARY KEY,     -- given by the process that makes it
    base         TEXT    NOT NULL COLLATE BINARY,  -- the random part of number 0's id, 19 hexadecimal digits
    task         TEXT    NOT NULL,
    flow_run_id  TEXT,
    created      INTEGER NOT NULL,
    tags         TEXT,
    source       BLOB,                             -- digest of the task's code, in durable flow runs
    submitted    INTEGER NOT NULL,                 -- those without a row of their own have not begun
    process_id   TEXT    NOT NULL
);
CREATE UNIQUE INDEX series_base ON series (base);
CREATE INDEX series_flow_run ON series (flow_run_id);
CREATE INDEX series_task ON series (task, created);
CREATE INDEX series_tags ON series (tags) WHERE tags IS NOT NULL;

-- A run that begins and ends between two flushes is one row; its states are its times.
CREATE TABLE task_runs (
    series      INTEGER NOT NULL,
    number      INTEGER NOT NULL,
    created     INTEGER NOT NULL,
    started     INTEGER,
    ended       INTEGER,
    state       TEXT    NOT NULL,
    state_name  TEXT,
    message     TEXT,
    run_count   INTEGER NOT NULL,
    name        TEXT,                              -- where it is not `task-number`
    parent      TEXT,                              -- the task run that started it
    tags        TEXT,                              -- where they are not those of the series
    inputs      TEXT,                              -- for people: bounded, secrets left out
    PRIMARY KEY (series, number)
) WITHOUT ROWID;
-- Pages of runs go newest first along one of these; the partial ones are small.
CREATE INDEX task_runs_created ON task_runs (created, series, number);
CREATE INDEX task_runs_series ON task_runs (series, created, number);
CREATE INDEX task_runs_state ON task_runs (state, created, series, number) WHERE state <> 'COMPLETED';
CREATE INDEX task_runs_series_state ON task_runs (series, state, created, number) WHERE state <> 'COMPLETED';
CREATE INDEX task_runs_state_name ON task_runs (state_name, created, series, number) WHERE state_name IS NOT NULL;
CREATE INDEX task_runs_name ON task_runs (name, created, series, number) WHERE name IS NOT NULL;
CREATE INDEX task_runs_parent ON task_runs (parent, created, series, number) WHERE parent IS NOT NULL;
CREATE INDEX task_runs_tags ON task_runs (tags, created, series, number) WHERE tags IS NOT NULL;

-- The states of a task run that its own times do not tell: waits, retries, earlier attempts.
CREATE TABLE task_run_states (
    key      INTEGER PRIMARY KEY,
    series   INTEGER NOT NULL,
    number   INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    state    TEXT    NOT NULL,
    name     TEXT,
    message  TEXT
);
CREATE INDEX task_run_states_run ON task_run_states (series, number);

-- Which run fed which argument of which; no argument where it was only waited for.
CREATE TABLE edges (
    series           INTEGER NOT NULL,
    number           INTEGER NOT NULL,
    upstream_series  INTEGER NOT NULL,
    upstream_number  INTEGER NOT NULL,
    argument         TEXT,
    PRIMARY KEY (series, number, upstream_series, upstream_number)
) WITHOUT ROWID;
CREATE INDEX edges_upstream ON edges (upstream_series, upstream_number);

CREATE TABLE logs (
    key          INTEGER PRIMARY KEY,
    flow_run_id  TEXT,
    task_run_id  TEXT,
    at           INTEGER NOT NULL,
    level        INTEGER NOT NULL,
    logger       TEXT    NOT NULL,
    message      TEXT    NOT NULL
);
CREATE INDEX logs_flow_run ON logs (flow_run_id, key) WHERE flow_run_id IS NOT NULL;
CREATE INDEX logs_task_run ON logs (task_run_id, key) WHERE task_run_id IS NOT NULL;

-- Stored results of task runs, each a ResultRecord. `durable_key` finds it again when the flow run is resumed.
CREATE TABLE task_run_results (
    series       INTEGER NOT NULL,
    number       INTEGER NOT NULL,
    record       BLOB    NOT NULL,
    durable_key  BLOB,
    PRIMARY KEY (series, number)
) WITHOUT ROWID;

-- The large maps of durable flow runs: so that a resumed run knows all their runs again at once.
CREATE TABLE durable_calls (
    flow_run_id   TEXT    NOT NULL,
    digest        BLOB    NOT NULL,   -- of the task and of all inputs
    series        INTEGER NOT NULL,
    first_number  INTEGER NOT NULL,
    runs          INTEGER NOT NULL,
    PRIMARY KEY (series, first_number)
) WITHOUT ROWID;
CREATE INDEX durable_calls_flow_run ON durable_calls (flow_run_id);

CREATE TABLE cache_records (
    key          TEXT    NOT NULL PRIMARY KEY,
    task         TEXT    NOT NULL,
    record       BLOB    NOT NULL,    -- a ResultRecord
    created      INTEGER NOT NULL,
    expires      INTEGER,
    task_run_id  TEXT
) WITHOUT ROWID;
CREATE INDEX cache_records_expires ON cache_records (expires) WHERE expires IS NOT NULL;

-- Who computes a key now; the others wait.
CREATE TABLE cache_locks (
    key          TEXT    NOT NULL PRIMARY KEY,
    holder       TEXT    NOT NULL,
    process_id   TEXT    NOT NULL
) WITHOUT ROWID;

-- Limits that hold for all processes, and who has slots of them: what is taken is what living leases hold.
CREATE TABLE limits (
    name                   TEXT    NOT NULL PRIMARY KEY,
    slots                  INTEGER NOT NULL,
    slot_decay_per_second  REAL,
    active                 INTEGER NOT NULL DEFAULT 1,
    created                INTEGER NOT NULL,
    level                  REAL    NOT NULL DEFAULT 0,   -- of a decaying limit: slots in use at `level_at`
    level_at               INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

CREATE TABLE leases (
    id           TEXT    NOT NULL PRIMARY KEY,
    limit_name   TEXT    NOT NULL,
    process_id   TEXT    NOT NULL,
    holder       TEXT,                -- the run, for people
    slots        INTEGER NOT NULL,
    state        TEXT    NOT NULL,    -- waiting, held
    place        INTEGER NOT NULL,    -- in the queue: who came first
    since        INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX leases_limit ON leases (limit_name, state, place);
CREATE INDEX leases_process ON leases (process_id);
