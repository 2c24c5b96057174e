-- From version 3 of the file to version 4: the technical trace of an event, as `otp` has it on the wire.

-- NULL for an event without one. What was recorded before has none, and the whole checksum leaves it out then.
ALTER TABLE events ADD COLUMN trace TEXT;
