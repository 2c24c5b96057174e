-- Migration 3: the locks of a group and what it begins with, in one call: each way of a statement to the server costs more than
-- what these do there.
CREATE FUNCTION group_begins(
    keys bigint[], are_exclusive boolean[], clock bigint, guard bigint, OUT base bigint, OUT recorded_at bigint
) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM take_locks(keys, are_exclusive);
    SELECT b.base, b.recorded_at INTO group_begins.base, group_begins.recorded_at FROM write_begins(clock, guard) b;
END $$;
