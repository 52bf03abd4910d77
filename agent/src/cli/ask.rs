//! `tether ask`: one turn, the answer to standard output.

use super::answer::{self, Form};
use super::output::note;
use super::turn::TurnOptions;
use super::{Global, INTERRUPTED, UsageError};
use clap::Args;
use std::io::{IsTerminal, Read};
use std::process::ExitCode;
use tether_protocol::limits::MAX_TEXT_BYTES;

const EXAMPLES: &str = "\
Examples:
  tether ask \"What is on the counter?\" --view front=a.jpg --view side=b.png
  tether ask \"Can you lift it?\" --sensor gripper=closed.json --session kitchen
  tether ask \"Read me the note\" --view front=note.jpg --local-only
  git log | tether ask \"Summarise:\" -
  tether ask hello --json | jq .tether.route

The answer goes to standard output; one line about it (route, views, reason, rate, bytes, costs) to standard error.
Ctrl-C cancels the turn in the daemon. Exit codes: 0 answered, 1 failed, 2 wrong usage, 130 interrupted.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AskArgs {
    /// The prompt; `-` stands for standard input, which is also read if there is no prompt
    text: Vec<String>,
    #[command(flatten)]
    turn: TurnOptions,
    /// Print the answer at once when it is complete (so does --json)
    #[arg(long)]
    no_stream: bool,
    /// Leave the line about the answer out
    #[arg(long, short)]
    quiet: bool,
}

pub(crate) async fn run(args: AskArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let text = prompt(&args.text)?;
    let form = match (global.json, args.no_stream) {
        (true, _) => Form::Json,
        (false, true) => Form::Whole,
        (false, false) => Form::Streamed,
    };
    let Some(facts) = answer::take_turn(&global.client()?, &args.turn, &text, form).await? else {
        note("interrupted; the turn is cancelled");
        return Ok(ExitCode::from(INTERRUPTED));
    };
    if !args.quiet && !global.json {
        facts.note();
    }
    Ok(ExitCode::SUCCESS)
}

/// Words are joined by spaces, `-` is replaced by what standard input holds.
fn prompt(words: &[String]) -> anyhow::Result<String> {
    let from_input = words.is_empty() || words.iter().any(|word| word == "-");
    if words.is_empty() && std::io::stdin().is_terminal() {
        return Err(UsageError("no prompt: tether ask \"What is on the counter?\"".into()).into());
    }
    let input = if from_input { read_input()? } else { String::new() };
    let text = match words {
        [] => input,
        words => words.iter().map(|word| if word == "-" { input.as_str() } else { word }).collect::<Vec<_>>().join(" "),
    };
    if text.trim().is_empty() {
        return Err(UsageError("the prompt is empty".into()).into());
    }
    Ok(text)
}

fn read_input() -> anyhow::Result<String> {
    let mut text = String::new();
    std::io::stdin().lock().take(MAX_TEXT_BYTES as u64 + 1).read_to_string(&mut text)?;
    anyhow::ensure!(text.len() <= MAX_TEXT_BYTES, "standard input is larger than {MAX_TEXT_BYTES} bytes");
    Ok(text.trim_end().to_owned())
}
