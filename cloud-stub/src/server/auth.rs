//! Who a client is: by its bearer token, or by its certificate.

use super::config::TokenClient;
use quinn::Connection;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use std::sync::{PoisonError, RwLock};
use subtle::ConstantTimeEq;
use tether_protocol::limits::MAX_NAME_BYTES;
use tether_protocol::wire::{ErrorCode, Hello, Token, WireError};

/// The tokens that are accepted now.
#[derive(Debug)]
pub(super) struct Credentials(RwLock<Vec<TokenClient>>);

impl Credentials {
    pub(super) fn new(tokens: Vec<TokenClient>) -> Self {
        Self(RwLock::new(tokens))
    }

    pub(super) fn replace(&self, tokens: Vec<TokenClient>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = tokens;
    }

    /// The client's name.
    ///
    /// # Errors
    /// `Unauthorized`, saying what is missing but not what would fit.
    pub(super) fn identify(&self, hello: &Hello, connection: &Connection) -> Result<String, WireError> {
        let unauthorized = |problem: &str| WireError::new(ErrorCode::Unauthorized, problem);
        match (&hello.token, certificate_name(connection)) {
            (Some(token), _) => self.owner(token).ok_or_else(|| unauthorized("the token is not known to this gateway")),
            (None, Some(name)) => Ok(name),
            (None, None) => Err(unauthorized("this gateway wants a token or a client certificate")),
        }
    }

    /// Compares with every client's hash in constant time, so that the time taken tells nothing.
    fn owner(&self, token: &Token) -> Option<String> {
        let given: [u8; 32] = Sha256::digest(token.as_str().as_bytes()).into();
        let clients = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut owner = None;
        for client in clients.iter() {
            if bool::from(client.token_sha256.ct_eq(&given)) {
                owner = Some(client.name.clone());
            }
        }
        owner
    }
}

/// The first DNS name of the client's certificate, which the handshake has verified.
fn certificate_name(connection: &Connection) -> Option<String> {
    let identity = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    let certificate = webpki::EndEntityCert::try_from(identity.first()?).ok()?;
    let name = certificate.valid_dns_names().next().unwrap_or("unnamed certificate");
    Some(name.chars().take(MAX_NAME_BYTES).collect())
}
