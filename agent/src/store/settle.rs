//! Begin and settle: the two writes of every turn.

use super::content::{self, Content};
use super::open::PATIENCE;
use super::sessions::{SessionUpdate, append};
use super::spending::{self, charge, signed};
use super::{Desk, Failure, Store, StoreError};
use rusqlite::{ErrorCode, Transaction, params};
use std::time::Duration;
use tether_policies::budget::{Amounts, BudgetName, Charge, Counts, Spending, counts};
use tether_protocol::{Route, TurnId, TurnRecord};

/// Settlements and windows that wait for a database that cannot be written: some minutes of a busy robot, a few MB.
const MAX_BACKLOG: usize = 1_024;
/// How long a database is waited for that was locked a moment ago.
const IMPATIENCE: Duration = Duration::from_millis(20);

/// What is written with a turn's end, all of it or nothing.
#[derive(Debug, Default)]
pub struct Settling {
    /// What the turn's dialogue remembers.
    pub update: Option<SessionUpdate>,
    /// What it cost the budgets.
    pub charges: Vec<Charge>,
    /// Text and images, where they are kept.
    pub content: Option<Content>,
}

impl From<Option<SessionUpdate>> for Settling {
    fn from(update: Option<SessionUpdate>) -> Self {
        Self { update, ..Self::default() }
    }
}

/// A settlement ready to be written.
pub(super) struct Settlement {
    row: Row,
    with: Settling,
}

/// What has to be written, now or when the database lets it.
pub(super) enum Waiting {
    Turn(Box<Settlement>),
    /// A window begins with nothing spent, unless it is known already.
    Window(BudgetName, Spending),
    /// What is spent of a window, whatever was known before.
    Spending(BudgetName, Spending),
}

impl Waiting {
    /// What a dialogue is to remember.
    pub(super) fn update(&self) -> Option<&SessionUpdate> {
        match self {
            Waiting::Turn(settlement) => settlement.with.update.as_ref(),
            Waiting::Window(..) | Waiting::Spending(..) => None,
        }
    }
}

struct Row {
    id: String,
    session: Option<String>,
    started_ms: i64,
    cloud: bool,
    amounts: [Option<i64>; 4],
    /// Known at once of a replay's turns only.
    rating: Option<f64>,
    json: String,
}

impl Row {
    fn new(record: &TurnRecord, amounts: Counts) -> Result<Self, Failure> {
        Ok(Self {
            id: record.turn_id.as_str().to_owned(),
            session: record.session.as_ref().map(|session| session.as_str().to_owned()),
            started_ms: record.started_unix_ms,
            cloud: record.route == Route::Cloud,
            amounts: amounts.map(|amount| amount.map(signed)),
            rating: record.rating,
            json: record.to_json()?,
        })
    }
}

impl Store {
    /// Writes a turn down before it is executed, with what is reserved for it. Until it is settled it counts as open.
    /// When this returns the operating system has it: a crash of this process does not lose it.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn begin(&self, record: &TurnRecord, reserved: &Amounts) -> Result<(), StoreError> {
        let row = Row::new(record, reserved.0.map(Some)).map_err(|failure| self.explain(failure))?;
        self.at_desk(move |desk| desk.begin(&row)).await
    }

    /// As [`begin`](Self::begin), without waiting. Later writes and reads come after it; a failure is logged.
    pub fn begin_soon(&self, record: &TurnRecord, reserved: &Amounts) {
        match Row::new(record, reserved.0.map(Some)) {
            Ok(row) => self.post(move |desk| desk.begin(&row)),
            Err(error) => tracing::error!(%error, "a turn could not be recorded"),
        }
    }

    /// What is reserved for an open turn has changed.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn reserve(&self, turn: TurnId, reserved: &Amounts) -> Result<(), StoreError> {
        let [usd, energy, uplink, downlink] = reserved.0.map(signed);
        self.at_desk(move |desk| {
            let update =
                "UPDATE turns SET usd = ?2, energy = ?3, uplink = ?4, downlink = ?5 WHERE id = ?1 AND open = 1";
            let values = params![turn.as_str(), usd, energy, uplink, downlink];
            let updated = desk.connection.execute(update, values).map(drop).map_err(Failure::from);
            desk.note_begin(turn.as_str(), updated)
        })
        .await
    }

    /// Writes down how a turn ended, what its dialogue remembers and what it cost, in one transaction; a turn that is
    /// settled already is left alone. If the database cannot be written now, the settlement is written before the
    /// next one.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn settle(&self, record: &TurnRecord, with: impl Into<Settling>) -> Result<(), StoreError> {
        let settlement = settlement(record, with.into()).map_err(|failure| self.explain(failure))?;
        self.at_desk(move |desk| desk.keep(settlement)).await
    }

    /// As [`settle`](Self::settle), from where nothing can wait, such as a drop. A failure is logged.
    pub fn settle_later(&self, record: &TurnRecord, with: impl Into<Settling>) {
        match settlement(record, with.into()) {
            Ok(settlement) => self.post(move |desk| desk.keep(settlement)),
            Err(error) => tracing::error!(%error, "a turn could not be recorded"),
        }
    }

    /// Settles many turns in one transaction, none of which was begun: a replay's, or a benchmark's. All of them or none.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn settle_all(&self, turns: Vec<(TurnRecord, Settling)>) -> Result<(), StoreError> {
        let settlements: Result<Vec<_>, _> =
            turns.into_iter().map(|(record, with)| Settlement::new(&record, with)).collect();
        let settlements = settlements.map_err(|failure| self.explain(failure))?;
        self.at_desk(move |desk| desk.write_all(&settlements)).await
    }

    /// Tries again what could not be written.
    ///
    /// # Errors
    /// The database still cannot be written.
    pub async fn retry(&self) -> Result<(), StoreError> {
        self.at_desk(|desk| {
            if desk.backlog.is_empty() {
                return Ok(());
            }
            let flushed = desk.flush();
            desk.note(flushed)
        })
        .await
    }
}

impl Settlement {
    fn new(record: &TurnRecord, with: Settling) -> Result<Self, Failure> {
        Ok(Self { row: Row::new(record, counts(&record.measured))?, with })
    }
}

fn settlement(record: &TurnRecord, with: Settling) -> Result<Waiting, Failure> {
    Settlement::new(record, with).map(|settlement| Waiting::Turn(Box::new(settlement)))
}

impl Desk {
    fn begin(&mut self, row: &Row) -> Result<(), Failure> {
        // After what waits: a turn that a crash cuts off counts in the newest window that has a row.
        let begun = self.flush().and_then(|()| self.try_begin(row));
        self.note_begin(&row.id, begun)
    }

    fn note_begin(&mut self, turn: &str, begun: Result<(), Failure>) -> Result<(), Failure> {
        if begun.is_err() {
            self.unbegun.insert(turn.to_owned());
        }
        self.note(begun)
    }

    fn try_begin(&mut self, row: &Row) -> Result<(), Failure> {
        let transaction = self.connection.transaction()?;
        let Row { id, session, started_ms, cloud, amounts: [usd, energy, uplink, downlink], json, .. } = row;
        let insert = "INSERT INTO turns VALUES (?1, ?2, 1, NULL, ?3, ?4, ?5, ?6, ?7, ?8)";
        let values = params![id, session, started_ms, cloud, usd, energy, uplink, downlink];
        transaction.prepare_cached(insert)?.execute(values)?;
        transaction.prepare_cached("INSERT INTO records VALUES (?1, ?2)")?.execute(params![id, json])?;
        transaction.commit()?;
        self.retention.begun(1);
        Ok(())
    }

    /// Writes it after everything that waits, or lets it wait as well.
    pub(super) fn keep(&mut self, waiting: Waiting) -> Result<(), Failure> {
        if let Waiting::Turn(settlement) = &waiting {
            self.unbegun.remove(&settlement.row.id);
        }
        // In their order: a dialogue's messages must not change places.
        let kept = self.flush().and_then(|()| self.write(&waiting));
        match &kept {
            Err(failure) if passes(failure) && self.backlog.len() < MAX_BACKLOG => self.backlog.push_back(waiting),
            Err(failure) => {
                self.lost += 1;
                if passes(failure) {
                    tracing::error!("more than {MAX_BACKLOG} turns wait for the database; one is lost");
                }
            }
            Ok(()) => {}
        }
        self.note(kept)
    }

    fn flush(&mut self) -> Result<(), Failure> {
        while let Some(oldest) = self.backlog.pop_front() {
            match self.write(&oldest) {
                Err(failure) if passes(&failure) => {
                    self.backlog.push_front(oldest);
                    return Err(failure);
                }
                Err(error) => {
                    self.lost += 1;
                    tracing::error!(%error, "a turn could not be recorded");
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }

    fn write(&mut self, waiting: &Waiting) -> Result<(), Failure> {
        let settlement = match waiting {
            Waiting::Turn(settlement) => settlement,
            Waiting::Window(name, window) => return Ok(spending::open_window(&self.connection, *name, window)?),
            Waiting::Spending(name, spent) => return Ok(spending::put(&self.connection, *name, spent)?),
        };
        let transaction = self.connection.transaction()?;
        let added = write(&transaction, settlement)?;
        transaction.commit()?;
        self.retention.begun(added);
        self.retain(1);
        Ok(())
    }

    fn write_all(&mut self, settlements: &[Settlement]) -> Result<(), Failure> {
        self.flush()?;
        let transaction = self.connection.transaction()?;
        let added = settlements.iter().map(|settlement| add(&transaction, settlement)).sum::<Result<u64, _>>()?;
        transaction.commit()?;
        self.retention.begun(added);
        self.retain(u32::try_from(settlements.len()).unwrap_or(u32::MAX));
        Ok(())
    }

    /// After every attempt to write. A database that is locked is waited for once, not by every turn; what is missing in
    /// it is told to the keeper of the budgets before the caller goes on.
    fn note(&mut self, result: Result<(), Failure>) -> Result<(), Failure> {
        self.signs.tell((self.backlog.len() + self.unbegun.len()) as u64 + self.lost);
        let patience = if result.as_ref().is_err_and(passes) { IMPATIENCE } else { PATIENCE };
        result.and(Ok(self.connection.busy_timeout(patience)?))
    }

    pub(super) fn close(&mut self) {
        let flushed = self.flush();
        if let Err(error) = self.note(flushed) {
            tracing::error!(%error, left = self.backlog.len(), "turns could not be recorded; the lease counts them");
        }
    }
}

/// Returns how many turns it added.
fn write(transaction: &Transaction<'_>, settlement: &Settlement) -> Result<u64, Failure> {
    let Row { id, session, started_ms, cloud, amounts: [usd, energy, uplink, downlink], .. } = &settlement.row;
    let values = params![id, session, started_ms, cloud, usd, energy, uplink, downlink];
    let update = "UPDATE turns SET open = 0, session = ?2, started_ms = ?3, cloud = ?4, usd = ?5, energy = ?6,
                  uplink = ?7, downlink = ?8 WHERE id = ?1 AND open = 1";
    if transaction.prepare_cached(update)?.execute(values)? == 1 {
        write_rest(transaction, settlement)?;
        return Ok(0);
    }
    // Its begin failed: a disk that was full for a moment loses no finished turn.
    add(transaction, settlement)
}

/// A turn that has no row, with its end at once; one that has a row is left alone. Returns how many it added.
fn add(transaction: &Transaction<'_>, settlement: &Settlement) -> Result<u64, Failure> {
    let Row { id, session, started_ms, cloud, amounts: [usd, energy, uplink, downlink], rating, .. } = &settlement.row;
    let insert = "INSERT INTO turns VALUES (?1, ?2, 0, ?9, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING";
    let values = params![id, session, started_ms, cloud, usd, energy, uplink, downlink, rating];
    if transaction.prepare_cached(insert)?.execute(values)? == 0 {
        return Ok(0);
    }
    write_rest(transaction, settlement)?;
    Ok(1)
}

/// What stands beside the turn's own row.
fn write_rest(transaction: &Transaction<'_>, Settlement { row, with }: &Settlement) -> Result<(), Failure> {
    let upsert = "INSERT INTO records VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET record = excluded.record";
    transaction.prepare_cached(upsert)?.execute(params![row.id, row.json])?;
    charge(transaction, &with.charges)?;
    if let Some(update) = &with.update {
        append(transaction, update)?;
    }
    if let Some(content) = &with.content {
        content::put(transaction, &row.id, content)?;
    }
    Ok(())
}

/// Whether a failure may pass by itself: a lock, a full disk.
fn passes(failure: &Failure) -> bool {
    let Failure::Sqlite(error) = failure else { return false };
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::ReadOnly
                | ErrorCode::CannotOpen
        )
    )
}
