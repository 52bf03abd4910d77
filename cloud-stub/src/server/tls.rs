//! Certificates, TLS 1.3, and QUIC's own limits.

use super::config::{ServerConfig, ServerError};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{IdleTimeout, TransportConfig, VarInt};
use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use std::path::Path;
use std::sync::Arc;
use tether_protocol::wire::ALPN;

/// What a connection may send before its `Hello` is accepted: one control stream, and little on it.
const STRANGER_WINDOW_BYTES: u32 = 16 * 1024;
/// In flight on one stream: 80 Mbit/s at 100 ms.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;

pub(super) fn quinn_config(config: &ServerConfig) -> Result<quinn::ServerConfig, ServerError> {
    let provider = Arc::new(ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| ServerError::Tls(error.to_string()))?;
    let builder = match &config.client_ca {
        Some(ca) => builder.with_client_cert_verifier(client_verifier(ca, provider)?),
        None => builder.with_no_client_auth(),
    };
    let chain = certificates("certificate", &config.cert)?;
    let key = PrivateKeyDer::from_pem_file(&config.key).map_err(|error| file_error("key", &config.key, &error))?;
    let mut tls =
        builder.with_single_cert(chain, key).map_err(|error| file_error("certificate", &config.cert, &error))?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let crypto = QuicServerConfig::try_from(tls).map_err(|error| ServerError::Tls(error.to_string()))?;
    let mut quic = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    quic.transport_config(Arc::new(transport(config)?));
    Ok(quic)
}

fn transport(config: &ServerConfig) -> Result<TransportConfig, ServerError> {
    let idle = IdleTimeout::try_from(config.limits.idle_timeout)
        .map_err(|_| ServerError::Tls(format!("idle timeout {:?} is too long", config.limits.idle_timeout)))?;
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .receive_window(VarInt::from_u32(STRANGER_WINDOW_BYTES))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(idle));
    Ok(transport)
}

/// A certificate is optional in the handshake: a client without one is told so in words, after its `Hello`.
fn client_verifier(ca: &Path, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, ServerError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("client_ca", ca)? {
        roots.add(certificate).map_err(|error| file_error("client_ca", ca, &error))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .allow_unauthenticated()
        .build()
        .map_err(|error| file_error("client_ca", ca, &error))
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, ServerError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if found.is_empty() => Err(file_error(what, path, &"no certificate in this file")),
        Ok(found) => Ok(found),
        Err(error) => Err(file_error(what, path, &error)),
    }
}

fn file_error(what: &'static str, path: &Path, problem: &impl std::fmt::Display) -> ServerError {
    ServerError::File { what, path: path.to_owned(), problem: problem.to_string() }
}
