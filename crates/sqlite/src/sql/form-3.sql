-- From version 2 of the file to version 3: a checksum of what a fold reads, so that it need not read the rest.

-- In the lower half the CRC-32 of position, name, version and body, in the upper one that of position and tags. NULL for an
-- event that was recorded before: its whole checksum counts then, and nothing is written anew, however long the log is.
ALTER TABLE events ADD COLUMN fold_checksum INTEGER;
