-- What the writer puts into the store, one flush at a time. A run that has ended is never written over; but where others
-- took its process for dead, what that process knows better, and had put into its spool, counts.

-- name: put_completed_runs
-- Task runs of the commonest kind: begun once, completed, nothing special about them.
INSERT INTO task_runs (series, number, created, started, ended, inputs, state, run_count)
VALUES :rows(series, number, created, started, ended, inputs, 'COMPLETED', 1)
ON CONFLICT (series, number) DO UPDATE SET
    started = excluded.started, ended = excluded.ended, state = excluded.state, state_name = NULL, message = NULL,
    run_count = excluded.run_count
WHERE task_runs.ended IS NULL OR task_runs.state = 'CRASHED';

-- name: put_task_runs
-- Task runs of any kind, as they are now.
INSERT INTO task_runs (series, number, created, started, ended, state, state_name, message, run_count, name, parent,
                       tags, inputs)
VALUES :rows(series, number, created, started, ended, state, state_name, message, run_count, name, parent, tags, inputs)
ON CONFLICT (series, number) DO UPDATE SET
    started = excluded.started, ended = excluded.ended, state = excluded.state, state_name = excluded.state_name,
    message = excluded.message, run_count = excluded.run_count, name = coalesce(excluded.name, task_runs.name),
    inputs = coalesce(excluded.inputs, task_runs.inputs)
WHERE task_runs.ended IS NULL OR task_runs.state = 'CRASHED';

-- name: put_task_run_states
INSERT INTO task_run_states (series, number, at, state, name, message)
VALUES :rows(series, number, at, state, name, message);

-- name: put_series
INSERT INTO series (key, base, task, flow_run_id, created, tags, source, submitted, process_id)
VALUES :rows(key, base, task, flow_run_id, created, tags, source, submitted, process_id)
ON CONFLICT (key) DO UPDATE SET
    submitted = CASE WHEN excluded.submitted > series.submitted THEN excluded.submitted ELSE series.submitted END;

-- name: put_flow_runs
INSERT INTO flow_runs (id, flow, name, version, state, state_name, message, created, started, ended, due, run_count, tags,
                       parameters, parent_flow_run_id, parent_task_run_id, root_flow_run_id, process_id,
                       idempotency_key, durable, source_hash, entrypoint, arguments, result)
VALUES :rows(id, flow, name, version, state, state_name, message, created, started, ended, due, run_count, tags,
             parameters, parent_flow_run_id, parent_task_run_id, root_flow_run_id, process_id,
             idempotency_key, durable, source_hash, entrypoint, arguments, result)
ON CONFLICT (id) DO UPDATE SET
    name = excluded.name, state = excluded.state, state_name = excluded.state_name, message = excluded.message,
    started = excluded.started, ended = excluded.ended, due = excluded.due, run_count = excluded.run_count,
    parameters = excluded.parameters, process_id = excluded.process_id,
    parent_task_run_id = coalesce(excluded.parent_task_run_id, flow_runs.parent_task_run_id),
    version = coalesce(excluded.version, flow_runs.version), durable = excluded.durable,
    source_hash = coalesce(flow_runs.source_hash, excluded.source_hash),
    entrypoint = coalesce(excluded.entrypoint, flow_runs.entrypoint),
    arguments = coalesce(excluded.arguments, flow_runs.arguments), result = excluded.result
WHERE flow_runs.ended IS NULL OR flow_runs.state = 'CRASHED' AND flow_runs.process_id = excluded.process_id;

-- name: put_flow_run_states
INSERT INTO flow_run_states (flow_run_id, at, state, name, message) VALUES :rows(flow_run_id, at, state, name, message);

-- name: put_edges
INSERT OR IGNORE INTO edges (series, number, upstream_series, upstream_number, argument)
VALUES :rows(series, number, upstream_series, upstream_number, argument);

-- name: put_logs
INSERT INTO logs (flow_run_id, task_run_id, at, level, logger, message)
VALUES :rows(flow_run_id, task_run_id, at, level, logger, message);

-- name: put_results
INSERT INTO task_run_results (series, number, record, durable_key) VALUES :rows(series, number, record, durable_key)
ON CONFLICT (series, number) DO UPDATE SET record = excluded.record, durable_key = excluded.durable_key;

-- name: put_durable_calls
INSERT OR IGNORE INTO durable_calls (flow_run_id, digest, series, first_number, runs)
VALUES :rows(flow_run_id, digest, series, first_number, runs);
