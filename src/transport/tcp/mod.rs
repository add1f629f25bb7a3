//! TCP between machines.
