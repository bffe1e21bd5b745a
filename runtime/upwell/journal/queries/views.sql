-- What pages ask beyond single runs and pages of them: what is going on, and what pictures of large runs are made of.

-- name: view_flow_names
-- Each flow that has runs: one look into the index a flow.
WITH RECURSIVE names(flow) AS (
    SELECT min(flow) FROM flow_runs
    UNION ALL
    SELECT (SELECT min(f.flow) FROM flow_runs f WHERE f.flow > names.flow) FROM names WHERE names.flow IS NOT NULL
)
SELECT flow FROM names WHERE flow IS NOT NULL;

-- name: view_open_runs
-- How many flow runs have not ended, by state.
SELECT state, state_name, count(*) FROM flow_runs
WHERE state <> 'COMPLETED' AND state IN ('SCHEDULED', 'PENDING', 'RUNNING', 'PAUSED', 'CANCELLING')
GROUP BY 1, 2;

-- name: view_recent_flows
-- The flows of the runs that were created last, without those that are due only later.
SELECT f.flow FROM flow_runs f
WHERE NOT (f.state = 'SCHEDULED' AND f.state_name IS NULL AND coalesce(f.due, 0) > :now)
ORDER BY f.created DESC, f.id DESC LIMIT :n;

-- name: view_last_runs_of_flows
-- Of each flow the runs that were created last, likewise.
SELECT f.flow, f.id, f.name, f.state, f.state_name, f.message, f.created, f.started, f.ended
FROM json_each(:wanted) AS wanted JOIN flow_runs f ON f.id IN (
    SELECT r.id FROM flow_runs r
    WHERE r.flow = wanted.value AND NOT (r.state = 'SCHEDULED' AND r.state_name IS NULL AND coalesce(r.due, 0) > :now)
    ORDER BY r.created DESC, r.id DESC LIMIT :n
);

-- name: view_last_runs_of_deployments
SELECT f.deployment_id, f.id, f.name, f.state, f.state_name, f.message, f.created, f.started, f.ended
FROM json_each(:wanted) AS wanted JOIN flow_runs f ON f.id IN (
    SELECT r.id FROM flow_runs r
    WHERE r.deployment_id = wanted.value
        AND NOT (r.state = 'SCHEDULED' AND r.state_name IS NULL AND coalesce(r.due, 0) > :now)
    ORDER BY r.created DESC, r.id DESC LIMIT :n
);

-- name: view_progress
-- How many task runs flow runs have submitted, and how many of them have begun.
SELECT s.flow_run_id, sum(s.submitted), sum((SELECT count(*) FROM task_runs t WHERE t.series = s.key))
FROM series s WHERE s.flow_run_id IN (SELECT value FROM json_each(:ids)) GROUP BY 1;

-- name: view_progress_states
-- How many of those that have begun are in which state; those that completed are the rest.
-- CROSS JOIN: series by series, and not through all task runs that failed, of which there can be very many.
SELECT s.flow_run_id, t.state, count(*) FROM series s CROSS JOIN task_runs t
WHERE t.series = s.key AND s.flow_run_id IN (SELECT value FROM json_each(:ids)) AND t.state <> 'COMPLETED'
GROUP BY 1, 2;

-- name: view_starts
-- How many task runs of some flow runs began when, by flow run, task and state: what a timeline of many is drawn from.
-- First by series: what is sorted is short then.
SELECT s.flow_run_id, s.task, found.part, found.state, CAST(sum(found.runs) AS INTEGER) FROM (
    SELECT series, (started - :origin) / :width AS part, state, count(*) AS runs FROM task_runs
    WHERE started IS NOT NULL AND series IN (
        SELECT key FROM series WHERE flow_run_id IN (SELECT value FROM json_each(:ids))
    ) GROUP BY 1, 2, 3
) AS found JOIN series s ON s.key = found.series
GROUP BY 1, 2, 3, 4;

-- name: view_dependencies
-- Which tasks of a flow run fed which others, and by how many edges.
SELECT u.task, s.task, count(*)
FROM series s JOIN edges e ON e.series = s.key JOIN series u ON u.key = e.upstream_series
WHERE s.flow_run_id = :id AND u.flow_run_id = :id
GROUP BY 1, 2 ORDER BY 1, 2;

-- name: view_upstream
SELECT u.base, coalesce(a.created, u.created), e.upstream_number, a.name, u.task, a.state, e.argument
FROM edges e JOIN series u ON u.key = e.upstream_series
LEFT JOIN task_runs a ON a.series = e.upstream_series AND a.number = e.upstream_number
WHERE e.series = :series AND e.number = :number ORDER BY e.upstream_series, e.upstream_number LIMIT :n;

-- name: view_downstream
SELECT s.base, coalesce(b.created, s.created), e.number, b.name, s.task, b.state, e.argument
FROM edges e JOIN series s ON s.key = e.series
LEFT JOIN task_runs b ON b.series = e.series AND b.number = e.number
WHERE e.upstream_series = :series AND e.upstream_number = :number ORDER BY e.series, e.number LIMIT :n;

-- name: view_series
SELECT base, task FROM series WHERE flow_run_id = :id ORDER BY base;

-- name: view_logs
-- The last lines of a flow run's log, its task runs' included, before a line; the newest first.
SELECT key, flow_run_id, task_run_id, at, level, logger, message FROM logs
WHERE flow_run_id = :id AND key < :before AND level >= :level AND lower(message) LIKE :text ESCAPE '!'
ORDER BY key DESC LIMIT :n;

-- name: view_task_logs
SELECT key, flow_run_id, task_run_id, at, level, logger, message FROM logs
WHERE task_run_id = :id AND key < :before AND level >= :level AND lower(message) LIKE :text ESCAPE '!'
ORDER BY key DESC LIMIT :n;
