//! What is logged while something runs.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// How weighty it is.
    pub level: Level,
    /// The message and all fields, each as ` name=value` with the value as `Debug` has it.
    pub text: String,
}

/// Does something, and gives every event of it at any level, in order.
pub fn events_of(act: impl FnOnce()) -> Vec<Line> {
    let catcher = Catcher::default();
    let subscriber = tracing_subscriber::registry().with(catcher.clone());
    tracing::subscriber::with_default(subscriber, act);
    std::mem::take(&mut *catcher.lines())
}

/// Keeps every event.
#[derive(Clone, Default)]
struct Catcher(Arc<Mutex<Vec<Line>>>);

impl Catcher {
    fn lines(&self) -> std::sync::MutexGuard<'_, Vec<Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Layer<S> for Catcher {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        self.lines().push(Line { level: *event.metadata().level(), text: text.0 });
    }
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0 += &format!(" {}={value:?}", field.name());
    }
}
