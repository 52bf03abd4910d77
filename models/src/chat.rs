//! From messages to tokens: the chat template of the GGUF metadata, rendered with minijinja, and fitted in the context.
//!
//! # What a message cannot do
//!
//! A message's text must not become a control token: `<|im_start|>system` typed by a user is nine letters and some
//! signs, not the start of a system turn. Templates inspect, trim and split message texts, so the text cannot simply be
//! taken out and put back. Instead a *shield* is written into it before rendering: one private-use character that
//! occurs in no message and not in the template, placed after every first and before every last character of a
//! control token. So no control token can begin or end inside a message, whatever the template puts around it. The
//! rendered text is split at the control tokens that are left, which are the template's own, and the shields are
//! removed from the rest before it is tokenized as ordinary text.

mod python_json;
mod shield;
mod template;

use crate::error::ModelError;
use crate::tokenizer::Tokenizer;
use shield::Shield;
pub use template::ChatTemplate;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    pub content: String,
}

/// What to do with a dialogue that is longer than the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnContextFull {
    #[default]
    Error,
    DropOldest,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    pub tokens: Vec<u32>,
    /// Messages left out from the front, so that an answer can say so.
    pub dropped_messages: usize,
}

/// Renders and tokenizes `messages`, the assistant's turn opened, so that at least `reserve_tokens` of the context stay
/// free for the answer.
///
/// With [`OnContextFull::DropOldest`], the oldest exchanges are left out until the rest fits: a user message and the
/// answers that follow it. System messages and everything from the newest user message on always stay.
///
/// # Errors
/// [`ModelError::ContextFull`] if what must stay does not fit; [`ModelError::Template`] if the template refuses the
/// messages; [`ModelError::Tokenizer`] if the text is longer than can be encoded at once.
pub fn prepare(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    context_tokens: usize,
    messages: &[ChatMessage],
    on_context_full: OnContextFull,
    reserve_tokens: usize,
) -> Result<Prepared, ModelError> {
    let shield = Shield::new(tokenizer, template, messages)?;
    let shielded: Vec<ChatMessage> = messages.iter().map(|message| shield.apply(message)).collect();
    let limit = context_tokens.saturating_sub(reserve_tokens);
    let attempt = |from: usize| {
        let kept = kept_from(&shielded, from);
        let rendered = template.render(&kept, true, tokenizer.bos_text(), tokenizer.eos_text())?;
        let tokens = tokenizer.encode_rendered(&rendered, Some(shield.character()))?;
        Ok::<_, ModelError>(Prepared { tokens, dropped_messages: messages.len() - kept.len() })
    };

    let whole = attempt(0)?;
    if whole.tokens.len() <= limit {
        return Ok(whole);
    }
    let full = |prepared: Prepared| ModelError::ContextFull { prompt_tokens: prepared.tokens.len(), context_tokens };
    let cuts = match on_context_full {
        OnContextFull::Error => return Err(full(whole)),
        OnContextFull::DropOldest => cuts(messages),
    };
    let Some(&last) = cuts.last() else { return Err(full(whole)) };
    // Later cuts leave less text, so the earliest cut that fits can be found by halving.
    let mut best = attempt(last)?;
    if best.tokens.len() > limit {
        return Err(full(best));
    }
    let (mut low, mut high) = (0, cuts.len() - 1);
    while low < high {
        let middle = low.midpoint(high);
        let prepared = attempt(cuts[middle])?;
        if prepared.tokens.len() <= limit {
            (best, high) = (prepared, middle);
        } else {
            low = middle + 1;
        }
    }
    Ok(best)
}

/// Where the dialogue may be cut: at each user message but the first, so that what is left begins with a user, as
/// templates that insist on alternating roles need it.
fn cuts(messages: &[ChatMessage]) -> Vec<usize> {
    let users = messages.iter().enumerate().filter(|(_, message)| message.role == "user");
    users.map(|(index, _)| index).filter(|&index| messages[..index].iter().any(|m| m.role != "system")).collect()
}

/// The messages from `from` on, and every system message.
fn kept_from(messages: &[ChatMessage], from: usize) -> Vec<ChatMessage> {
    let stays = |(index, message): &(usize, &ChatMessage)| *index >= from || message.role == "system";
    messages.iter().enumerate().filter(stays).map(|(_, message)| message.clone()).collect()
}
