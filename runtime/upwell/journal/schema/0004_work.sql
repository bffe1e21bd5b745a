-- Work that is to be done: jobs, who carries them out, who may ask for them.

-- Whose key a process has come in with that writes through a server; nobody else may write in its name.
ALTER TABLE processes ADD COLUMN owner TEXT;

-- Flow runs that somebody is to carry out: made ahead of their time, and claimed by exactly one worker at a time.
CREATE TABLE jobs (
    flow_run_id    TEXT    NOT NULL PRIMARY KEY,
    deployment_id  TEXT    NOT NULL,
    schedule_slug  TEXT,                             -- whose tick it is; NULL if somebody asked for it
    due            INTEGER NOT NULL,
    latest         INTEGER,                          -- if it has not begun by then it is skipped
    expected       INTEGER NOT NULL,                 -- when it could have begun: not before it was made
    late           INTEGER NOT NULL DEFAULT 0,       -- it has been said that it is late
    priority       INTEGER NOT NULL DEFAULT 0,
    work_pool      TEXT,
    work_queue     TEXT,
    parameters     TEXT    NOT NULL,                 -- JSON, exact
    job_variables  TEXT    NOT NULL DEFAULT '{}',
    state          TEXT    NOT NULL,                 -- waiting, claimed, begun, ended
    worker_id      TEXT,                             -- the process that has claimed it
    claimed        INTEGER,                          -- when it did
    claims         INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX jobs_waiting ON jobs (due, deployment_id, priority, work_pool, work_queue, latest) WHERE state = 'waiting';
CREATE INDEX jobs_not_late ON jobs (expected) WHERE state = 'waiting' AND late = 0;
CREATE INDEX jobs_latest ON jobs (latest) WHERE state = 'waiting' AND latest IS NOT NULL;
CREATE INDEX jobs_under_way ON jobs (deployment_id, state) WHERE state IN ('claimed', 'begun');
CREATE INDEX jobs_of_pool ON jobs (work_pool, work_queue) WHERE state IN ('claimed', 'begun');
CREATE INDEX jobs_of_deployment ON jobs (deployment_id, due);
CREATE INDEX jobs_of_worker ON jobs (worker_id) WHERE state IN ('claimed', 'begun');

-- Somebody wants a flow run to end. It is there until the run has ended.
CREATE TABLE cancel_requests (
    flow_run_id    TEXT    NOT NULL PRIMARY KEY,
    requested      INTEGER NOT NULL,
    actor          TEXT    NOT NULL,
    reason         TEXT,
    grace_micros   INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE work_pools (
    name               TEXT    NOT NULL PRIMARY KEY,
    kind               TEXT    NOT NULL,
    description        TEXT,
    paused             INTEGER NOT NULL DEFAULT 0,
    concurrency        INTEGER,
    base_job_template  TEXT    NOT NULL DEFAULT '{}',
    created            INTEGER NOT NULL,
    asked              INTEGER                       -- when somebody last asked for jobs of it
) WITHOUT ROWID;

CREATE TABLE work_queues (
    pool         TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    priority     INTEGER NOT NULL DEFAULT 1,
    paused       INTEGER NOT NULL DEFAULT 0,
    concurrency  INTEGER,
    PRIMARY KEY (pool, name)
) WITHOUT ROWID;

-- Those who carry jobs out; whether one is there is what its process's lease says.
CREATE TABLE workers (
    process_id  TEXT    NOT NULL PRIMARY KEY,
    name        TEXT    NOT NULL,
    pool        TEXT,
    started     INTEGER NOT NULL,
    seen        INTEGER NOT NULL,
    ended       INTEGER
) WITHOUT ROWID;
CREATE INDEX workers_pool ON workers (pool, seen);

-- Keys to the API: what is kept is a digest.
CREATE TABLE api_keys (
    id         TEXT    NOT NULL PRIMARY KEY,
    name       TEXT    NOT NULL,
    scope      TEXT    NOT NULL,                     -- read, run, admin
    prefix     TEXT    NOT NULL,
    digest     BLOB    NOT NULL,
    created    INTEGER NOT NULL,
    expires    INTEGER,
    revoked    INTEGER,
    last_used  INTEGER
) WITHOUT ROWID;
CREATE UNIQUE INDEX api_keys_digest ON api_keys (digest);

-- People who have logged in to the pages.
CREATE TABLE sessions (
    digest   BLOB    NOT NULL PRIMARY KEY,
    key_id   TEXT    NOT NULL,
    csrf     TEXT    NOT NULL,
    created  INTEGER NOT NULL,
    expires  INTEGER NOT NULL
) WITHOUT ROWID;

-- Who changed what. Only ever added to.
CREATE TABLE audit_records (
    key     INTEGER PRIMARY KEY,
    at      INTEGER NOT NULL,
    actor   TEXT    NOT NULL,
    action  TEXT    NOT NULL,
    target  TEXT    NOT NULL,
    detail  TEXT
);

CREATE INDEX flow_runs_deployment ON flow_runs (deployment_id, created, id) WHERE deployment_id IS NOT NULL;
CREATE INDEX flow_runs_due ON flow_runs (due) WHERE state = 'SCHEDULED';

-- When somebody last asked for jobs of a deployment; and when it has to be looked for ticks of a schedule again.
ALTER TABLE deployments ADD COLUMN asked INTEGER;
ALTER TABLE schedules ADD COLUMN look INTEGER NOT NULL DEFAULT 0;
CREATE INDEX schedules_look ON schedules (look) WHERE active = 1;
