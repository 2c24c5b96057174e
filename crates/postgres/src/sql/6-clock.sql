-- Migration 6: times are those of the server's clock, so that one process with a wrong clock spoils nobody's. A process brings a
-- time of its own where it was told to, and while it does not believe the server's clock; programs of older versions always do.
CREATE OR REPLACE FUNCTION write_begins(clock bigint, guard bigint, OUT base bigint, OUT recorded_at bigint) LANGUAGE plpgsql AS $$
DECLARE
    latest bigint;
BEGIN
    PERFORM pg_advisory_lock(guard);
    SELECT (era + pg_current_xact_id()::text::bigint) << 14 INTO base FROM log;
    SELECT last_value INTO latest FROM log_time;
    recorded_at := greatest(coalesce(clock, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000), latest);
    IF recorded_at > latest THEN
        PERFORM setval('log_time', recorded_at);
    END IF;
    PERFORM pg_advisory_unlock(guard);
END $$;
