//! The tether policy in the laboratory: trained and judged in paper mode and in the honest environment.

pub mod a2c;
pub mod bootstrap;
pub mod honest;
pub mod paper;
pub mod profiles;
pub mod rivals;
pub mod timing;
pub mod train;

use indicatif::{ProgressBar, ProgressStyle};

/// Hidden units of every network here: the decision stays below its bar. No other width was tried.
pub const HIDDEN: usize = 64;

/// A bar on standard error for several trainings at once; hidden where that is no terminal.
pub fn progress(steps: usize, what: &str) -> ProgressBar {
    let bar = ProgressBar::new(steps as u64);
    let form = format!("{{bar:30}} {{human_pos}}/{{human_len}} gradient steps, {what}  {{eta}}");
    bar.set_style(ProgressStyle::with_template(&form).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}
