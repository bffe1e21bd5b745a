-- What whoever keeps a store asks of it.

-- name: count_store
-- How many runs there are, and of which version the schema is.
SELECT (SELECT count(*) FROM flow_runs) AS flow_runs,
       (SELECT coalesce(sum(submitted), 0) FROM series) AS task_runs,
       (SELECT coalesce(max(number), 0) FROM schema_migrations) AS schema_number;
