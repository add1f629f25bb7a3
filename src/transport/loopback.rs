//! Two endpoints in one thread, with scripted faults, for tests.
