//! `tether chat`: turn after turn in one session, typed or piped.

mod command;
mod lines;

use super::answer::{self, Form};
use super::output::{BAD, DIM, json, note};
use super::turn::TurnOptions;
use super::{Global, INTERRUPTED};
use crate::client::Client;
use clap::Args;
use command::Input;
use lines::{Line, Lines};
use std::process::ExitCode;
use tether_protocol::TurnId;
use tether_protocol::api::{Feedback, FeedbackRequest};

const EXAMPLES: &str = "\
Examples:
  tether chat                              a new session
  tether chat --session kitchen            go on where it was left
  tether chat --route local --local-only   nothing ever leaves the device
  tether chat < questions.txt              one turn a line

Ctrl-C stops an answer and cancels it in the daemon; a second one leaves. /help lists the commands.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ChatArgs {
    #[command(flatten)]
    turn: TurnOptions,
}

struct Chat {
    client: Client,
    turn: TurnOptions,
    form: Form,
    last: Option<TurnId>,
    /// A piped dialogue goes on after a failed turn, and says so at the end.
    failed: bool,
}

enum Next {
    GoOn,
    /// The answer was stopped by Ctrl-C.
    Stopped,
    Leave,
}

pub(crate) async fn run(args: ChatArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let mut turn = args.turn;
    turn.session.get_or_insert_with(new_session);
    let form = if global.json { Form::Json } else { Form::Streamed };
    let mut chat = Chat { client: global.client()?, turn, form, last: None, failed: false };
    let mut lines = Lines::start()?;
    if lines.interactive {
        // Told before the first question is typed, not after.
        chat.client.healthy().await?;
        note(format_args!("{DIM}session {}; /help lists the commands{DIM:#}", chat.session()));
    }
    let interrupted = talk(&mut chat, &mut lines).await?;
    Ok(match (interrupted, chat.failed && !lines.interactive) {
        (true, _) => ExitCode::from(INTERRUPTED),
        (false, true) => ExitCode::FAILURE,
        (false, false) => ExitCode::SUCCESS,
    })
}

/// Until the end of input, `/quit`, or the second Ctrl-C in a row; true if it was that.
async fn talk(chat: &mut Chat, lines: &mut Lines) -> anyhow::Result<bool> {
    let mut interrupted = false;
    loop {
        let next = match lines.next(&chat.prompt()).await? {
            Line::Text(text) => chat.obey(&text).await?,
            Line::Interrupted if interrupted || !lines.interactive => return Ok(true),
            Line::Interrupted => {
                note(format_args!("{DIM}Ctrl-C again, or /quit, leaves{DIM:#}"));
                Next::Stopped
            }
            Line::End => Next::Leave,
        };
        match next {
            Next::Leave => return Ok(false),
            Next::Stopped => interrupted = true,
            Next::GoOn => interrupted = false,
        }
    }
}

impl Chat {
    fn session(&self) -> &str {
        self.turn.session.as_deref().unwrap_or_default()
    }

    fn prompt(&self) -> String {
        let route = self.turn.route.as_str();
        let kept = if self.turn.local_only { " local-only" } else { "" };
        let images: String = self.turn.view.iter().map(|view| format!(" +{}", view.name)).collect();
        format!("{route}{kept}{images}> ")
    }

    async fn obey(&mut self, line: &str) -> anyhow::Result<Next> {
        let input = match command::parse(line) {
            Ok(input) => input,
            Err(problem) => {
                self.complain(&problem);
                return Ok(Next::GoOn);
            }
        };
        match input {
            Input::Say(text) => return self.say(&text).await,
            Input::Quit => return Ok(Next::Leave),
            Input::Nothing => {}
            Input::Help => note(command::HELP),
            Input::Route(route) => self.turn.route = route,
            Input::View(view) => self.turn.view.push(view),
            Input::Sensor(sensor) => self.turn.sensor.push(sensor),
            Input::LocalOnly(on) => self.turn.local_only = on,
            Input::Rate(rating) => self.rate(rating).await?,
            Input::New => {
                self.turn.session = Some(new_session());
                note(format_args!("{DIM}session {}{DIM:#}", self.session()));
            }
        }
        Ok(Next::GoOn)
    }

    /// A failed turn does not end the dialogue: its images and sensors stay for the next try.
    async fn say(&mut self, text: &str) -> anyhow::Result<Next> {
        match answer::take_turn(&self.client, &self.turn, text, self.form).await {
            Ok(Some(facts)) => {
                self.turn.view.clear();
                self.turn.sensor.clear();
                if self.form != Form::Json {
                    facts.note();
                }
                self.last = facts.tether.map(|tether| tether.turn_id).or(self.last.take());
                Ok(Next::GoOn)
            }
            Ok(None) => {
                note(format_args!("{DIM}stopped{DIM:#}"));
                Ok(Next::Stopped)
            }
            Err(error) if error.is::<std::io::Error>() => Err(error),
            Err(error) => {
                self.complain(&format!("{error:#}"));
                Ok(Next::GoOn)
            }
        }
    }

    async fn rate(&mut self, rating: f64) -> anyhow::Result<()> {
        let Some(turn_id) = &self.last else {
            self.complain("there is no answer to rate yet");
            return Ok(());
        };
        let request = FeedbackRequest { turn_id: turn_id.to_string(), rating };
        match self.client.post::<Feedback>("/v1/feedback", &request).await {
            Ok(feedback) if self.form == Form::Json => json(&feedback)?,
            Ok(_) => note(format_args!("{DIM}rated {rating}{DIM:#}")),
            Err(error) => self.complain(&error.to_string()),
        }
        Ok(())
    }

    fn complain(&mut self, problem: &str) {
        self.failed = true;
        note(format_args!("{BAD}error:{BAD:#} {problem}"));
    }
}

fn new_session() -> String {
    format!("chat-{}", uuid::Uuid::now_v7().simple())
}
