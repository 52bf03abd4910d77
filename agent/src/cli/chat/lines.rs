//! Lines from a person (edited, with history) or from a pipe. Reading blocks, so it has a thread of its own, which
//! reads only when asked to: while an answer streams, the terminal is not in the editor's hands.

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use std::io::{BufRead, IsTerminal, Read as _};
use tether_protocol::limits::MAX_TEXT_BYTES;
use tokio::sync::mpsc;

#[derive(Debug)]
pub(crate) enum Line {
    Text(String),
    /// Ctrl-C at the prompt.
    Interrupted,
    End,
}

/// Prompt in, line out.
type Read = Box<dyn FnMut(&str) -> anyhow::Result<Line> + Send>;

pub(crate) struct Lines {
    prompts: std::sync::mpsc::Sender<String>,
    lines: mpsc::Receiver<anyhow::Result<Line>>,
    /// Whether a person types.
    pub interactive: bool,
}

impl Lines {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let interactive = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        let mut read: Read = if interactive { Box::new(editor()?) } else { Box::new(|_| piped_line()) };
        let (prompts, asked) = std::sync::mpsc::channel::<String>();
        let (answer, lines) = mpsc::channel(1);
        // Never joined: it may stand in a read that nothing ends, and the process's exit ends it.
        std::thread::Builder::new().name("lines".into()).spawn(move || {
            while let Ok(prompt) = asked.recv() {
                if answer.blocking_send(read(&prompt)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { prompts, lines, interactive })
    }

    pub(crate) async fn next(&mut self, prompt: &str) -> anyhow::Result<Line> {
        if self.prompts.send(prompt.to_owned()).is_err() {
            return Ok(Line::End);
        }
        tokio::select! {
            line = self.lines.recv() => line.unwrap_or(Ok(Line::End)),
            // The editor reads Ctrl-C as a key; without a terminal it is a signal, and there is no second chance.
            _ = tokio::signal::ctrl_c() => Ok(Line::Interrupted),
        }
    }
}

fn editor() -> anyhow::Result<impl FnMut(&str) -> anyhow::Result<Line> + Send> {
    let mut editor = DefaultEditor::new()?;
    Ok(move |prompt: &str| match editor.readline(prompt) {
        Ok(text) => {
            let _ = editor.add_history_entry(&text);
            Ok(Line::Text(text))
        }
        Err(ReadlineError::Interrupted) => Ok(Line::Interrupted),
        Err(ReadlineError::Eof) => Ok(Line::End),
        Err(error) => Err(error.into()),
    })
}

fn piped_line() -> anyhow::Result<Line> {
    let mut text = String::new();
    let read = std::io::stdin().lock().take(MAX_TEXT_BYTES as u64 + 1).read_line(&mut text)?;
    anyhow::ensure!(read <= MAX_TEXT_BYTES, "a line is larger than {MAX_TEXT_BYTES} bytes");
    Ok(if read == 0 { Line::End } else { Line::Text(text) })
}
