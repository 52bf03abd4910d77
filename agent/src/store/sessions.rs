//! Dialogues with memory: text only, bounded in messages, bytes, number and age.

use super::settle::Waiting;
use super::{Failure, Store, StoreError};
use crate::config::SessionSettings;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use tether_protocol::wire::Role;
use tether_protocol::{SessionId, TurnRecord};

/// Earlier turns of a dialogue that a policy sees.
const PAST_TURNS: usize = 32;

/// One message to remember.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    pub role: Role,
    pub text: String,
    /// Must never travel.
    pub local_only: bool,
}

/// What is kept of a dialogue.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// Oldest first.
    pub messages: Vec<NewMessage>,
    /// The settled turns, oldest first, at most the last 32.
    pub past: Vec<TurnRecord>,
}

/// Messages to append to a dialogue when its turn is settled.
#[derive(Debug, Clone)]
pub struct SessionUpdate {
    pub session: SessionId,
    pub messages: Vec<NewMessage>,
    pub limits: SessionSettings,
    /// When the turn started.
    pub now_unix_ms: i64,
}

impl Store {
    /// What is known of a dialogue, what a full disk has kept out of the database included; an unknown or expired one is
    /// empty.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn memory(
        &self,
        session: SessionId,
        limits: SessionSettings,
        now_unix_ms: i64,
    ) -> Result<Memory, StoreError> {
        self.at_desk(move |desk| {
            let (db, backlog) = (&desk.connection, &desk.backlog);
            let waiting = backlog.iter().filter_map(Waiting::update).filter(|it| it.session == session);
            let waiting: Vec<NewMessage> = waiting.flat_map(|update| update.messages.clone()).collect();
            let oldest = now_unix_ms.saturating_sub(limits.ttl_ms);
            let select = "SELECT created_ms, updated_ms >= ?2 FROM sessions WHERE id = ?1";
            let found = db.query_row(select, params![session.as_str(), oldest], |row| Ok((row.get(0)?, row.get(1)?)));
            let (past, written) = match found.optional()? {
                None => Default::default(),
                Some((created_ms, true)) => {
                    let mut past = super::turns::settled(db, &session, PAST_TURNS)?;
                    // Turns of a forgotten dialogue of the same name are not part of this one.
                    past.retain(|turn| turn.started_unix_ms >= created_ms);
                    (past, messages(db, &session)?)
                }
                Some((_, false)) => {
                    db.execute("DELETE FROM sessions WHERE id = ?1", [session.as_str()])?;
                    Default::default()
                }
            };
            let mut messages: Vec<NewMessage> = written.into_iter().chain(waiting).collect();
            let newest_first = messages.iter().enumerate().rev();
            let sizes = newest_first.map(|(i, message)| (i, message.role, message.text.len() as i64));
            messages.drain(..first_kept(sizes, &limits).unwrap_or(messages.len()));
            Ok(Memory { messages, past })
        })
        .await
    }

    /// Forgets a dialogue's text. Its turns stay in the ledger, which holds no text.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn forget(&self, session: SessionId) -> Result<bool, StoreError> {
        self.call(move |db| Ok(db.execute("DELETE FROM sessions WHERE id = ?1", [session.as_str()])? > 0)).await
    }

    /// Dialogues that are remembered.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn session_count(&self, limits: SessionSettings, now_unix_ms: i64) -> Result<u64, StoreError> {
        self.call(move |db| {
            let oldest = now_unix_ms.saturating_sub(limits.ttl_ms);
            let select = "SELECT count(*) FROM sessions WHERE updated_ms >= ?1";
            let count: i64 = db.query_row(select, [oldest], |row| row.get(0))?;
            Ok(count.unsigned_abs())
        })
        .await
    }
}

fn messages(db: &Connection, session: &SessionId) -> Result<Vec<NewMessage>, Failure> {
    let mut query =
        db.prepare_cached("SELECT role, text, local_only FROM messages WHERE session = ?1 ORDER BY number")?;
    let rows = query.query_map([session.as_str()], |row| {
        let role: String = row.get(0)?;
        Ok(NewMessage { role: role_of(&role), text: row.get(1)?, local_only: row.get(2)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Appends, then cuts: this dialogue to its bounds, and the dialogues to theirs.
pub(super) fn append(db: &Transaction<'_>, update: &SessionUpdate) -> Result<(), Failure> {
    let SessionUpdate { session, messages, limits, now_unix_ms } = update;
    let upsert = "INSERT INTO sessions (id, created_ms, updated_ms) VALUES (?1, ?2, ?2)
                  ON CONFLICT (id) DO UPDATE SET updated_ms = excluded.updated_ms";
    db.execute(upsert, params![session.as_str(), now_unix_ms])?;
    let next = "SELECT coalesce(max(number), 0) + 1 FROM messages WHERE session = ?1";
    let next: i64 = db.query_row(next, [session.as_str()], |row| row.get(0))?;
    let mut insert = db.prepare_cached("INSERT INTO messages VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for (number, message) in (next..).zip(messages) {
        let NewMessage { role, text, local_only } = message;
        insert.execute(params![session.as_str(), number, role_name(*role), text, local_only])?;
    }
    cut(db, session, limits)?;
    db.execute("DELETE FROM sessions WHERE updated_ms < ?1", [now_unix_ms.saturating_sub(limits.ttl_ms)])?;
    let excess = "DELETE FROM sessions WHERE id IN
                  (SELECT id FROM sessions ORDER BY updated_ms DESC, id LIMIT -1 OFFSET ?1)";
    db.execute(excess, [limits.max_sessions as i64])?;
    Ok(())
}

/// Which message is the first to be kept, of messages from the newest backwards: as many as fit both bounds, from a
/// user's or a system message on, so that no answer stands without its question.
fn first_kept<T>(newest_first: impl Iterator<Item = (T, Role, i64)>, limits: &SessionSettings) -> Option<T> {
    let (mut kept, mut bytes, mut first) = (0, 0, None);
    for (message, role, length) in newest_first {
        kept += 1;
        bytes += length;
        if kept > limits.max_messages || bytes > limits.max_bytes as i64 {
            break;
        }
        if role != Role::Assistant {
            first = Some(message);
        }
    }
    first
}

/// Keeps what [`first_kept`] says.
fn cut(db: &Transaction<'_>, session: &SessionId, limits: &SessionSettings) -> Result<(), Failure> {
    let mut query = db.prepare_cached(
        "SELECT number, role, length(CAST(text AS BLOB)) FROM messages WHERE session = ?1 ORDER BY number DESC",
    )?;
    let rows = query.query_map([session.as_str()], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?))
    })?;
    let rows: Vec<(i64, String, i64)> = rows.collect::<Result<_, _>>()?;
    let newest_first = rows.iter().map(|(number, role, bytes)| (*number, role_of(role), *bytes));
    let first = first_kept(newest_first, limits).unwrap_or(i64::MAX);
    db.execute("DELETE FROM messages WHERE session = ?1 AND number < ?2", params![session.as_str(), first])?;
    Ok(())
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
    }
}

fn role_of(name: &str) -> Role {
    match name {
        "system" => Role::System,
        "assistant" => Role::Assistant,
        _ => Role::User,
    }
}
