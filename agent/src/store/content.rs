//! Text and images of turns, where `ledger.content` asks for them. Nothing of it leaves the device.

use super::{Failure, Store, StoreError};
use bytes::Bytes;
use rusqlite::{OptionalExtension, Transaction, params};
use tether_protocol::TurnId;

/// What was said, and shown, in one turn.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    /// The newest message of the user.
    pub question: String,
    pub answer: String,
    /// Views' names and their encoded pictures: those that travelled or came with the request.
    pub images: Vec<(String, Bytes)>,
}

impl Store {
    /// The content of a turn, if it was kept.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn content(&self, turn: TurnId) -> Result<Option<Content>, StoreError> {
        self.call(move |db| {
            let select = "SELECT question, answer FROM contents WHERE id = ?1";
            let text = db.query_row(select, [turn.as_str()], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
            let Some((question, answer)) = text else { return Ok(None) };
            let mut query = db.prepare_cached("SELECT view, data FROM images WHERE id = ?1 ORDER BY view")?;
            let images = query.query_map([turn.as_str()], |row| {
                Ok((row.get::<_, String>(0)?, Bytes::from(row.get::<_, Vec<u8>>(1)?)))
            })?;
            let images = images.collect::<Result<_, _>>()?;
            Ok(Some(Content { question, answer, images }))
        })
        .await
    }
}

pub(super) fn put(db: &Transaction<'_>, id: &str, content: &Content) -> Result<(), Failure> {
    let Content { question, answer, images } = content;
    db.prepare_cached("INSERT OR REPLACE INTO contents VALUES (?1, ?2, ?3)")?.execute(params![id, question, answer])?;
    for (view, data) in images {
        db.prepare_cached("INSERT OR REPLACE INTO images VALUES (?1, ?2, ?3)")?.execute(params![
            id,
            view,
            &data[..]
        ])?;
    }
    Ok(())
}
