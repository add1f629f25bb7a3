//! Log lines on stderr, for `MW_DEBUG`.
//!
//! The library logs through `tracing`, and a Rust application installs the subscriber it likes. Everybody
//! else sets `MW_DEBUG` and gets one line per event: `multiworld LEVEL target: message field=value`. Without
//! `MW_DEBUG` nothing is installed and nothing is printed.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Prints this crate's log lines up to `level`, unless the application has a subscriber of its own.
pub fn init(level: Level) {
    // An error means that the application was first, and what it installed is what it wants.
    let _ = tracing::subscriber::set_global_default(Stderr { level });
}

struct Stderr {
    level: Level,
}

impl Subscriber for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level && metadata.target().starts_with("multiworld")
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::from_level(self.level))
    }

    fn event(&self, event: &Event<'_>) {
        let line = line(event);
        // One write, so that lines of several processes do not mix. Without stderr there is nowhere to
        // complain.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }

    // The library uses no spans.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn line(event: &Event<'_>) -> String {
    let mut parts = Parts::default();
    event.record(&mut parts);
    let metadata = event.metadata();
    let Parts { message, fields } = parts;
    format!("multiworld {} {}: {message}{fields}\n", metadata.level(), metadata.target())
}

#[derive(Default)]
struct Parts {
    message: String,
    fields: String,
}

impl Visit for Parts {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::{Arc, Mutex};

    /// Keeps the lines that [`Stderr`] would print.
    struct Kept(Stderr, Arc<Mutex<Vec<String>>>);

    impl Subscriber for Kept {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            self.0.enabled(metadata)
        }
        fn event(&self, event: &Event<'_>) {
            self.1.lock().push(line(event));
        }
        fn new_span(&self, span: &Attributes<'_>) -> Id {
            self.0.new_span(span)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn a_line_has_level_target_message_and_fields() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Kept(Stderr { level: Level::INFO }, Arc::clone(&lines));
        tracing::subscriber::with_default(kept, || {
            tracing::warn!(target: "multiworld::fault", rank = 3, world = "w", "rank failed");
            tracing::debug!(target: "multiworld::fault", "too fine");
            tracing::warn!(target: "hyper", "not ours");
        });
        let expected = "multiworld WARN multiworld::fault: rank failed rank=3 world=\"w\"\n";
        assert_eq!(*lines.lock(), [expected]);
    }
}
