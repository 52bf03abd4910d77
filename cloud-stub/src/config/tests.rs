use super::*;

const HEAD: &str = "cert = \"server.pem\"\nkey = \"server.key\"\n";

fn parse(zoo: &str) -> Result<Settings, ConfigError> {
    Settings::parse(&format!("{HEAD}{zoo}"), Path::new("/etc/tether/gateway.toml"))
}

fn problem(zoo: &str) -> String {
    parse(zoo).unwrap_err().to_string()
}

#[test]
fn the_shortest_file_gives_the_embedded_model() {
    let settings = parse("").unwrap();
    assert_eq!(settings.cert, Path::new("/etc/tether/server.pem"));
    assert_eq!(settings.listen, "[::]:4433".parse().unwrap());
    assert_eq!(settings.zoo.len(), 1);
    assert_eq!((settings.zoo[0].name.as_str(), settings.zoo[0].vision), ("smollm2-135m-instruct", Vision::Measured));
    assert!(matches!(settings.zoo[0].kind, Kind::Candle(_)));
}

#[test]
fn every_kind_is_read() {
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), "sk-secret-key\n").unwrap();
    let settings = parse(&format!(
        r#"
        metrics = "none"
        [[zoo]]
        name = "small"
        kind = "candle"
        model = "models/small.gguf"
        threads = 2
        on_context_full = "drop_oldest"
        [[zoo]]
        name = "large"
        kind = "openai"
        base_url = "https://api.example.com/v1/"
        model = "gpt"
        api_key_file = "{}"
        vision = "native"
        usd_per_million_prompt_tokens = 0.5
        [[zoo]]
        name = "script"
        kind = "scripted"
        queue = 0
        [zoo.script]
        answer = "hm"
        token_ms = 5
        faults = [{{ kind = "cut", after_tokens = 3, probability = 0.5 }}, {{ kind = "error", code = "overloaded" }}]
        "#,
        key.path().display()
    ))
    .unwrap();
    let [small, large, script] = &settings.zoo[..] else { panic!() };
    let Kind::Candle(candle) = &small.kind else { panic!() };
    assert_eq!(candle.model, "/etc/tether/models/small.gguf");
    let Kind::OpenAi(openai) = &large.kind else { panic!() };
    assert_eq!(openai.base_url, "https://api.example.com/v1");
    assert_eq!(openai.api_key.as_ref().unwrap().reveal(), "sk-secret-key");
    assert_eq!(large.prices.usd_per_million_prompt_tokens, 0.5);
    assert!(!format!("{settings:?}").contains("secret"), "no key in Debug");
    let Kind::Scripted(play) = &script.kind else { panic!() };
    assert_eq!((script.queue, play.faults.len()), (0, 2));
    assert_eq!(settings.metrics, None);
}

#[test]
fn a_mistake_is_named_with_its_cure() {
    assert!(problem("lisen = \"x\"").contains("did you mean `listen`?"), "{}", problem("lisen = \"x\""));
    let base = "[[zoo]]\nname = \"a\"\nkind = \"scripted\"\n";
    let cases = [
        ("listen = \"somewhere\"", "listen: \"somewhere\" must be IP:PORT"),
        (&format!("{base}qeue = 3"), "did you mean `queue`?"),
        (&format!("{base}base_url = \"x\""), "zoo.a.base_url: is a key of another kind"),
        (&format!("{base}{base}"), "zoo.a: two backends have this name"),
        (&format!("{base}concurrency = 0"), "zoo.a.concurrency: 0 must be from 1 to 4096"),
        (&format!("{base}usd_per_request = nan"), "zoo.a.usd_per_request: NaN is not an amount"),
        (&format!("{base}script.faults = [{{ kind = \"hang\", probability = 2.0 }}]"), "2 must be from 0 to 1"),
        ("[[zoo]]\nname = \"a\"\nkind = \"canlde\"", "did you mean `candle`?"),
        ("[[zoo]]\nname = \"a b\"\nkind = \"candle\"", "zoo.name: \"a b\" must be"),
        ("[[zoo]]\nname = \"a\"\nkind = \"candle\"\nvision = \"native\"", "cannot see"),
        ("[[zoo]]\nname = \"a\"\nkind = \"openai\"\nmodel = \"m\"", "zoo.a.base_url: is missing"),
        ("[[tokens]]\nname = \"r\"\nsha256 = \"12\"", "tokens.r.sha256: must be the 64 hex digits"),
    ];
    for (text, expected) in cases {
        let problem = problem(text);
        assert!(problem.contains(expected), "{text}\n-> {problem}");
        assert!(problem.contains("/etc/tether/gateway.toml"), "{problem}");
    }
}

#[test]
fn a_url_with_a_secret_is_refused_without_repeating_it() {
    let zoo = "[[zoo]]\nname = \"a\"\nkind = \"openai\"\nmodel = \"m\"\nbase_url = \"https://me:hunter2@host/v1\"";
    let problem = problem(zoo);
    assert!(problem.contains("api_key_file") && !problem.contains("hunter2"), "{problem}");
}

#[test]
fn the_limits_hold_at_their_borders() {
    let zoo = |count: usize| {
        (0..count).map(|n| format!("[[zoo]]\nname = \"m{n}\"\nkind = \"scripted\"\n")).collect::<String>()
    };
    assert_eq!(parse(&zoo(MAX_ZOO)).unwrap().zoo.len(), MAX_ZOO);
    assert!(problem(&zoo(MAX_ZOO + 1)).contains("at most 64"));
    let queue = |queue: usize| format!("[[zoo]]\nname = \"a\"\nkind = \"scripted\"\nqueue = {queue}");
    assert!(parse(&queue(MAX_QUEUE)).is_ok());
    assert!(parse(&queue(MAX_QUEUE + 1)).is_err());
}

const TWO: &str = "[[zoo]]\nname = \"a\"\nkind = \"scripted\"\n[[zoo]]\nname = \"b\"\nkind = \"scripted\"\n";

#[test]
fn levels_are_agreed_for_all_and_for_some() {
    assert_eq!(parse(TWO).unwrap().routing, None);
    let text = format!("{TWO}[routing]\nalpha = 0.9\n[[tenants]]\nname = \"robot\"\nmodels = [\"b\"]");
    let routing = parse(&text).unwrap().routing.unwrap();
    assert_eq!((routing.default.alpha, &routing.default.models), (0.9, &None));
    assert_eq!(routing.state, StateSettings::File("/etc/tether/mess-state".into()));
    let (name, level) = &routing.tenants[0];
    assert_eq!((name.as_str(), level.alpha, &level.models), ("robot", 0.9, &Some(vec!["b".to_owned()])));
    assert_eq!(routing.encoder, EncoderSettings::Hashed);
    let text = format!(
        "{TWO}[routing]\nencoder = \"sentence\"\nencoder_weights = \"w.safetensors\"\nencoder_tokenizer = \"t.json\""
    );
    let files = ("/etc/tether/w.safetensors".into(), "/etc/tether/t.json".into());
    assert_eq!(parse(&text).unwrap().routing.unwrap().encoder, EncoderSettings::Sentence(Some(files)));
    let text = format!("{TWO}[routing]\n[state]\nkind = \"memory\"");
    assert_eq!(parse(&text).unwrap().routing.unwrap().state, StateSettings::Memory);
    let text = format!("{TWO}[routing]\n[state]\nkind = \"files\"\npath = \"shared\"");
    assert_eq!(parse(&text).unwrap().routing.unwrap().state, StateSettings::Files("/etc/tether/shared".into()));
    let text =
        format!("{TWO}[routing]\n[state]\nkind = \"redis\"\nurl = \"redis://10.0.0.5:6379/2\"\nname = \"fleet\"");
    let StateSettings::Redis(server) = parse(&text).unwrap().routing.unwrap().state else { panic!("{text}") };
    assert_eq!(
        (server.url.as_str(), server.name.as_str(), server.password),
        ("redis://10.0.0.5:6379/2", "fleet", None)
    );
}

#[test]
fn levels_that_cannot_be_kept_are_named() {
    let wrong = [
        ("[routing]\nalpha = 1.0", "routing.alpha: 1 must lie above 0 and below 1"),
        ("[routing]\nalpha = nan", "routing.alpha: NaN must lie above 0"),
        ("[[tenants]]\nname = \"r\"\nalpha = 0", "tenants.r.alpha: 0 must lie above 0"),
        ("[[tenants]]\nname = \"r\"\nmodels = []", "tenants.r.models: no model is allowed; name some of a, b"),
        ("[[tenants]]\nname = \"r\"\nmodels = [\"c\"]", "tenants.r.models: the zoo has no model \"c\"; it has a, b"),
        ("[[tenants]]\nname = \"r\"\n[[tenants]]\nname = \"r\"", "tenants.r: two tenants have this name"),
        ("[routing]\nencoder = \"bert\"", "unknown variant `bert`"),
        ("[routing]\nencoder_weights = \"w\"", "routing.encoder_weights: only encoder = \"sentence\" has weights"),
        (
            "[routing]\nencoder = \"sentence\"\nencoder_weights = \"w\"",
            "routing.encoder_tokenizer: encoder_weights needs it",
        ),
        ("[state]\nkind = \"file\"", "state: nothing is learned without [routing]"),
        ("[routing]\n[state]\nkind = \"memory\"\npath = \"x\"", "state.path: only kind = \"file\" or \"files\""),
        ("[routing]\n[state]\nkind = \"file\"\nurl = \"redis://h\"", "state.url: only kind = \"redis\" has a server"),
        ("[routing]\n[state]\nkind = \"redis\"", "state.url: kind = \"redis\" needs it, such as"),
        ("[routing]\n[state]\nkind = \"redis\"\nurl = \"http://h\"", "state.url: must be redis://HOST:PORT/DATABASE"),
        ("[routing]\n[state]\nkind = \"redis\"\nurl = \"rediss://h\"", "TLS is not built in"),
        (
            "[routing]\n[state]\nkind = \"redis\"\nurl = \"redis://:hush@h\"",
            "state.url: must not hold a user or a password",
        ),
        ("[routing]\n[state]\nkind = \"redis\"\nurl = \"redis://h\"\nname = \"\"", "state.name: \"\" must be 1 to"),
    ];
    for (text, expected) in wrong {
        let said = problem(&format!("{TWO}{text}"));
        assert!(said.contains(expected), "{text}: {said}");
        assert!(!said.contains("hush"), "{said}");
    }
    let many: String = (0..17).map(|n| format!("[[zoo]]\nname = \"m{n}\"\nkind = \"scripted\"\n")).collect();
    assert!(problem(&format!("{many}[routing]")).contains("zoo: 17 backends are given, MESS+ routes among at most 16"));
}
