-- What the server keeps and asks for itself: who is logged in, what has changed, how much there is.

-- name: put_session
INSERT INTO sessions (digest, key_id, csrf, created, expires) VALUES (:digest, :key_id, :csrf, :created, :expires);

-- name: find_session
-- With the key that it was opened with, if both may still be used.
SELECT s.csrf, k.id, k.name, k.scope FROM sessions s JOIN api_keys k ON k.id = s.key_id
WHERE s.digest = :digest AND s.expires > :now AND k.revoked IS NULL AND (k.expires IS NULL OR k.expires > :now);

-- name: remove_session
DELETE FROM sessions WHERE digest = :digest;

-- name: remove_expired_sessions
DELETE FROM sessions WHERE expires <= :now;

-- name: any_key
-- Whether a key was ever made, be it revoked or expired by now.
SELECT id FROM api_keys LIMIT 1;

-- name: usable_admin_key
SELECT id FROM api_keys WHERE scope = 'admin' AND revoked IS NULL AND (expires IS NULL OR expires > :now) LIMIT 1;

-- name: last_change_keys
SELECT coalesce((SELECT max(key) FROM flow_run_states), 0), coalesce((SELECT max(key) FROM logs), 0);

-- name: flow_run_changes
-- The states of flow runs after a key, of one of them or of all.
SELECT c.key, c.flow_run_id, f.name, f.flow, f.deployment_id, c.at, c.state, c.name, c.message
FROM flow_run_states c JOIN flow_runs f ON f.id = c.flow_run_id
WHERE c.key > :after AND c.key <= :last ORDER BY c.key LIMIT :n;

-- name: flow_run_changes_of
SELECT c.key, c.flow_run_id, f.name, f.flow, f.deployment_id, c.at, c.state, c.name, c.message
FROM flow_run_states c JOIN flow_runs f ON f.id = c.flow_run_id
WHERE c.flow_run_id = :flow_run_id AND c.key > :after AND c.key <= :last ORDER BY c.key LIMIT :n;

-- name: log_changes
SELECT key, flow_run_id, task_run_id, at, level, logger, message FROM logs
WHERE key > :after AND key <= :last ORDER BY key LIMIT :n;

-- name: log_changes_of
SELECT key, flow_run_id, task_run_id, at, level, logger, message FROM logs
WHERE flow_run_id = :flow_run_id AND key > :after AND key <= :last ORDER BY key LIMIT :n;

-- name: task_runs_submitted_in
SELECT coalesce(sum(submitted), 0) FROM series WHERE flow_run_id = :flow_run_id;

-- name: task_runs_begun_in
SELECT count(*) FROM task_runs WHERE series IN (SELECT key FROM series WHERE flow_run_id = :flow_run_id);

-- name: task_runs_not_completed_in
SELECT state, count(*) FROM task_runs
WHERE state <> 'COMPLETED' AND series IN (SELECT key FROM series WHERE flow_run_id = :flow_run_id)
GROUP BY state;

-- name: flow_names
-- The flows that have run, and those that could, after a name, by name.
SELECT name FROM (
    SELECT value AS name FROM json_each(:ran)
    UNION
    SELECT flow AS name FROM deployments
) AS flows
WHERE name > :after AND lower(name) LIKE :pattern ESCAPE '!' ORDER BY name LIMIT :n;

-- name: flow_last_runs
-- Of each of these flows the run that was created last.
SELECT f.flow, f.id, f.name, f.state, f.state_name, f.created FROM json_each(:flows) AS wanted
JOIN flow_runs f ON f.id = (
    SELECT id FROM flow_runs WHERE flow = wanted.value ORDER BY created DESC, id DESC LIMIT 1
);

-- name: flow_deployments
SELECT flow, count(*) FROM deployments WHERE flow IN (SELECT value FROM json_each(:flows)) GROUP BY flow;

-- name: count_open_flow_runs
-- Those that have not ended, by state.
SELECT state, count(*) FROM flow_runs
WHERE state <> 'COMPLETED' AND state IN ('SCHEDULED', 'PENDING', 'RUNNING', 'CANCELLING', 'PAUSED')
GROUP BY state;

-- name: count_flow_runs_since
SELECT state, count(*) FROM flow_runs WHERE created >= :since GROUP BY state;

-- name: count_jobs
-- How many wait, and of those how many are due, since when; how many are under way.
SELECT state, count(*), sum(CASE WHEN due <= :now THEN 1 ELSE 0 END), min(due) FROM jobs
WHERE state IN ('waiting', 'claimed', 'begun') GROUP BY state;

-- name: count_processes_alive
SELECT count(*) FROM processes WHERE state = 'alive';
