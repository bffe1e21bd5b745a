-- What the reader asks besides pages of runs, which are put together from filters.

-- name: read_flow_run
SELECT f.id, f.flow, f.name, f.version, f.state, f.state_name, f.message, f.created, f.started, f.ended, f.due,
       f.run_count, f.tags, f.parameters, f.parent_flow_run_id, f.parent_task_run_id, f.root_flow_run_id, f.durable,
       f.crashes, f.idempotency_key, f.deployment_id,
       (SELECT j.due FROM jobs j WHERE j.flow_run_id = f.id)
FROM flow_runs f WHERE f.id = :id;

-- name: read_flow_runs_by_id
-- Those between two ids, the newest first.
SELECT f.id, f.flow, f.name, f.version, f.state, f.state_name, f.message, f.created, f.started, f.ended, f.due,
       f.run_count, f.tags, f.parameters, f.parent_flow_run_id, f.parent_task_run_id, f.root_flow_run_id, f.durable,
       f.crashes, f.idempotency_key, f.deployment_id,
       (SELECT j.due FROM jobs j WHERE j.flow_run_id = f.id)
FROM flow_runs f WHERE f.id >= :first AND f.id <= :last ORDER BY f.id DESC LIMIT :n;

-- name: read_flow_run_tree
-- A flow run and all that it has started, directly or not, each before what it has started.
WITH RECURSIVE tree(id, depth) AS (
    SELECT id, 0 FROM flow_runs WHERE id = :id
    UNION ALL
    SELECT child.id, tree.depth + 1 FROM tree JOIN flow_runs child ON child.parent_flow_run_id = tree.id
)
SELECT f.id, f.flow, f.name, f.version, f.state, f.state_name, f.message, f.created, f.started, f.ended, f.due,
       f.run_count, f.tags, f.parameters, f.parent_flow_run_id, f.parent_task_run_id, f.root_flow_run_id, f.durable,
       f.crashes, f.idempotency_key, f.deployment_id,
       (SELECT j.due FROM jobs j WHERE j.flow_run_id = f.id)
FROM tree JOIN flow_runs f ON f.id = tree.id
ORDER BY tree.depth, f.created, f.id;

-- name: read_series_before
-- The series that a run of this random part may belong to: the one that begins there, or last before it.
SELECT key, base, task, created, tags, flow_run_id, submitted FROM series
WHERE base <= :base ORDER BY base DESC LIMIT 1;

-- name: read_task_run
SELECT t.series, t.number, t.created, t.started, t.ended, t.state, t.state_name, t.message, t.run_count, t.name,
       t.parent, t.tags, t.inputs, s.base, s.task, s.tags AS series_tags, s.flow_run_id, f.name AS flow_run_name
FROM task_runs t JOIN series s ON s.key = t.series LEFT JOIN flow_runs f ON f.id = s.flow_run_id
WHERE t.series = :series AND t.number = :number;

-- name: read_flow_run_states
SELECT state, name, at, message FROM flow_run_states WHERE flow_run_id = :id ORDER BY key;

-- name: read_task_run_states
SELECT state, name, at, message FROM task_run_states WHERE series = :series AND number = :number ORDER BY key;

-- name: read_flow_run_logs
-- With those of its task runs.
SELECT key, flow_run_id, task_run_id, at, level, logger, message FROM logs
WHERE flow_run_id = :id AND key > :after AND level >= :level ORDER BY key LIMIT :n;

-- name: read_task_run_logs
SELECT key, flow_run_id, task_run_id, at, level, logger, message FROM logs
WHERE task_run_id = :id AND key > :after AND level >= :level ORDER BY key LIMIT :n;

-- name: read_edges
-- Of the task runs of one flow run; a run that has not begun has no time of its own.
SELECT u.base, coalesce(a.created, u.created), e.upstream_number, a.name, u.task,
       s.base, coalesce(b.created, s.created), e.number, b.name, s.task, e.argument, e.series, e.upstream_series
FROM series s
JOIN edges e ON e.series = s.key
JOIN series u ON u.key = e.upstream_series
LEFT JOIN task_runs a ON a.series = e.upstream_series AND a.number = e.upstream_number
LEFT JOIN task_runs b ON b.series = e.series AND b.number = e.number
WHERE s.flow_run_id = :id AND (e.series, e.number, e.upstream_series, e.upstream_number)
    > (:series, :number, :upstream_series, :upstream_number)
ORDER BY e.series, e.number, e.upstream_series, e.upstream_number LIMIT :n;

-- name: read_groups
-- The task runs of some flow runs by series: how many there are, and when they ran.
SELECT s.flow_run_id, s.key, s.task, s.created, s.submitted, runs.begun, runs.started, runs.ended
FROM series s LEFT JOIN (
    SELECT series, count(*) AS begun, min(started) AS started, max(ended) AS ended FROM task_runs
    WHERE series IN (
        SELECT key FROM series WHERE flow_run_id IN (SELECT value FROM json_each(:ids))
    ) GROUP BY series
) AS runs ON runs.series = s.key
WHERE s.flow_run_id IN (SELECT value FROM json_each(:ids))
ORDER BY s.created, s.key;

-- name: read_groups_not_completed
-- How many of them are in which other state.
SELECT series, state, count(*) FROM task_runs
WHERE state <> 'COMPLETED' AND state IN (SELECT value FROM json_each(:states)) AND series IN (
    SELECT key FROM series WHERE flow_run_id IN (SELECT value FROM json_each(:ids))
) GROUP BY series, state;

-- name: read_first_runs
-- The first runs of each of these series.
SELECT t.series, t.number, t.created, t.started, t.ended, t.state, t.state_name, t.message, t.run_count, t.name,
       t.parent, t.tags, t.inputs, s.base, s.task, s.tags AS series_tags, s.flow_run_id, f.name AS flow_run_name
FROM series s JOIN task_runs t ON t.series = s.key LEFT JOIN flow_runs f ON f.id = s.flow_run_id
WHERE s.key IN (SELECT CAST(value AS INTEGER) FROM json_each(:keys)) AND t.number < :first
ORDER BY t.series, t.number;

-- name: read_series_of_flow_runs
SELECT key, base, task, flow_run_id FROM series WHERE flow_run_id IN (SELECT value FROM json_each(:ids));

-- name: read_timeline
-- When the task runs of some series ran, in the order of their starts; what has not started comes last.
SELECT t.series, t.number, t.created, t.started, t.ended, t.state, t.state_name, t.name FROM task_runs t
WHERE t.series IN (SELECT CAST(value AS INTEGER) FROM json_each(:keys))
    AND (coalesce(t.started, :never), t.series, t.number) > (:started, :series, :number)
ORDER BY coalesce(t.started, :never), t.series, t.number LIMIT :n;

-- name: read_series_of_flow_run
SELECT s.key, s.submitted, (SELECT count(*) FROM task_runs t WHERE t.series = s.key) AS begun,
       s.created, s.base, s.task, s.tags, s.flow_run_id, f.name
FROM series s LEFT JOIN flow_runs f ON f.id = s.flow_run_id
WHERE s.flow_run_id = :id ORDER BY s.created, s.key;

-- name: read_numbers
SELECT number FROM task_runs WHERE series = :series AND number >= :first AND number < :before;

-- name: count_task_runs
SELECT count(*) FROM task_runs WHERE created >= :since AND created < :until;

-- name: count_task_runs_by_span
SELECT (created - :origin) / :width, count(*) FROM task_runs
WHERE created >= :since AND created < :until
GROUP BY 1;

-- name: count_task_runs_by_state
-- Those that have not completed.
SELECT (created - :origin) / :width, state, count(*) FROM task_runs
WHERE state <> 'COMPLETED' AND state IN (SELECT value FROM json_each(:states)) AND created >= :since
    AND created < :until
GROUP BY 1, 2;

-- name: count_flow_runs_by_state
SELECT (created - :origin) / :width, state, count(*) FROM flow_runs
WHERE created >= :since AND created < :until
GROUP BY 1, 2;

-- name: count_not_begun
-- Task runs that were submitted and have no row: in flow runs that have not ended, or outside of any.
SELECT (s.created - :origin) / :width, sum(s.submitted - (SELECT count(*) FROM task_runs t WHERE t.series = s.key))
FROM series s LEFT JOIN flow_runs f ON f.id = s.flow_run_id
WHERE s.created >= :since AND s.created < :until AND f.ended IS NULL
GROUP BY 1;
