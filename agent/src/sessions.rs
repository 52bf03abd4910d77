//! Turns of one session are served one after the other, in the order in which they came: a dialogue has one order.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tether_protocol::SessionId;
use tether_protocol::api::ApiError;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// Turns of one session that may wait. More is a client that does not read its answers.
const MAX_WAITING: usize = 8;

/// One lock for each session that has a turn now; the others have none.
#[derive(Debug, Default)]
pub struct SessionLocks(Mutex<HashMap<SessionId, Arc<AsyncMutex<()>>>>);

impl SessionLocks {
    /// Waits for the session's earlier turns.
    ///
    /// # Errors
    /// 409 `session_busy` if `MAX_WAITING` turns wait already.
    pub async fn enter(&self, session: &SessionId) -> Result<OwnedMutexGuard<()>, ApiError> {
        let lock = {
            let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // A lock that only the map holds is nobody's.
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            let lock = locks.entry(session.clone()).or_default();
            // The map's own, the running turn's, and one for each that waits.
            if Arc::strong_count(lock) >= 1 + 1 + MAX_WAITING {
                let message = format!("{MAX_WAITING} turns of session {session} wait already; wait for their answers");
                return Err(ApiError::refused(409, "session_busy", message));
            }
            lock.clone()
        };
        Ok(lock.lock_owned().await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn one_at_a_time_and_a_bounded_number_waits() {
        let locks = Arc::new(SessionLocks::default());
        let session = SessionId::new("s").unwrap();
        let first = locks.enter(&session).await.unwrap();
        assert!(locks.enter(&SessionId::new("other").unwrap()).now_or_never().is_some());
        let mut waiting: Vec<_> = (0..MAX_WAITING).map(|_| Box::pin(locks.enter(&session))).collect();
        for wait in &mut waiting {
            assert!(wait.now_or_never().is_none());
        }
        assert_eq!(locks.enter(&session).await.unwrap_err().status, 409);
        // One gives up: there is room again.
        drop(waiting.pop());
        assert!(Box::pin(locks.enter(&session)).as_mut().now_or_never().is_none());
        drop(first);
        drop(waiting);
        assert!(locks.enter(&session).now_or_never().unwrap().is_ok());
    }
}
