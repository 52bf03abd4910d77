use super::*;
use std::os::unix::fs::PermissionsExt as _;

fn options(dir: &Path) -> InitOptions {
    InitOptions {
        dir: dir.to_owned(),
        address: "gateway.example.org:4433".into(),
        names: vec!["10.0.0.7".into()],
        client: "robot".into(),
        client_certificate: true,
        force: false,
    }
}

#[test]
fn secrets_are_for_their_owner_only_and_the_token_is_kept_as_its_hash() {
    let dir = tempfile::tempdir().unwrap();
    let report = init(&options(dir.path())).unwrap();
    for file in &report.files {
        let mode = std::fs::metadata(file).unwrap().permissions().mode() & 0o777;
        let secret = file.extension().is_some_and(|extension| extension == "key" || extension == "token");
        assert_eq!(mode & 0o077 == 0, secret, "{} has mode {mode:o}", file.display());
    }
    let written = std::fs::read_to_string(dir.path().join("robot.token")).unwrap();
    assert_eq!(written.trim(), report.token);
    let config = std::fs::read_to_string(&report.gateway_config).unwrap();
    assert!(config.contains(&hex(&Sha256::digest(report.token.as_bytes()))));
    assert!(!config.contains(&report.token) && !report.cloud_section.contains(&report.token));
}

#[test]
fn nothing_is_overwritten_without_force() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("server.key"), "mine").unwrap();
    let refused = init(&options(dir.path())).unwrap_err();
    assert!(matches!(&refused, InitError::Exists { path } if path.ends_with("server.key")), "{refused}");
    assert!(!dir.path().join("ca.pem").exists());
    assert_eq!(std::fs::read_to_string(dir.path().join("server.key")).unwrap(), "mine");
    init(&InitOptions { force: true, ..options(dir.path()) }).unwrap();
    assert_ne!(std::fs::read_to_string(dir.path().join("server.key")).unwrap(), "mine");
}

#[test]
fn the_settings_are_toml_and_the_token_differs_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let first = init(&options(dir.path())).unwrap();
    let second = init(&InitOptions { force: true, ..options(dir.path()) }).unwrap();
    assert_ne!(first.token, second.token);
    let section: toml::Table = toml::from_str(&second.cloud_section).unwrap();
    assert_eq!(section["cloud"]["address"].as_str(), Some("gateway.example.org:4433"));
    assert_eq!(section["cloud"]["server_name"].as_str(), Some("gateway.example.org"));
    let config: toml::Table = toml::from_str(&std::fs::read_to_string(second.gateway_config).unwrap()).unwrap();
    assert_eq!(config["cert"].as_str(), Some("server.pem"));
}

#[test]
fn the_gateways_settings_are_accepted_as_written() {
    let dir = tempfile::tempdir().unwrap();
    let report = init(&options(dir.path())).unwrap();
    let settings = crate::config::Settings::load(&report.gateway_config).unwrap();
    assert_eq!(settings.cert, dir.path().join("server.pem"));
    assert_eq!(settings.tokens[0].name, "robot");
    assert_eq!(settings.tokens[0].sha256, <[u8; 32]>::from(Sha256::digest(report.token.as_bytes())));
}

#[test]
fn wrong_addresses_and_names_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for bad in ["gateway", "gateway:", ":4433", "gateway:99999", "::1:4433", "[]:1"] {
        let refused = init(&InitOptions { address: bad.into(), ..options(dir.path()) });
        assert!(matches!(refused, Err(InitError::Address { .. })), "{bad}");
    }
    assert_eq!(host_of("[::1]:4433").unwrap(), "::1");
    let refused = init(&InitOptions { client: "../robot".into(), ..options(dir.path()) });
    assert!(matches!(refused, Err(InitError::Client(_))));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
