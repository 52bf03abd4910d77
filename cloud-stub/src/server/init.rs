//! `tether-cloud init`: certificates, a first token, and the settings of both sides to paste.

mod text;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use tether_protocol::ViewName;

/// How long the certificates last. They are made once by hand and copied by hand; revoking is making new ones.
const VALID_YEARS: i32 = 10;

/// What to make.
#[derive(Debug, Clone)]
pub struct InitOptions {
    pub dir: PathBuf,
    /// `host:port` under which the devices reach the gateway.
    pub address: String,
    /// Further DNS names and IP addresses of the gateway; `localhost` is always among them.
    pub names: Vec<String>,
    /// Name of the first client.
    pub client: String,
    /// Also make a certificate for it (mutual TLS).
    pub client_certificate: bool,
    /// Replace files that are there.
    pub force: bool,
}

/// What was made.
#[derive(Debug, Clone)]
pub struct InitReport {
    pub files: Vec<PathBuf>,
    /// The client's token, to be shown once; the gateway keeps only its hash.
    pub token: String,
    /// SHA-256 of the server's certificate, for `server_sha256` on the devices.
    pub server_sha256: String,
    /// The settings file to start the gateway with.
    pub gateway_config: PathBuf,
    /// The device's `[cloud]` section, to paste.
    pub cloud_section: String,
}

#[derive(Debug, thiserror::Error)]
pub enum InitError {
    #[error("{path} exists already; --force replaces it, and every device then needs the new files")]
    Exists { path: PathBuf },
    #[error("{path}: {problem}")]
    Write { path: PathBuf, problem: std::io::Error },
    #[error("address {address:?} must be host:port, such as gateway.example.org:4433")]
    Address { address: String },
    #[error("client name: {0}")]
    Client(#[from] tether_protocol::IdError),
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("this machine gives no random numbers")]
    NoRandomness,
}

struct NewFile {
    name: String,
    content: String,
    secret: bool,
}

impl NewFile {
    fn public(name: &str, content: String) -> Self {
        Self { name: name.to_owned(), content, secret: false }
    }

    fn secret(name: &str, content: String) -> Self {
        Self { name: name.to_owned(), content, secret: true }
    }
}

/// Makes everything for a first use. Writes nothing unless all of it can be made and no file is in the way.
///
/// # Errors
/// [`InitError`] names the file, or the value that is wrong.
pub fn init(options: &InitOptions) -> Result<InitReport, InitError> {
    // The rules for a client's name are those of every name; the type only serves to check.
    ViewName::new(options.client.as_str())?;
    let host = host_of(&options.address)?;
    let (token, token_sha256) = new_token()?;
    let certificates = certificates(options, host)?;
    let mut files = certificates.files;
    let token_name = format!("{}.token", options.client);
    files.push(NewFile::secret(&token_name, format!("{token}\n")));
    files.push(NewFile::public("gateway.toml", text::gateway_config(&options.client, &hex(&token_sha256))));
    let cloud_section = text::cloud_section(options, host, &certificates.server_sha256);
    files.push(NewFile::public("device-cloud.toml", cloud_section.clone()));
    write_all(options, &files)?;
    Ok(InitReport {
        files: files.iter().map(|file| options.dir.join(&file.name)).collect(),
        token,
        server_sha256: certificates.server_sha256,
        gateway_config: options.dir.join("gateway.toml"),
        cloud_section,
    })
}

/// A new bearer token of 256 random bits, and the SHA-256 under which the gateway knows it.
///
/// # Errors
/// [`InitError::NoRandomness`].
pub fn new_token() -> Result<(String, [u8; 32]), InitError> {
    use base64::Engine as _;
    let mut random = [0; 32];
    let source = rustls::crypto::ring::default_provider().secure_random;
    source.fill(&mut random).map_err(|_| InitError::NoRandomness)?;
    let token = format!("tether_{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random));
    let hash = Sha256::digest(token.as_bytes()).into();
    Ok((token, hash))
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The host of `host:port` or `[v6]:port`, without brackets.
fn host_of(address: &str) -> Result<&str, InitError> {
    let wrong = || InitError::Address { address: address.to_owned() };
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let legal = !bare.is_empty() && port.parse::<u16>().is_ok() && (bare.len() != host.len() || !bare.contains(':'));
    if legal { Ok(bare) } else { Err(wrong()) }
}

struct Certificates {
    files: Vec<NewFile>,
    server_sha256: String,
}

fn certificates(options: &InitOptions, host: &str) -> Result<Certificates, InitError> {
    let ca = certificate_authority()?;
    let mut names = vec![host.to_owned(), "localhost".into(), "127.0.0.1".into(), "::1".into()];
    names.extend(options.names.iter().cloned());
    names.sort();
    names.dedup();
    let (server, server_key) = leaf(&ca, names, "tether gateway", ExtendedKeyUsagePurpose::ServerAuth)?;
    let mut files = vec![
        NewFile::public("ca.pem", ca.pem()),
        NewFile::secret("ca.key", ca.key().serialize_pem()),
        NewFile::public("server.pem", server.pem()),
        NewFile::secret("server.key", server_key.serialize_pem()),
    ];
    if options.client_certificate {
        let client = &options.client;
        let (pem, key) = leaf(&ca, vec![client.clone()], client, ExtendedKeyUsagePurpose::ClientAuth)?;
        files.push(NewFile::public(&format!("{client}.pem"), pem.pem()));
        files.push(NewFile::secret(&format!("{client}.key"), key.serialize_pem()));
    }
    Ok(Certificates { files, server_sha256: hex(&Sha256::digest(server.der())) })
}

fn parameters(names: Vec<String>, common_name: &str) -> Result<CertificateParams, InitError> {
    let mut parameters = CertificateParams::new(names)?;
    parameters.distinguished_name.push(DnType::CommonName, common_name);
    // A robot without a battery-backed clock may believe that it is years ago.
    parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
    let year = i32::from(jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).year());
    parameters.not_after = rcgen::date_time_ymd(year + VALID_YEARS, 1, 1);
    Ok(parameters)
}

fn certificate_authority() -> Result<CertifiedIssuer<'static, KeyPair>, InitError> {
    let key = KeyPair::generate()?;
    // A name of its own: two CAs of one name would make "unknown issuer" look like "bad signature".
    let fingerprint = hex(&Sha256::digest(key.public_key_raw())[..4]);
    let mut parameters = parameters(Vec::new(), &format!("tether private CA {fingerprint}"))?;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(CertifiedIssuer::self_signed(parameters, key)?)
}

fn leaf(
    ca: &CertifiedIssuer<'static, KeyPair>,
    names: Vec<String>,
    common_name: &str,
    usage: ExtendedKeyUsagePurpose,
) -> Result<(rcgen::Certificate, KeyPair), InitError> {
    let mut parameters = parameters(names, common_name)?;
    parameters.use_authority_key_identifier_extension = true;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![usage];
    let key = KeyPair::generate()?;
    Ok((parameters.signed_by(&key, ca)?, key))
}

fn write_all(options: &InitOptions, files: &[NewFile]) -> Result<(), InitError> {
    let path = |file: &NewFile| options.dir.join(&file.name);
    if let Some(in_the_way) = files.iter().map(path).find(|path| !options.force && path.exists()) {
        return Err(InitError::Exists { path: in_the_way });
    }
    std::fs::create_dir_all(&options.dir).map_err(|problem| InitError::Write { path: options.dir.clone(), problem })?;
    for file in files {
        let path = path(file);
        write_file(&path, file).map_err(|problem| InitError::Write { path, problem })?;
    }
    Ok(())
}

/// Whole or not at all, and never readable by others for a moment if secret.
fn write_file(path: &Path, file: &NewFile) -> std::io::Result<()> {
    let unfinished = path.with_file_name(format!(".{}.new", file.name));
    // Left over from an interrupted run.
    let _ = std::fs::remove_file(&unfinished);
    let mode = if file.secret { 0o600 } else { 0o644 };
    let mut output = OpenOptions::new().write(true).create_new(true).mode(mode).open(&unfinished)?;
    output.write_all(file.content.as_bytes())?;
    output.sync_all()?;
    std::fs::rename(&unfinished, path)
}

#[cfg(test)]
mod tests;
