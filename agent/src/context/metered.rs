//! Whether bytes cost money here, as NetworkManager says over D-Bus. A task of its own asks; a turn takes the newest word.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tether_protocol::Reading;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use zbus::Connection;
use zbus::OwnedVariant;
use zbus::connection::Builder;

const SERVICE: &str = "org.freedesktop.NetworkManager";
const OBJECT: &str = "/org/freedesktop/NetworkManager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// A robot that leaves the WiFi for a mobile network should not send pictures for long. One small message.
const PERIOD: Duration = Duration::from_secs(5);
/// Without a bus, or without NetworkManager on it, they seldom appear later.
const PERIOD_WITHOUT: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(2);
/// Older than this it is no longer known.
const MAX_AGE: Duration = Duration::from_secs(20);

type Word = (Reading<bool>, Instant);

/// The newest word. Dropping it ends the task.
pub struct MeteredWatch {
    newest: Arc<Mutex<Word>>,
    changes: watch::Receiver<Option<bool>>,
    _task: AbortOnDropHandle<()>,
}

impl MeteredWatch {
    /// Asks on the system's bus (`$DBUS_SYSTEM_BUS_ADDRESS`, else the usual socket). Returns at once; call it in a runtime.
    pub fn start() -> Self {
        Self::start_at(None)
    }

    /// Asks on the bus at this address.
    pub fn start_at(address: Option<String>) -> Self {
        let newest = Arc::new(Mutex::new((Reading::unknown("NetworkManager was not asked yet"), Instant::now())));
        let (told, changes) = watch::channel(None);
        let task = AbortOnDropHandle::new(tokio::spawn(ask_for_ever(address, newest.clone(), told)));
        Self { newest, changes, _task: task }
    }

    pub fn reading(&self) -> Reading<bool> {
        let (reading, at) = self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let age = at.elapsed();
        match reading {
            Reading::Known { .. } if age > MAX_AGE => Reading::unknown("NetworkManager no longer answers"),
            Reading::Known { value, source, .. } => Reading::known(value, age.as_millis() as u64, source),
            unknown => unknown,
        }
    }

    /// Changes when the word does.
    pub fn changes(&self) -> watch::Receiver<Option<bool>> {
        self.changes.clone()
    }
}

async fn ask_for_ever(address: Option<String>, newest: Arc<Mutex<Word>>, told: watch::Sender<Option<bool>>) {
    let mut bus = None;
    loop {
        let reading = match tokio::time::timeout(PATIENCE, ask(address.as_deref(), &mut bus)).await {
            Ok(Ok(reading)) => reading,
            Ok(Err(why)) => {
                bus = None;
                Reading::unknown(why)
            }
            Err(_) => {
                bus = None;
                Reading::unknown("NetworkManager does not answer")
            }
        };
        let (word, answered) = (reading.value().copied(), bus.is_some());
        *newest.lock().unwrap_or_else(PoisonError::into_inner) = (reading, Instant::now());
        told.send_if_modified(|before| std::mem::replace(before, word) != word);
        tokio::time::sleep(if answered { PERIOD } else { PERIOD_WITHOUT }).await;
    }
}

async fn ask(address: Option<&str>, bus: &mut Option<Connection>) -> Result<Reading<bool>, String> {
    let connection = match bus {
        Some(connection) => connection,
        None => {
            let builder = address.map_or_else(Builder::system, Builder::address);
            let connected = builder.build().await;
            bus.insert(connected.map_err(|error| format!("no D-Bus here: {error}"))?)
        }
    };
    let asked = (SERVICE, "Metered");
    let reply = connection.call_method(Some(SERVICE), OBJECT, Some(PROPERTIES), "Get", &asked).await;
    let reply = reply.map_err(|error| format!("NetworkManager does not say: {error}"))?;
    let value: OwnedVariant = reply.body().deserialize().map_err(|error| format!("NetworkManager says {error}"))?;
    let code = u32::try_from(value).map_err(|error| format!("NetworkManager says {error}"))?;
    Ok(reading(code))
}

/// `NMMetered`: guesses count, because a guess of "no" is what most WiFi gets.
fn reading(code: u32) -> Reading<bool> {
    match code {
        1 | 3 => Reading::known(true, 0, if code == 1 { "NetworkManager" } else { "NetworkManager, a guess" }),
        2 | 4 => Reading::known(false, 0, if code == 2 { "NetworkManager" } else { "NetworkManager, a guess" }),
        0 => Reading::unknown("NetworkManager does not know"),
        other => Reading::unknown(format!("NetworkManager says {other}, which means nothing")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_five_words_of_network_manager() {
        let words = [0, 1, 2, 3, 4, 99].map(|code| reading(code).value().copied());
        assert_eq!(words, [None, Some(true), Some(false), Some(true), Some(false), None]);
    }

    /// A bus that accepts and then says nothing: asking for the word takes no time.
    #[tokio::test]
    async fn a_bus_that_hangs_delays_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bus");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let accepted = tokio::spawn(async move { listener.accept().await.unwrap() });
        let watch = MeteredWatch::start_at(Some(format!("unix:path={}", path.display())));
        let _silent = accepted.await.unwrap();
        let mut took: Vec<Duration> = Vec::new();
        for _ in 0..200 {
            let begun = Instant::now();
            assert_eq!(watch.reading().value(), None);
            took.push(begun.elapsed());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        took.sort();
        // All but a few: a busy machine may take the processor away for a while.
        assert!(took[190] < Duration::from_millis(5), "{:?}", &took[190..]);
    }

    /// No bus there: unknown with the reason, and nobody waits for it.
    #[tokio::test]
    async fn without_a_bus_it_is_unknown_and_says_why() {
        let watch = MeteredWatch::start_at(Some("unix:path=/nowhere/at/all".into()));
        let begun = Instant::now();
        assert_eq!(watch.reading().value(), None);
        assert!(begun.elapsed() < Duration::from_millis(100));
        let told = async {
            while !matches!(watch.reading(), Reading::Unknown { unknown } if unknown.starts_with("no D-Bus here")) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), told).await.unwrap();
    }
}
