-- Migration 2: a log that is copied from another store. One row, from the beginning of the copy on; until it is finished nobody
-- opens the store, because what would be written then would lie between the events that are still to come.
CREATE TABLE copy (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    origin text COLLATE "C" NOT NULL, -- the log that is copied
    began_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    position bigint -- up to which it was copied, when it is finished
);
