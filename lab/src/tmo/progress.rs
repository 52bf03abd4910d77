//! Progress on the terminal, or nothing where standard error is not one.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::Mutex;

/// One bar over many steps, fed from several threads.
pub struct Steps {
    bar: ProgressBar,
    newest: Mutex<String>,
}

impl Steps {
    /// `what` names the unit, such as "steps".
    pub fn new(all: usize, what: &str) -> Steps {
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(all as u64) } else { ProgressBar::hidden() };
        let form = format!("{{bar:30}} {{human_pos}}/{{human_len}} {what} {{per_sec}} {{eta}}  {{msg}}");
        // A wrong template would show the default one.
        bar.set_style(ProgressStyle::with_template(&form).unwrap_or_else(|_| ProgressStyle::default_bar()));
        Steps { bar, newest: Mutex::default() }
    }

    pub fn advance(&self, steps: usize) {
        self.bar.inc(steps as u64);
    }

    /// What is going on, shown at the end of the line.
    pub fn say(&self, message: String) {
        if let Ok(mut newest) = self.newest.lock()
            && *newest != message
        {
            self.bar.set_message(message.clone());
            *newest = message;
        }
    }

    pub fn done(self) {
        self.bar.finish_and_clear();
    }
}
