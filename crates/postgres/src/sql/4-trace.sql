-- Migration 4: the technical trace of an event, as `otp` has it on the wire. NULL for an event without one.

ALTER TABLE events ADD COLUMN trace text COLLATE "C";
