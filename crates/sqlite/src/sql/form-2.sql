-- From version 1 of the file to version 2: what is known of all events of one form, snapshots, and projections.

-- The forms that events have, kept up with each commit, so that nobody scans the log for them.
CREATE TABLE forms (
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    count INTEGER NOT NULL,
    oldest INTEGER NOT NULL,
    newest INTEGER NOT NULL,
    PRIMARY KEY (name, version)
) WITHOUT ROWID;
INSERT INTO forms (name, version, count, oldest, newest)
    SELECT name, version, count(*), min(position), max(position) FROM events GROUP BY name, version;

-- A cache: whoever finds none folds from the start.
CREATE TABLE snapshots (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    query BLOB NOT NULL,
    position INTEGER NOT NULL,
    taken_at INTEGER NOT NULL,
    checksum INTEGER NOT NULL, -- CRC-32 of all other columns but the number
    body NOT NULL,
    UNIQUE (name, version, tenant, query)
);

CREATE INDEX dead_letters_by_id ON dead_letters (id);

-- One row a build of a projection: everything up to its position is in its tables. Those of the current build are what
-- readers see, under their own names.
CREATE TABLE projections (
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    position INTEGER NOT NULL,
    is_current INTEGER NOT NULL,
    paused_at INTEGER, -- a position
    paused_since INTEGER,
    paused_reason TEXT,
    PRIMARY KEY (name, version, generation)
) WITHOUT ROWID;

-- The tables of a build, by the name that readers use; in the file each has one of its own.
CREATE TABLE projection_tables (
    projection TEXT NOT NULL,
    version INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    name TEXT NOT NULL,
    PRIMARY KEY (projection, version, generation, name)
) WITHOUT ROWID;
