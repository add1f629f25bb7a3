//! A double of cuda.
