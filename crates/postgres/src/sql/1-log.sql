-- Migration 1: the log and everything that commits with it. Times are nanoseconds since 1970. Ids of ours are 16 bytes, those
-- of peers a zero byte and their text. The tenant "none" is the empty text, since a key holds no NULL.
--
-- Texts are ordered by their bytes, whatever the database's language is. U+0000, which a text here cannot hold, is written as
-- U+0001 and `0`, U+0001 as U+0001 and `1`.

-- One row: the name of this log among others, and what is added to a transaction's number, see `write_begins`.
CREATE TABLE log (
    origin text NOT NULL,
    era bigint NOT NULL,
    state_versions_forgotten bigint NOT NULL DEFAULT 0
);

-- The latest time of the log. A sequence, because it must not wait for the end of anybody's transaction.
CREATE SEQUENCE log_time MINVALUE 0 START 0;

-- The log. A position is made of the number of the transaction that wrote the event and of its place in it, so that order by
-- position is order by (era, transaction, place). Partitioned from the first day: old ranges can be moved away later.
CREATE TABLE events (
    position bigint NOT NULL,
    name text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    recorded_at bigint NOT NULL,
    id bytea NOT NULL,
    stream_version bigint,
    tags text COLLATE "C" NOT NULL,
    sender_service text COLLATE "C" NOT NULL,
    sender_version text COLLATE "C" NOT NULL,
    sender_target text COLLATE "C" NOT NULL,
    sender_instance bytea,
    principal text COLLATE "C",
    trace_id bytea NOT NULL,
    correlation_id bytea,
    causation_id bytea,
    hops smallint NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (position)
) PARTITION BY RANGE (position);
CREATE TABLE events_rest PARTITION OF events DEFAULT;
CREATE INDEX events_by_form ON events (name, version, position);

-- Which events bear a tag. The tenant stands before the position, so that one tenant's part is one range.
CREATE TABLE tags (
    name text COLLATE "C" NOT NULL,
    value text COLLATE "C" NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    PRIMARY KEY (name, value, tenant, position)
);

-- How many events a stream has. Rows are changed in place: there is room for it in each page.
CREATE TABLE streams (
    tenant text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    value text COLLATE "C" NOT NULL,
    count bigint NOT NULL,
    PRIMARY KEY (tenant, name, value)
) WITH (fillfactor = 70);

-- The forms that events have. A row is only ever added, so that nobody waits for anybody's count.
CREATE TABLE forms (
    name text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    PRIMARY KEY (name, version)
);

-- The receipts of batches.
CREATE TABLE batches (
    id bytea PRIMARY KEY,
    recorded_at bigint NOT NULL,
    position bigint NOT NULL,
    events integer NOT NULL,
    state_versions text
);
CREATE INDEX batches_by_time ON batches USING brin (recorded_at);

CREATE TABLE replies (
    tenant text COLLATE "C" NOT NULL,
    scope text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    fingerprint bytea NOT NULL,
    body bytea,
    event_name text COLLATE "C",
    recorded_at bigint NOT NULL,
    PRIMARY KEY (tenant, scope, key)
);
CREATE INDEX replies_by_time ON replies USING brin (recorded_at);

-- Messages of bridges that were handled for a subscription.
CREATE TABLE consumed (
    subscription text COLLATE "C" NOT NULL,
    message bytea NOT NULL,
    recorded_at bigint NOT NULL,
    PRIMARY KEY (subscription, message)
);
CREATE INDEX consumed_by_time ON consumed USING brin (recorded_at);

-- A row without a value remembers the version of a removed key for a while, so that no version comes twice. A new key begins
-- above `state_versions_forgotten`.
CREATE TABLE state (
    tenant text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    value text,
    version bigint NOT NULL,
    expires_at bigint,
    PRIMARY KEY (tenant, key)
) WITH (fillfactor = 70);
CREATE INDEX state_by_expiry ON state (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE progress (
    subscription text COLLATE "C" PRIMARY KEY,
    low bigint NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE progress_done (
    subscription text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    PRIMARY KEY (subscription, position)
);

CREATE TABLE parked (
    subscription text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    attempts bigint NOT NULL,
    key text COLLATE "C",
    due bigint,
    history text NOT NULL,
    PRIMARY KEY (subscription, position)
);

CREATE TABLE pauses (
    subscription text COLLATE "C" PRIMARY KEY,
    since bigint NOT NULL,
    reason text NOT NULL
);

CREATE TABLE dead_letters (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id bytea NOT NULL,
    subscription text COLLATE "C" NOT NULL,
    position bigint,
    message bytea,
    at bigint NOT NULL,
    reason text NOT NULL,
    attempts bigint NOT NULL,
    trace_id bytea NOT NULL,
    history text NOT NULL
);
CREATE INDEX dead_letters_by_id ON dead_letters (id);
CREATE INDEX dead_letters_by_subscription ON dead_letters (subscription, number);

-- A cache: whoever finds none folds from the start.
CREATE TABLE snapshots (
    name text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    query bytea NOT NULL,
    position bigint NOT NULL,
    taken_at bigint NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (name, version, tenant, query)
);

-- One row a build of a projection: everything up to its position is in its tables. Those of the current build are what
-- readers see, under their own names.
CREATE TABLE projections (
    name text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    generation bigint NOT NULL,
    position bigint NOT NULL,
    is_current boolean NOT NULL,
    paused_at bigint, -- a position
    paused_since bigint,
    paused_reason text,
    PRIMARY KEY (name, version, generation)
) WITH (fillfactor = 50);

-- The tables of a build, by the name that readers use; in the schema each has one of its own.
CREATE TABLE projection_tables (
    projection text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    generation bigint NOT NULL,
    name text COLLATE "C" NOT NULL,
    PRIMARY KEY (projection, version, generation, name)
);

-- Takes locks until the end of the transaction, in the order in which they come: everybody brings them sorted, so that nobody
-- waits for one who waits for him.
CREATE FUNCTION take_locks(keys bigint[], are_exclusive boolean[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    FOR number IN 1 .. cardinality(keys) LOOP
        IF are_exclusive[number] THEN
            PERFORM pg_advisory_xact_lock(keys[number]);
        ELSE
            PERFORM pg_advisory_xact_lock_shared(keys[number]);
        END IF;
    END LOOP;
END $$;

-- Begins to write: gives the transaction its number and its time together, so that later numbers never have earlier times.
-- `base` is the position before its first event. It comes after the locks: who waited for somebody else's commit comes after
-- it in the log. The lock in it is the session's and is held for these few lines only.
CREATE FUNCTION write_begins(clock bigint, guard bigint, OUT base bigint, OUT recorded_at bigint) LANGUAGE plpgsql AS $$
DECLARE
    latest bigint;
BEGIN
    PERFORM pg_advisory_lock(guard);
    SELECT (era + pg_current_xact_id()::text::bigint) << 14 INTO base FROM log;
    SELECT last_value INTO latest FROM log_time;
    recorded_at := greatest(clock, latest);
    IF recorded_at > latest THEN
        PERFORM setval('log_time', recorded_at);
    END IF;
    PERFORM pg_advisory_unlock(guard);
END $$;

-- Everything below it is ended: nothing can appear there any more.
CREATE FUNCTION horizon() RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT (era + pg_snapshot_xmin(pg_current_snapshot())::text::bigint) << 14 FROM log
$$;

-- The last position that was recorded at or before a time. Times never run back, so it is found by halves.
CREATE FUNCTION position_at(moment bigint) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    low bigint := 0; -- everything up to it is old enough
    high bigint; -- everything from it on is too young
    middle bigint;
    next record;
BEGIN
    SELECT coalesce(max(position), 0) + 1 INTO high FROM events;
    WHILE high - low > 1 LOOP
        middle := low + (high - low) / 2;
        SELECT e.position, e.recorded_at INTO next FROM events e WHERE e.position >= middle ORDER BY e.position LIMIT 1;
        IF next.position IS NOT NULL AND next.recorded_at <= moment THEN
            low := next.position;
        ELSE
            high := middle;
        END IF;
    END LOOP;
    RETURN low;
END $$;
