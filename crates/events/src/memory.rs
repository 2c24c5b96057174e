//! The memory engine: the executable specification of a store.
