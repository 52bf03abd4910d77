//! The shared log in a Redis-compatible server: a stream, and beside it a hash with the snapshot.

use super::Saved;
use super::log::{Batch, LogError, Position, Sent, SharedLog, Stored, unique_name};
use crate::config::RedisSettings;
use redis::{Client, Connection, ConnectionInfo, IntoConnectionInfo, RedisError, RedisResult};
use std::time::Duration;

/// Longer than any honest pause of a server in the same room; the turns themselves do not wait for it.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Records fetched at once.
const READ_RECORDS: usize = 500;

/// Begins an epoch if the hash still holds the one that is to be replaced (empty: none). The stream stays: what others
/// have written to it meanwhile counts, and what the snapshot holds already is known by its writers' numbers.
const FOUND: &str = "local held = redis.call('HGET', KEYS[1], 'epoch') or ''
if held ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'epoch', ARGV[2], 'number', '0', 'position', '0-0', 'kept_from', '0-0', 'snapshot', ARGV[3])
return 1";

/// The next snapshot, if nobody else has put it there; the stream is kept from the snapshot before.
const REPLACE: &str = "local held = redis.call('HMGET', KEYS[1], 'epoch', 'number', 'position')
if held[1] ~= ARGV[1] or held[2] ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'number', ARGV[3], 'position', ARGV[4], 'kept_from', held[3], 'snapshot', ARGV[5])
redis.call('XTRIM', KEYS[2], 'MINID', held[3])
return 1";

pub(super) struct RedisLog {
    client: Client,
    connection: Option<Connection>,
    place: String,
    /// One slot of a cluster holds both.
    log: String,
    state: String,
}

/// The reply to XREAD: streams, entries, fields; nil where nothing came in time.
type Streams = Option<Vec<(String, Vec<Entry>)>>;
type Entry = (String, Vec<String>);
type Header = (Option<String>, Option<String>, Option<String>);

impl RedisLog {
    /// Connects at the first call.
    pub(super) fn new(settings: &RedisSettings) -> Result<Self, LogError> {
        let place = format!("state.url {}", settings.url);
        let broken = |problem| LogError::Redis { place: place.clone(), problem };
        let client = Client::open(connection_info(settings).map_err(broken)?).map_err(broken)?;
        let key = |what: &str| format!("{{tether-mess:{}}}:{what}", settings.name);
        Ok(Self { client, connection: None, log: key("log"), state: key("state"), place })
    }

    /// Runs on the connection, made if there is none; one that failed is not used again.
    fn with<T>(&mut self, run: impl FnOnce(&mut Connection) -> RedisResult<T>) -> Result<T, LogError> {
        let connected = match self.connection.take() {
            Some(connection) => Ok(connection),
            None => connect(&self.client),
        };
        let done = connected.and_then(|mut connection| Ok((run(&mut connection)?, connection)));
        match done {
            Ok((value, connection)) => {
                self.connection = Some(connection);
                Ok(value)
            }
            Err(problem) => Err(LogError::Redis { place: self.place.clone(), problem }),
        }
    }

    fn unusable(&self, problem: String) -> LogError {
        LogError::Unusable { place: self.place.clone(), problem }
    }

    fn json(&self, saved: &Saved) -> Result<String, LogError> {
        serde_json::to_string(saved).map_err(|problem| self.unusable(problem.to_string()))
    }

    fn position(&self, id: &str) -> Result<Position, LogError> {
        parse_id(id).ok_or_else(|| self.unusable(format!("{id:?} is no id of a stream")))
    }
}

fn connection_info(settings: &RedisSettings) -> Result<ConnectionInfo, RedisError> {
    let info = settings.url.as_str().into_connection_info()?;
    let mut redis = info.redis_settings().clone();
    if let Some(username) = &settings.username {
        redis = redis.set_username(username);
    }
    if let Some(password) = &settings.password {
        redis = redis.set_password(password.reveal());
    }
    Ok(info.set_redis_settings(redis))
}

fn connect(client: &Client) -> RedisResult<Connection> {
    let connection = client.get_connection_with_timeout(TIMEOUT)?;
    connection.set_read_timeout(Some(TIMEOUT))?;
    connection.set_write_timeout(Some(TIMEOUT))?;
    Ok(connection)
}

fn parse_id(id: &str) -> Option<Position> {
    let (ms, counter) = id.split_once('-')?;
    Some(Position(ms.parse().ok()?, counter.parse().ok()?))
}

fn id(position: Position) -> String {
    format!("{}-{}", position.0, position.1)
}

impl SharedLog for RedisLog {
    fn kind(&self) -> &'static str {
        "redis"
    }

    fn load(&mut self) -> Result<Option<Stored>, LogError> {
        let mut ask = redis::cmd("HMGET");
        ask.arg(&self.state).arg(&["epoch", "number", "position", "snapshot"]);
        let found: (Option<String>, Option<String>, Option<String>, Option<String>) =
            self.with(|connection| ask.query(connection))?;
        let (Some(epoch), Some(number), Some(position), Some(snapshot)) = found else { return Ok(None) };
        let number = number.parse().map_err(|_| self.unusable(format!("{number:?} is no number of a snapshot")))?;
        let saved = serde_json::from_str(&snapshot).map_err(|problem| self.unusable(problem.to_string()))?;
        Ok(Some(Stored { epoch, number, position: self.position(&position)?, saved }))
    }

    fn found(&mut self, instead_of: Option<&str>, saved: Saved) -> Result<(), LogError> {
        let snapshot = self.json(&saved)?;
        let mut ask = redis::cmd("EVAL");
        ask.arg(FOUND).arg(1).arg(&self.state).arg(instead_of.unwrap_or("")).arg(unique_name()).arg(snapshot);
        self.with(|connection| ask.query::<i64>(connection)).map(drop)
    }

    fn append(&mut self, records: &[Sent]) -> Result<(), LogError> {
        let mut pipe = redis::pipe();
        // All or none: were only the first refused (a server that is still loading), the later ones would make it look
        // like one that was written before.
        pipe.atomic();
        for record in records {
            pipe.cmd("XADD").arg(&self.log).arg("*").arg("e").arg(&record.json).ignore();
        }
        self.with(|connection| pipe.query::<()>(connection))
    }

    fn read(&mut self, after: Position, wait: Duration) -> Result<Batch, LogError> {
        let mut pipe = redis::pipe();
        let read = pipe.cmd("XREAD").arg("COUNT").arg(READ_RECORDS);
        if !wait.is_zero() {
            read.arg("BLOCK").arg(wait.min(TIMEOUT / 2).as_millis() as u64);
        }
        read.arg("STREAMS").arg(&self.log).arg(id(after));
        // After the records: a log that was cut short while they were read shows it here.
        pipe.cmd("HMGET").arg(&self.state).arg(&["epoch", "number", "kept_from"]);
        pipe.cmd("XREVRANGE").arg(&self.log).arg("+").arg("-").arg("COUNT").arg(1);
        let (streams, (epoch, number, kept_from), last): (Streams, Header, Vec<Entry>) =
            self.with(|connection| pipe.query(connection))?;
        let mut batch = Batch { epoch, ..Batch::default() };
        batch.number = number.and_then(|number| number.parse().ok()).unwrap_or(0);
        batch.kept_from = kept_from.as_deref().map_or(Ok(Position::default()), |id| self.position(id))?;
        batch.last = last.first().map_or(Ok(Position::default()), |(id, _)| self.position(id))?;
        for (id, fields) in streams.into_iter().flatten().flat_map(|(_, entries)| entries) {
            // Name and value; a record of another shape is passed over where it is read.
            batch.records.push((self.position(&id)?, fields.into_iter().nth(1).unwrap_or_default()));
        }
        Ok(batch)
    }

    fn replace(&mut self, epoch: &str, number: u64, at: Position, saved: Saved) -> Result<(), LogError> {
        let snapshot = self.json(&saved)?;
        let mut ask = redis::cmd("EVAL");
        ask.arg(REPLACE).arg(2).arg(&self.state).arg(&self.log);
        ask.arg(epoch).arg(number).arg(number + 1).arg(id(at)).arg(snapshot);
        self.with(|connection| ask.query::<i64>(connection)).map(drop)
    }
}
