//! What every `Endpoint` must do.
