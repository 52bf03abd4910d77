//! Who may talk to whom.

use tether::cloud::CloudError;
use tether::cloud::quic::{QuicCloud, QuicConfig};
use tether_protocol::wire::*;
use tether_tests::quic::*;

/// The error of a client with these settings.
async fn refusal(config: QuicConfig) -> CloudError {
    let cloud = QuicCloud::new(config).unwrap();
    ask(&cloud, turn("t1", "hello", &[])).await.expect_err("this client must not get through")
}

async fn answered(config: QuicConfig) -> bool {
    let cloud = QuicCloud::new(config).unwrap();
    text_of(&ask(&cloud, turn("t1", "hello", &[])).await.unwrap()).is_some()
}

fn sha256_of(gateway: &Gateway) -> String {
    let cloud = std::fs::read_to_string(gateway.file("device-cloud.toml")).unwrap();
    let line = cloud.lines().find_map(|line| line.strip_prefix("# server_sha256 = ")).unwrap();
    line.trim_matches('"').to_owned()
}

#[tokio::test]
async fn a_server_of_another_ca_is_untrusted_and_the_fix_is_named() {
    let (gateway, stranger) = (Gateway::start(), Gateway::start());
    let config = QuicConfig { ca: Some(stranger.file("ca.pem")), ..gateway.client_config() };
    let error = refusal(config).await;
    assert!(matches!(&error, CloudError::Untrusted { problem, .. } if problem.contains("`ca`")), "{error}");
}

#[tokio::test]
async fn a_server_of_another_name_is_untrusted() {
    let gateway = Gateway::start();
    let config = QuicConfig { server_name: Some("elsewhere.example".into()), ..gateway.client_config() };
    let error = refusal(config).await;
    assert!(matches!(&error, CloudError::Untrusted { problem, .. } if problem.contains("server_name")), "{error}");
}

#[tokio::test]
async fn without_a_ca_only_public_roots_count() {
    let gateway = Gateway::start();
    let error = refusal(QuicConfig { ca: None, ..gateway.client_config() }).await;
    assert!(matches!(error, CloudError::Untrusted { .. }), "{error}");
}

#[tokio::test]
async fn a_pinned_server_is_trusted_by_hash_or_by_its_own_file_and_no_other_is() {
    let (gateway, stranger) = (Gateway::start(), Gateway::start());
    let pinned = |hash: String| QuicConfig { ca: None, server_sha256: Some(hash), ..gateway.client_config() };
    assert!(answered(pinned(sha256_of(&gateway))).await);
    assert!(answered(QuicConfig { ca: Some(gateway.file("server.pem")), ..gateway.client_config() }).await);
    let error = refusal(pinned(sha256_of(&stranger))).await;
    assert!(matches!(error, CloudError::Untrusted { .. }), "{error}");
    // Which certificate is there, and which setting is wrong.
    let (text, found) = (error.to_string(), sha256_of(&gateway).replace(':', "").to_lowercase());
    assert!(text.contains("`server_sha256`") && text.contains(&found) && text.contains("tether-cloud init"), "{text}");
    let error = refusal(QuicConfig { ca: Some(stranger.file("server.pem")), ..gateway.client_config() }).await;
    assert!(matches!(error, CloudError::Untrusted { .. }), "{error}");
}

fn unauthorized(error: &CloudError) -> bool {
    matches!(error, CloudError::Refused(WireError { code: ErrorCode::Unauthorized, .. }))
}

#[tokio::test]
async fn a_client_without_a_known_credential_is_refused_in_words() {
    let (gateway, stranger) = (Gateway::start(), Gateway::start());
    let error = refusal(QuicConfig { token_file: None, ..gateway.client_config() }).await;
    assert!(unauthorized(&error) && error.to_string().contains("token"), "{error}");
    let error = refusal(QuicConfig { token_file: Some(stranger.file("robot.token")), ..gateway.client_config() }).await;
    assert!(unauthorized(&error), "{error}");
}

#[tokio::test]
async fn a_client_certificate_of_our_ca_is_enough_and_one_of_another_is_refused() {
    let (mut gateway, stranger) = (Gateway::start(), Gateway::start());
    let with = |holder: &Gateway| QuicConfig {
        token_file: None,
        client_cert: Some(holder.file("robot.pem")),
        client_key: Some(holder.file("robot.key")),
        ..gateway.client_config()
    };
    let (known, unknown) = (with(&gateway), with(&stranger));
    assert!(answered(known).await);
    assert_eq!(gateway.saw().await, Seen::Began { peer: "robot".into(), text: "hello".into() });
    let error = refusal(unknown).await;
    assert!(unauthorized(&error), "{error}");
}

#[tokio::test]
async fn tokens_can_be_replaced_while_running() {
    let gateway = Gateway::start();
    gateway.server.set_tokens(vec![token_client("robot", "another")]);
    let error = refusal(gateway.client_config()).await;
    assert!(unauthorized(&error), "{error}");
    std::fs::write(gateway.file("new.token"), "another\n").unwrap();
    assert!(answered(QuicConfig { token_file: Some(gateway.file("new.token")), ..gateway.client_config() }).await);
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_by_name() {
    let gateway = Gateway::start();
    let good = || gateway.client_config();
    let empty = gateway.file("empty");
    std::fs::write(&empty, "").unwrap();
    let cases = [
        ("address", QuicConfig { address: "gateway".into(), server_name: None, ..good() }),
        ("ca", QuicConfig { ca: Some("/nowhere/ca.pem".into()), ..good() }),
        ("no certificate", QuicConfig { ca: Some(empty.clone()), ..good() }),
        ("token_file", QuicConfig { token_file: Some(empty), ..good() }),
        ("client_key", QuicConfig { client_cert: Some(gateway.file("robot.pem")), ..good() }),
        ("server_sha256", QuicConfig { ca: None, server_sha256: Some("abc".into()), ..good() }),
        ("not both", QuicConfig { server_sha256: Some("ab".repeat(32)), ..good() }),
    ];
    for (named, config) in cases {
        match QuicCloud::new(config) {
            Err(CloudError::Config(problem)) => assert!(problem.contains(named), "{named}: {problem}"),
            Err(other) => panic!("{named}: {other}"),
            Ok(_) => panic!("{named}: accepted"),
        }
    }
}
