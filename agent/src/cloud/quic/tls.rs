//! Whom to trust, and how to say who we are.

use super::QuicConfig;
use crate::cloud::CloudError;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;
use tether_protocol::wire::ALPN;

pub(super) fn client_config(config: &QuicConfig) -> Result<QuicClientConfig, CloudError> {
    let provider = Arc::new(ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(config_error)?
        .dangerous()
        .with_custom_certificate_verifier(verifier(config, provider)?);
    let mut tls = match (&config.client_cert, &config.client_key) {
        (Some(cert), Some(key)) => {
            let private = PrivateKeyDer::from_pem_file(key).map_err(|error| file_error("client_key", key, &error))?;
            let chain = certificates("client_cert", cert)?;
            builder.with_client_auth_cert(chain, private).map_err(|error| file_error("client_cert", cert, &error))?
        }
        (None, None) => builder.with_no_client_auth(),
        _ => return Err(CloudError::Config("client_cert and client_key go together; one is missing".into())),
    };
    tls.alpn_protocols = vec![ALPN.to_vec()];
    QuicClientConfig::try_from(tls).map_err(config_error)
}

fn verifier(config: &QuicConfig, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, CloudError> {
    match (&config.server_sha256, &config.ca) {
        (Some(_), Some(_)) => Err(CloudError::Config("set `ca` or `server_sha256`, not both".into())),
        (Some(pin), None) => {
            let pins = vec![parse_pin(pin)?];
            Ok(Arc::new(Pinned { pins, otherwise: None, provider }))
        }
        (None, Some(ca)) => from_file(ca, provider),
        (None, None) => {
            let system = rustls_platform_verifier::Verifier::new(provider).map_err(config_error)?;
            Ok(Arc::new(system))
        }
    }
}

/// Each certificate of the file may be a CA, or the server's own: both are tried.
fn from_file(path: &Path, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, CloudError> {
    let mut roots = RootCertStore::empty();
    let mut pins = Vec::new();
    for certificate in certificates("ca", path)? {
        pins.push(Sha256::digest(&certificate).into());
        roots.add(certificate).map_err(|error| file_error("ca", path, &error))?;
    }
    let authority = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| file_error("ca", path, &error))?;
    Ok(Arc::new(Pinned { pins, otherwise: Some(authority), provider }))
}

/// 64 hexadecimal digits, with or without colons.
fn parse_pin(text: &str) -> Result<[u8; 32], CloudError> {
    let wrong =
        || CloudError::Config("server_sha256 must be 64 hexadecimal digits (`tether-cloud init` prints it)".into());
    let digits: Vec<u8> = text
        .chars()
        .filter(|&c| c != ':')
        .map(|c| c.to_digit(16).map(|digit| digit as u8))
        .collect::<Option<_>>()
        .ok_or_else(wrong)?;
    let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
    if digits.len() == 64 { bytes.try_into().map_err(|_| wrong()) } else { Err(wrong()) }
}

/// Begins the verdict on a certificate that is not the pinned one; what it is follows.
pub(super) const OTHER_PIN: &str = "its certificate is not the one that `server_sha256` names, but";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Accepts exactly the pinned certificates, whatever name and date they carry; others as `otherwise` judges. That the
/// peer holds the certificate's key is checked in any case.
#[derive(Debug)]
struct Pinned {
    pins: Vec<[u8; 32]>,
    otherwise: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let fingerprint: [u8; 32] = Sha256::digest(end_entity).into();
        if self.pins.contains(&fingerprint) {
            return Ok(ServerCertVerified::assertion());
        }
        match &self.otherwise {
            Some(authority) => authority.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now),
            None => Err(rustls::Error::General(format!("{OTHER_PIN} {}", hex(&fingerprint)))),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn certificates(what: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, CloudError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if found.is_empty() => Err(file_error(what, path, &"no certificate in this file")),
        Ok(found) => Ok(found),
        Err(error) => Err(file_error(what, path, &error)),
    }
}

pub(super) fn file_error(what: &str, path: &Path, problem: &dyn std::fmt::Display) -> CloudError {
    CloudError::Config(format!("{what} = {:?}: {problem}", path.display().to_string()))
}

fn config_error(problem: impl std::fmt::Display) -> CloudError {
    CloudError::Config(problem.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_64_digits_with_or_without_colons() {
        let colons = vec!["ab"; 32].join(":");
        assert_eq!(parse_pin(&colons).unwrap(), [0xab; 32]);
        assert_eq!(parse_pin(&"0F".repeat(32)).unwrap(), [0x0f; 32]);
        for bad in ["", "abc", &"g".repeat(64), &"a".repeat(63), &"a".repeat(66)] {
            assert!(parse_pin(bad).is_err(), "{bad}");
        }
    }
}
