//! Why there is no connection, in terms of what a person can do about it.

use super::tls::OTHER_PIN;
use crate::cloud::CloudError;
use quinn::{ConnectionError, TransportErrorCode};
use tether_protocol::wire::{ErrorCode, WireError, close};

/// One failed attempt; kept and told to every turn that asks while it is fresh.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Unreachable(String),
    #[error("{0}")]
    Untrusted(String),
    #[error(transparent)]
    Refused(WireError),
}

impl Failure {
    pub(super) fn at(self, address: &str) -> CloudError {
        let address = address.to_owned();
        match self {
            Failure::Unreachable(problem) => CloudError::Unreachable { address, problem },
            Failure::Untrusted(problem) => CloudError::Untrusted { address, problem },
            Failure::Refused(error) => CloudError::Refused(error),
        }
    }

    fn unauthorized(message: impl Into<String>) -> Self {
        Failure::Refused(WireError::new(ErrorCode::Unauthorized, message))
    }
}

/// TLS alerts (RFC 8446, section 6) that a gateway sends about the client's certificate.
const CERTIFICATE_ALERTS: [u8; 10] = [41, 42, 43, 44, 45, 46, 48, 49, 51, 116];
/// `no_application_protocol`
const ALPN_ALERT: u8 = 120;

/// The TLS alert within a QUIC error code (RFC 9001, section 4.8).
fn alert(code: TransportErrorCode) -> Option<u8> {
    let code = u64::from(code);
    (0x100..0x200).contains(&code).then_some(code as u8)
}

impl From<ConnectionError> for Failure {
    fn from(error: ConnectionError) -> Self {
        match &error {
            // Our own verdict on the gateway.
            ConnectionError::TransportError(ours) if alert(ours.code).is_some() => {
                Failure::Untrusted(untrusted(&ours.reason))
            }
            ConnectionError::ConnectionClosed(theirs) => match alert(theirs.error_code) {
                Some(ALPN_ALERT) => Failure::Untrusted("it does not speak tether/1".into()),
                Some(number) if CERTIFICATE_ALERTS.contains(&number) => Failure::unauthorized(
                    "the gateway does not accept client_cert; was it made by the gateway's client_ca?",
                ),
                _ if theirs.error_code == TransportErrorCode::CONNECTION_REFUSED => {
                    Failure::Unreachable("it takes no connection now: full, or stopping".into())
                }
                _ => Failure::Unreachable(error.to_string()),
            },
            ConnectionError::ApplicationClosed(theirs) => {
                let reason = String::from_utf8_lossy(&theirs.reason).into_owned();
                if theirs.error_code == quinn::VarInt::from_u32(close::UNAUTHORIZED) {
                    Failure::unauthorized(reason)
                } else {
                    Failure::Unreachable(format!("it closed the connection: {reason}"))
                }
            }
            ConnectionError::TimedOut => Failure::Unreachable("no answer".into()),
            ConnectionError::Reset => Failure::Unreachable("it was restarted".into()),
            _ => Failure::Unreachable(error.to_string()),
        }
    }
}

/// rustls' reason, and what to do.
fn untrusted(reason: &str) -> String {
    // rustls puts words of its own before ours.
    if let Some(at) = reason.find(OTHER_PIN) {
        return format!("{}; set it to the hash that `tether-cloud init` printed there, or set `ca`", &reason[at..]);
    }
    let fix = if ["UnknownIssuer", "BadSignature"].iter().any(|problem| reason.contains(problem)) {
        "; set `ca` to the gateway's ca.pem, or `server_sha256`"
    } else if ["NotValidForName", "not valid for name"].iter().any(|problem| reason.contains(problem)) {
        "; set `server_name` to a name in its certificate"
    } else {
        ""
    };
    format!("{reason}{fix}")
}
