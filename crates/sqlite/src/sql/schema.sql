-- Version 1 of the file. Times are nanoseconds since 1970; ids of ours are 16 bytes, ids of peers are text; the tenant
-- "none" is the empty text, since a key holds no NULL.

-- What there is one of: `origin`, the name of this log among others; `state_versions_forgotten`, the highest version of any
-- row of state that was removed.
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value NOT NULL
) WITHOUT ROWID;

-- The log. Positions are given by the one writer, in the order of commits.
CREATE TABLE events (
    position INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    tenant TEXT NOT NULL,
    recorded_at INTEGER NOT NULL,
    id NOT NULL,
    version INTEGER NOT NULL,
    stream_version INTEGER,
    tags TEXT NOT NULL,
    sender_service TEXT NOT NULL,
    sender_version TEXT NOT NULL,
    sender_target TEXT NOT NULL,
    sender_instance TEXT,
    principal TEXT,
    trace_id NOT NULL,
    correlation_id,
    causation_id,
    hops INTEGER NOT NULL,
    checksum INTEGER NOT NULL, -- CRC-32 of all other columns
    body NOT NULL
);
CREATE INDEX events_by_name ON events (name);

-- Which events bear a tag. The tenant stands before the position, so that one tenant's part is one range.
CREATE TABLE tags (
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    tenant TEXT NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (name, value, tenant, position)
) WITHOUT ROWID;

-- How many events a stream has.
CREATE TABLE streams (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (tenant, name, value)
) WITHOUT ROWID;

-- The receipts of batches, oldest first by their number.
CREATE TABLE batches (
    number INTEGER PRIMARY KEY,
    id NOT NULL UNIQUE,
    recorded_at INTEGER NOT NULL,
    position INTEGER NOT NULL,
    events INTEGER NOT NULL,
    state_versions TEXT
);

CREATE TABLE replies (
    number INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    body,
    event_name TEXT,
    recorded_at INTEGER NOT NULL,
    UNIQUE (tenant, scope, key)
);

-- Messages of bridges that were handled for a subscription.
CREATE TABLE consumed (
    number INTEGER PRIMARY KEY,
    subscription TEXT NOT NULL,
    message NOT NULL,
    recorded_at INTEGER NOT NULL,
    UNIQUE (subscription, message)
);

-- A row without a value remembers the version of a removed key for a while, so that no version comes twice. A new key
-- begins above `state_versions_forgotten`.
CREATE TABLE state (
    tenant TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT,
    version INTEGER NOT NULL,
    expires_at INTEGER,
    PRIMARY KEY (tenant, key)
) WITHOUT ROWID;
CREATE INDEX state_by_expiry ON state (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE progress (
    subscription TEXT PRIMARY KEY,
    low INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE progress_done (
    subscription TEXT NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (subscription, position)
) WITHOUT ROWID;

CREATE TABLE parked (
    subscription TEXT NOT NULL,
    position INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    key TEXT,
    due INTEGER,
    history TEXT NOT NULL,
    PRIMARY KEY (subscription, position)
) WITHOUT ROWID;

CREATE TABLE pauses (
    subscription TEXT PRIMARY KEY,
    since INTEGER NOT NULL,
    reason TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE dead_letters (
    number INTEGER PRIMARY KEY,
    id NOT NULL,
    subscription TEXT NOT NULL,
    position INTEGER,
    message BLOB,
    at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    trace_id NOT NULL,
    history TEXT NOT NULL
);
CREATE INDEX dead_letters_by_subscription ON dead_letters (subscription);
