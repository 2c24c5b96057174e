-- Migration 5: what a group asks, and what it writes, in one call each and as rows. A row is laid out once for all of its columns,
-- where an array a column is laid out for each of them. The types are of their own: that of a table changes with the table, under
-- programs that still run.
CREATE TYPE event_row AS (
    position bigint,
    name text COLLATE "C",
    version bigint,
    tenant text COLLATE "C",
    recorded_at bigint,
    id bytea,
    stream_version bigint,
    tags text COLLATE "C",
    sender_service text COLLATE "C",
    sender_version text COLLATE "C",
    sender_target text COLLATE "C",
    sender_instance bytea,
    principal text COLLATE "C",
    trace_id bytea,
    correlation_id bytea,
    causation_id bytea,
    hops smallint,
    body bytea,
    trace text COLLATE "C"
);
CREATE TYPE tag_row AS (name text COLLATE "C", value text COLLATE "C", tenant text COLLATE "C", position bigint);
CREATE TYPE stream_row AS (tenant text COLLATE "C", name text COLLATE "C", value text COLLATE "C", count bigint);
CREATE TYPE receipt_row AS (id bytea, recorded_at bigint, position bigint, events integer, state_versions text);
-- A search for the first event with a tag, of some types or of any, beyond a position and up to another.
CREATE TYPE search_row AS (
    tenant text COLLATE "C", name text COLLATE "C", value text COLLATE "C", types text[], after bigint, up_to bigint
);
-- What a search found, by its place among the searches.
CREATE TYPE found_row AS (number bigint, name text, position bigint);

-- The locks of a group, its number and time; and behind them what it asks: each statement in here sees what was committed when it
-- begins. The counts are those of the streams that are asked for, in their order.
CREATE FUNCTION group_looks(
    keys bigint[], are_exclusive boolean[], clock bigint, guard bigint, ids bytea[], asked stream_row[], searches search_row[],
    OUT base bigint, OUT recorded_at bigint, OUT receipts receipt_row[], OUT counts bigint[], OUT broken found_row[]
) LANGUAGE plpgsql AS $$
DECLARE
    is_nothing boolean;
BEGIN
    -- As `take_locks` does, in the order in which they come. An assignment is worked out at once, where a PERFORM runs a query.
    FOR number IN 1 .. cardinality(keys) LOOP
        IF are_exclusive[number] THEN
            is_nothing := pg_advisory_xact_lock(keys[number]) IS NULL;
        ELSE
            is_nothing := pg_advisory_xact_lock_shared(keys[number]) IS NULL;
        END IF;
    END LOOP;
    SELECT b.base, b.recorded_at INTO group_looks.base, group_looks.recorded_at FROM write_begins(clock, guard) b;
    SELECT array_agg(ROW(b.id, b.recorded_at, b.position, b.events, b.state_versions)::receipt_row) INTO receipts
        FROM batches b WHERE b.id = ANY (ids);
    IF cardinality(asked) > 0 THEN
        SELECT array_agg(coalesce(
            (SELECT s.count FROM streams s WHERE s.tenant = k.tenant AND s.name = k.name AND s.value = k.value), 0
        ) ORDER BY k.number) INTO counts
            FROM unnest(asked) WITH ORDINALITY k (tenant, name, value, count, number);
    END IF;
    IF cardinality(searches) > 0 THEN
        SELECT array_agg(ROW(k.number, e.name, e.position)::found_row) INTO broken
            FROM unnest(searches) WITH ORDINALITY k (tenant, name, value, types, after, up_to, number) CROSS JOIN LATERAL (
                SELECT o.name, o.position FROM tags t JOIN events o ON o.position = t.position
                WHERE t.name = k.name AND t.value = k.value AND t.tenant = k.tenant
                    AND t.position > k.after AND t.position <= k.up_to AND (k.types IS NULL OR o.name = ANY (k.types))
                ORDER BY t.position LIMIT 1
            ) e;
    END IF;
END $$;

-- What every group writes.
CREATE FUNCTION group_ends(
    new_events event_row[], new_tags tag_row[], new_streams stream_row[], new_receipts receipt_row[]
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF cardinality(new_events) > 0 THEN
        INSERT INTO events (position, name, version, tenant, recorded_at, id, stream_version, tags, sender_service,
            sender_version, sender_target, sender_instance, principal, trace_id, correlation_id, causation_id, hops, body, trace)
            SELECT * FROM unnest(new_events);
    END IF;
    IF cardinality(new_tags) > 0 THEN
        INSERT INTO tags (name, value, tenant, position) SELECT * FROM unnest(new_tags);
    END IF;
    IF cardinality(new_streams) > 0 THEN
        INSERT INTO streams (tenant, name, value, count) SELECT * FROM unnest(new_streams)
            ON CONFLICT (tenant, name, value) DO UPDATE SET count = excluded.count;
    END IF;
    INSERT INTO batches (id, recorded_at, position, events, state_versions) SELECT * FROM unnest(new_receipts);
END $$;
