//! What every `Endpoint` must do.
pub fn suite(_make: &dyn Fn() -> (Box<dyn super::Endpoint>, Box<dyn super::Endpoint>)) {}
