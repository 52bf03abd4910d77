//! What a line typed into `tether chat` means.

use crate::cli::attach::{SensorArg, ViewArg};
use crate::cli::feedback::rating;
use crate::cli::turn::RouteArg;
use clap::ValueEnum;

pub(crate) const HELP: &str = "\
/route auto|local|cloud   where the next turns are answered
/view front=a.jpg         a camera's picture for the next turn
/sensor gripper=a.json    a sensor's reading for the next turn
/local-only [on|off]      nothing of the next turns ever leaves the device
/rate 0..1|good|bad       rate the last answer, so that the policy can learn
/new                      begin a new session
/help                     this list
/quit                     leave (so do Ctrl-D, and Ctrl-C twice)
Anything else is said to the model; a line that must begin with a slash begins with two.";

const NAMES: [&str; 8] = ["route", "view", "sensor", "local-only", "rate", "new", "help", "quit"];

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Input {
    Nothing,
    Say(String),
    Route(RouteArg),
    View(ViewArg),
    Sensor(SensorArg),
    LocalOnly(bool),
    Rate(f64),
    New,
    Help,
    Quit,
}

/// Reads one line; an error names what is wrong and what to write.
pub(crate) fn parse(line: &str) -> Result<Input, String> {
    let line = line.trim();
    let Some(command) = line.strip_prefix('/') else {
        return Ok(if line.is_empty() { Input::Nothing } else { Input::Say(line.to_owned()) });
    };
    if command.starts_with('/') {
        return Ok(Input::Say(command.to_owned()));
    }
    let (name, argument) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    let argument = argument.trim();
    match name {
        "route" => RouteArg::from_str(argument, true)
            .map(Input::Route)
            .map_err(|_| "write /route auto, /route local or /route cloud".into()),
        "view" => argument.parse().map(Input::View),
        "sensor" => argument.parse().map(Input::Sensor),
        "local-only" => match argument {
            "" | "on" => Ok(Input::LocalOnly(true)),
            "off" => Ok(Input::LocalOnly(false)),
            _ => Err("write /local-only on or /local-only off".into()),
        },
        "rate" => rating(argument).map(Input::Rate),
        "new" => Ok(Input::New),
        "help" | "?" => Ok(Input::Help),
        "quit" | "exit" | "q" => Ok(Input::Quit),
        unknown => Err(format!("there is no /{unknown}; did you mean /{}? /help lists all", nearest(unknown))),
    }
}

fn nearest(unknown: &str) -> &'static str {
    let distance = |name: &&str| strsim::damerau_levenshtein(unknown, name);
    NAMES.into_iter().min_by_key(distance).unwrap_or("help")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_said_and_commands_obeyed() {
        assert_eq!(parse("  "), Ok(Input::Nothing));
        assert_eq!(parse(" hello "), Ok(Input::Say("hello".into())));
        assert_eq!(parse("//etc/passwd?"), Ok(Input::Say("/etc/passwd?".into())));
        assert_eq!(parse("/route cloud"), Ok(Input::Route(RouteArg::Cloud)));
        assert_eq!(parse("/local-only"), Ok(Input::LocalOnly(true)));
        assert_eq!(parse("/rate good"), Ok(Input::Rate(1.0)));
        assert!(matches!(parse("/view front=a b.jpg"), Ok(Input::View(view)) if view.file.as_os_str() == "a b.jpg"));
    }

    #[test]
    fn mistakes_are_answered_with_the_fix() {
        assert!(parse("/rout local").unwrap_err().contains("/route"));
        assert!(parse("/route mars").unwrap_err().contains("/route auto"));
        assert!(parse("/view front").unwrap_err().contains("NAME=FILE"));
    }

    #[test]
    fn the_help_lists_every_command() {
        assert!(NAMES.iter().all(|name| HELP.contains(&format!("/{name}"))));
    }
}
