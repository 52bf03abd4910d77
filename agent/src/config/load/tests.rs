use super::*;
use crate::config::{CloudConfig, PolicyName};

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn load_text(text: &str, pairs: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    load_from(Some(&path), &env(pairs))
}

#[test]
fn no_file_at_all_is_a_working_daemon() {
    let settings =
        load_from(None, &env(&[("HOME", "/nonexistent"), ("XDG_RUNTIME_DIR", "/run/user/7")])).unwrap().settings;
    assert_eq!(settings.socket.path, Path::new("/run/user/7/tether/tether.sock"));
    assert_eq!(settings.ledger.path, Path::new("/nonexistent/.local/state/tether/tether.db"));
    assert_eq!(settings.socket.mode, 0o600);
    assert_eq!(settings.space.action_count(), 17);
    assert!(matches!(settings.cloud, CloudConfig::None));
    assert!(Settings::default().model.is_some());
}

#[test]
fn a_misspelt_key_is_refused_with_its_line_and_its_neighbour() {
    let error = load_text("[model]\ncontxt_tokens = 5\n", &[]).unwrap_err().to_string();
    assert!(error.contains("did you mean `context_tokens`?"), "{error}");
    assert!(error.contains("line 2"), "{error}");
    let error = load_text("[modle]\nthreads = 5\n", &[]).unwrap_err().to_string();
    assert!(error.contains("did you mean `model`?"), "{error}");
    let error = load_text("[cloud]\nkind = \"quic\"\naddres = \"x:1\"\n", &[]).unwrap_err().to_string();
    assert!(error.contains("did you mean `address`?"), "{error}");
}

#[test]
fn the_environment_wins_and_says_so() {
    let text = "[model]\nthreads = 1\nname = \"a\"\n[log]\nlevel = \"warn\"\n";
    let loaded = load_text(text, &[("TETHER_MODEL_THREADS", "3"), ("TETHER_LOG_LEVEL", "debug")]).unwrap();
    assert_eq!(loaded.settings.model.as_ref().unwrap().load.threads, Some(3));
    assert_eq!(loaded.settings.log.level, "debug");
    let (value, origin) = &loaded.written["model.threads"];
    assert_eq!((value, origin), (&Value::Integer(3), &Origin::Environment("TETHER_MODEL_THREADS".into())));
    assert!(matches!(loaded.written["model.name"].1, Origin::File(_)));
}

#[test]
fn structured_values_come_from_the_environment_too() {
    let views = "[{name = \"wrist\", kind = \"camera\", local_only = true}]";
    let pairs = [
        ("TETHER_VIEWS", views),
        ("TETHER_CLOUD_KIND", "openai"),
        ("TETHER_CLOUD_BASE_URL", "http://127.0.0.1:1/v1"),
        ("TETHER_CLOUD_MODEL", "m"),
        ("TETHER_LOCAL_ONLY", "true"),
    ];
    let settings = load_from(None, &env(&pairs)).unwrap().settings;
    assert_eq!(settings.space.action_count(), 3);
    assert!(settings.local_only && settings.views.0[0].local_only);
    assert_eq!(settings.cloud.kind(), "openai");
}

#[test]
fn values_out_of_range_name_the_key() {
    for (text, key) in [
        ("[model]\nqueue = 0", "model.queue"),
        ("[model]\nmax_tokens = 0", "model.max_tokens"),
        ("[sessions]\nmax_messages = 1", "sessions.max_messages"),
        ("[sessions]\nttl_s = 0", "sessions.ttl_s"),
        ("[socket]\nmode = \"777\"", "socket.mode"),
        ("[socket]\nmode = \"rw\"", "socket.mode"),
        ("[model]\nname = \"none\"", "model.name"),
        ("[[views]]\nname = \"a\"\nkind = \"camera\"\n[[views]]\nname = \"a\"\nkind = \"camera\"", "views"),
    ] {
        match load_text(text, &[]) {
            Err(ConfigError::Invalid { key: found, .. }) => assert_eq!(found, key),
            other => panic!("{text}: {other:?}"),
        }
    }
    let named = |text| load_text(text, &[]).map(|loaded| loaded.settings.policy);
    assert_eq!(named("[policy]\nname = \"always-cloud\"").unwrap().name, PolicyName::AlwaysCloud);
    let file = named("[policy]\nname = \"tether\"\nfile = \"mine.json\"").unwrap().file.unwrap();
    assert!(file.is_absolute() && file.ends_with("mine.json"), "{}", file.display());
    let error = named("[policy]\nname = \"rule\"\nfile = \"mine.json\"").unwrap_err().to_string();
    assert!(error.contains("policy.file") && error.contains("policy.name"), "{error}");
}

#[test]
fn a_missing_file_that_was_named_is_an_error_and_stray_variables_are_told() {
    let error = load_from(Some(Path::new("/no/such.toml")), &env(&[])).unwrap_err().to_string();
    assert!(error.contains("/no/such.toml"), "{error}");
    let loaded = load_from(None, &env(&[("TETHER_MODEL_THREAD", "3"), ("TETHER_HOST", "unix:///x")])).unwrap();
    assert_eq!(loaded.warnings, ["the variable TETHER_MODEL_THREAD is no setting; did you mean TETHER_MODEL_THREADS?"]);
}

#[test]
fn relative_paths_are_relative_to_the_file() {
    let loaded = load_text("[ledger]\npath = \"here.db\"\n[model]\npath = \"/m.gguf\"", &[]).unwrap();
    let folder = loaded.settings.file.as_ref().unwrap().parent().unwrap();
    assert_eq!(loaded.settings.ledger.path, folder.join("here.db"));
}
