//! Budgets through the socket: caps under concurrency, refusals, pacing, restarts.

use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::time::Duration;
use tether::testing::{Behaviour, Upstream, World};

/// Three answer tokens at this price cost exactly 0.003 USD, which is also the most that `max_tokens = 3` may cost.
const PRICES: &str = "usd_per_million_prompt_tokens = 0\nusd_per_million_completion_tokens = 1000\n";
const TURN_USD: f64 = 0.003;
const ALWAYS_CLOUD: &str = "[policy]\nname = \"always-cloud\"\n";
const NO_MODEL: &str = "[model]\nname = \"none\"\n";

async fn scene(folder: &std::path::Path, extra: &str) -> (Upstream, World) {
    let upstream = Upstream::start(Behaviour::Answer).await.unwrap();
    let world = World::start(folder, &format!("{extra}\n{}{PRICES}", upstream.config())).await.unwrap();
    (upstream, world)
}

async fn ask(world: &World, route: &str) -> tether::testing::Reply {
    world.ask("hello", json!({"max_tokens": 3, "tether": {"route": route}})).await.unwrap()
}

async fn budget(world: &World, name: &str) -> Value {
    let list = world.get("/v1/budgets").await.unwrap().json();
    list["budgets"].as_array().unwrap().iter().find(|budget| budget["name"] == name).unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_clients_against_a_cap_that_fits_ten_turns() {
    let folder = tempfile::tempdir().unwrap();
    let extra = format!("{ALWAYS_CLOUD}{NO_MODEL}[budgets]\nusd_per_day = 0.03\npacing = false\n");
    let (upstream, world) = scene(folder.path(), &extra).await;
    let world = std::sync::Arc::new(world);
    let asking = (0..64).map(|_| {
        let world = world.clone();
        tokio::spawn(async move { ask(&world, "auto").await })
    });
    let mut answered = 0;
    for reply in asking.collect::<Vec<_>>() {
        let reply = reply.await.unwrap();
        if reply.status == 200 {
            answered += 1;
            continue;
        }
        assert_eq!((reply.status, reply.code().as_str()), (429, "insufficient_quota"), "{}", reply.text());
        assert_eq!(reply.json()["error"]["type"], "insufficient_quota");
        let seconds: u64 = reply.headers["retry-after"].parse().unwrap();
        assert!((1..=86_400).contains(&seconds), "{seconds}");
        assert!(reply.text().contains("usd_per_day: 0.003 needed"), "{}", reply.text());
    }
    assert_eq!(answered, 10, "as many as the cap fits, and nobody was refused while one fitted");
    assert_eq!(upstream.bodies().len(), 10, "what is refused never leaves");
    let day = budget(&world, "usd_per_day").await;
    assert_eq!(
        (&day["spent"], &day["left"], &day["reserved"], &day["turns"]),
        (&json!(0.03), &json!(0.0), &json!(0.0), &json!(10))
    );
    let metrics = world.get("/metrics").await.unwrap().text();
    assert!(metrics.contains("tether_budget_spent_ratio{budget=\"usd_per_day\"} 1.0"), "{metrics}");
    assert!(!metrics.contains("outcome=\"refused\""), "a turn that nobody was asked is a refusal: {metrics}");

    let list = world.get("/v1/turns?limit=100").await.unwrap().json();
    let turns = list["turns"].as_array().unwrap();
    let of = |outcome: &str| turns.iter().filter(|turn| turn["outcome"] == outcome).collect::<Vec<_>>();
    let refused = of("refused");
    assert_eq!((of("answered").len(), refused.len()), (10, 54), "every turn leaves a record");
    for turn in refused {
        let reason = (&turn["reason"]["code"], turn["reason"]["detail"].as_str().unwrap());
        assert!(reason.0 == "insufficient_quota" && reason.1.contains("usd_per_day: 0.003 needed"), "{turn}");
        let not_affordable = &turn["unaffordable"][0];
        assert_eq!(
            (&not_affordable["action"], &not_affordable["predicted"]["cost_usd"]),
            (&json!(1), &json!(TURN_USD))
        );
        let wait_ms = turn["possible_unix_ms"].as_i64().unwrap() - turn["started_unix_ms"].as_i64().unwrap();
        assert!((1_000..=86_400_000).contains(&wait_ms), "{turn}");
        assert_eq!((&turn["permitted"], &turn["reserved"], &turn["views"]), (&json!([]), &json!(null), &json!([])));
        let measured = &turn["measured"];
        assert_eq!((&measured["cost_usd"], &measured["uplink_bytes"]), (&json!(0.0), &json!(0)), "{turn}");
        assert!(turn["context"].is_object() && turn["budget_remaining"]["usd_per_day"].is_number(), "{turn}");
    }
}

#[tokio::test]
async fn a_turn_that_nobody_may_answer_leaves_a_record_and_a_wrong_request_leaves_none() {
    let folder = tempfile::tempdir().unwrap();
    let extra = format!("{ALWAYS_CLOUD}{NO_MODEL}[ledger]\npath = \"t.db\"\n");
    let (upstream, world) = scene(folder.path(), &extra).await;
    for (tether, status, code) in [
        (json!({"local_only": true, "session": "s"}), 503, "nothing_can_answer"),
        (json!({"route": "local"}), 503, "local_unavailable"),
        (json!({"views": ["nowhere"]}), 400, "unknown_view"),
    ] {
        let reply = world.ask("hello", json!({"max_tokens": 3, "tether": tether})).await.unwrap();
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{}", reply.text());
    }
    let list = world.get("/v1/turns").await.unwrap().json();
    let told = list["turns"].as_array().unwrap().iter().map(|turn| {
        assert_eq!((&turn["outcome"], &turn["unaffordable"]), (&json!("refused"), &json!([])), "{turn}");
        (turn["reason"]["code"].as_str().unwrap(), turn["local_only"].as_bool().unwrap())
    });
    let newest_first = [("local_unavailable", false), ("nothing_can_answer", true)];
    assert_eq!(told.collect::<Vec<_>>(), newest_first);
    assert!(upstream.bodies().is_empty());
}

#[tokio::test]
async fn what_is_beyond_a_budget_is_answered_here_and_the_answer_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let extra = format!("{ALWAYS_CLOUD}[budgets]\nusd_per_mission = 0.007\npacing = false\n");
    let (_upstream, world) = scene(folder.path(), &extra).await;
    for left in [0.004, 0.001] {
        let tether = ask(&world, "auto").await.json()["tether"].clone();
        assert_eq!((&tether["route"], &tether["usd"]), (&json!("cloud"), &json!(TURN_USD)), "{tether}");
        assert_eq!(tether["budget_remaining"]["usd_per_mission"], json!(left), "{tether}");
    }
    let reply = ask(&world, "auto").await.json();
    let tether = &reply["tether"];
    assert_eq!((&tether["route"], &tether["reason"]), (&json!("local"), &json!("over_budget")), "{tether}");
    assert!(
        tether["reason_detail"].as_str().unwrap().contains("usd_per_mission: 0.003 needed, 0.001 left"),
        "{tether}"
    );
    let id = tether["turn_id"].as_str().unwrap();
    let record = world.get(&format!("/v1/turns/{id}")).await.unwrap().json();
    assert_eq!((&record["permitted"], &record["probabilities"]), (&json!([0]), &json!([1.0])), "{record}");
    assert_eq!(record["budget_remaining"]["usd_per_mission"], json!(0.001));
    // A mission ends when somebody says so: no time can be told.
    let refused = ask(&world, "cloud").await;
    assert_eq!((refused.status, refused.headers.get("retry-after")), (429, None), "{}", refused.text());
    assert!(refused.text().contains("tether budget show, set, reset"), "{}", refused.text());

    // A new mission, another cap, and back.
    let reset = world.send("POST", "/v1/budgets/usd_per_mission/reset", "null").await.unwrap();
    assert_eq!((reset.status, &reset.json()["budgets"][0]["spent"]), (200, &json!(0.0)), "{}", reset.text());
    assert_eq!(ask(&world, "cloud").await.status, 200);
    let set = world.send("PUT", "/v1/budgets/usd_per_mission", "{\"cap\":0.003}").await.unwrap().json();
    assert_eq!((&set["budgets"][0]["left"], &set["budgets"][0]["source"]), (&json!(0.0), &json!("set")));
    assert_eq!(ask(&world, "cloud").await.status, 429);
    let unset = world.send("DELETE", "/v1/budgets/usd_per_mission", "").await.unwrap().json();
    assert_eq!(unset["budgets"][0]["left"], json!(0.004));
    let status = world.get("/v1/status").await.unwrap().json();
    assert_eq!(status["budgets"][0]["name"], "usd_per_mission");
}

#[tokio::test]
async fn wrong_names_and_caps_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (_upstream, world) = scene(folder.path(), "").await;
    let put = async |name: &str, body: &str| {
        world.send("PUT", &format!("/v1/budgets/{name}"), body.to_owned()).await.unwrap()
    };
    let unknown = put("usd_per_week", "{\"cap\":1}").await;
    assert_eq!((unknown.status, unknown.code().as_str()), (404, "unknown_budget"));
    for bad in ["{\"cap\":-1}", "{\"cap\":1e300}", "{\"cap\":\"x\"}", "{\"limit\":1}", "{}", "cap"] {
        assert_eq!(put("usd_per_day", bad).await.status, 400, "{bad}");
    }
    // Nothing here says what a turn's energy is.
    let energy = put("energy_j_per_day", "{\"cap\":10}").await;
    assert!(energy.status == 400 && energy.text().contains("energy.local_power_w"), "{}", energy.text());
    let reset = world.send("POST", "/v1/budgets/usd_per_hour/reset", "null").await.unwrap();
    assert_eq!((reset.status, reset.code().as_str()), (404, "unknown_budget"));
    assert_eq!(put("uplink_bytes_per_hour", "{\"cap\":0}").await.status, 200, "nothing at all is a budget, too");
    assert_eq!(ask(&world, "cloud").await.status, 429);
    assert_eq!(ask(&world, "auto").await.status, 200);
}

#[tokio::test]
async fn the_cheapest_action_answers_where_the_settings_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let extra = format!("{ALWAYS_CLOUD}{NO_MODEL}[budgets]\nusd_per_day = 0.001\non_exhausted = \"cheapest\"\n");
    let (upstream, world) = scene(folder.path(), &extra).await;
    let tether = ask(&world, "auto").await.json()["tether"].clone();
    assert_eq!((&tether["route"], &tether["reason"]), (&json!("cloud"), &json!("budget_exhausted")), "{tether}");
    assert_eq!(upstream.bodies().len(), 1);
    assert_eq!(budget(&world, "usd_per_day").await["spent"], json!(TURN_USD), "what it cost is counted all the same");
}

#[tokio::test]
async fn the_policy_is_paced_and_who_asks_for_the_cloud_is_not() {
    let folder = tempfile::tempdir().unwrap();
    // A turn is 0.3 % of the cap: one may be ahead of the line, two may not, and an hour later more could.
    let extra = format!("{ALWAYS_CLOUD}[budgets]\nusd_per_mission = 1.0\nmission_h = 1000\n");
    let (_upstream, world) = scene(folder.path(), &extra).await;
    let reasons: Vec<String> = [
        ask(&world, "auto").await.json()["tether"]["route"].to_string(),
        ask(&world, "auto").await.json()["tether"]["reason"].to_string(),
        ask(&world, "cloud").await.json()["tether"]["route"].to_string(),
    ]
    .into();
    assert_eq!(reasons, ["\"cloud\"", "\"over_pace\"", "\"cloud\""]);
    let mission = budget(&world, "usd_per_mission").await;
    assert!(mission["line"].as_f64().unwrap() < 0.001 && mission["price"].as_f64().unwrap() > 1.0, "{mission}");
}

#[tokio::test]
async fn a_restart_forgets_nothing_and_a_reader_who_leaves_is_charged_what_was_reserved() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(Behaviour::Answer).await.unwrap();
    let extra = format!(
        "{ALWAYS_CLOUD}{NO_MODEL}[ledger]\npath = \"t.db\"\ncontent = true\n[budgets]\nusd_per_mission = 0.1\n{}{PRICES}",
        upstream.config()
    );
    let world = World::start(folder.path(), &extra).await.unwrap();
    let id = ask(&world, "auto").await.json()["tether"]["turn_id"].as_str().unwrap().to_owned();
    upstream.behave(Behaviour::Silent);
    let gone =
        tokio::time::timeout(std::time::Duration::from_millis(300), world.ask("hello", json!({"max_tokens": 3})));
    assert!(gone.await.is_err(), "the cloud is silent");
    world.send("PUT", "/v1/budgets/usd_per_day", "{\"cap\":0.5}").await.unwrap();
    world.stop().await.unwrap();

    upstream.behave(Behaviour::Answer);
    let world = World::start(folder.path(), &extra).await.unwrap();
    let mission = budget(&world, "usd_per_mission").await;
    assert_eq!((&mission["spent"], &mission["unknown"]), (&json!(0.006), &json!(0.003)), "{mission}");
    let day = budget(&world, "usd_per_day").await;
    assert_eq!((&day["cap"], &day["source"]), (&json!(0.5), &json!("set")));
    let content = world.daemon.store().content(tether_protocol::TurnId::new(id).unwrap()).await.unwrap().unwrap();
    assert_eq!((content.question.as_str(), content.answer.as_str()), ("hello", "from the cloud"));
}

#[tokio::test]
async fn a_cloud_that_is_not_there_costs_nothing_and_the_fallback_is_reserved_too() {
    let folder = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let extra = format!(
        "{ALWAYS_CLOUD}[budgets]\nusd_per_day = 1\nuplink_bytes_per_day = 1000000\nenergy_j_per_day = 10000\npacing = false\n\
         [energy]\nlocal_power_w = 10\ncloud_power_w = 2\n\
         [cloud]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:{port}/v1\"\nmodel = \"far\"\n{PRICES}"
    );
    let world = World::start(folder.path(), &extra).await.unwrap();
    let tether = ask(&world, "auto").await.json()["tether"].clone();
    assert_eq!((&tether["route"], &tether["joules_source"]), (&json!("local"), &json!("modelled")), "{tether}");
    let (usd, uplink) = (budget(&world, "usd_per_day").await, budget(&world, "uplink_bytes_per_day").await);
    assert_eq!((&usd["spent"], &usd["reserved"]), (&json!(0.0), &json!(0.0)), "{usd}");
    assert_eq!((&uplink["spent"], &uplink["reserved"]), (&json!(0.0), &json!(0.0)), "{uplink}");
    let energy = budget(&world, "energy_j_per_day").await;
    let joules = tether["joules"].as_f64().unwrap();
    assert!(joules > 0.0 && (energy["spent"].as_f64().unwrap() - joules).abs() < 1e-5, "{energy} {joules}");
    let id = tether["turn_id"].as_str().unwrap();
    let record = world.get(&format!("/v1/turns/{id}")).await.unwrap().json();
    assert!(record["reserved"]["energy_j"].as_f64().unwrap() > 120.0, "both attempts are held: {record}");
}

/// As JPEG, of one shade or of chance.
fn picture(shade: impl Fn() -> u8) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let image = image::RgbImage::from_fn(768, 768, |_, _| image::Rgb([shade(), shade(), shade()]));
    image.write_to(&mut bytes, image::ImageFormat::Jpeg).unwrap();
    bytes.into_inner()
}

async fn look(world: &World, picture: &[u8]) -> Value {
    assert_eq!(world.send("PUT", "/v1/cameras/front", picture.to_vec()).await.unwrap().status, 200);
    let extra = json!({"max_tokens": 3, "tether": {"views": ["front"]}});
    world.ask("what do you see?", extra).await.unwrap().json()["tether"].clone()
}

#[tokio::test]
async fn a_picture_of_many_times_the_bytes_of_the_one_before_travels_smaller_or_is_seen_here() {
    let folder = tempfile::tempdir().unwrap();
    let extra = format!("{ALWAYS_CLOUD}[budgets]\nuplink_bytes_per_day = 120000\npacing = false\n");
    let (upstream, world) = scene(folder.path(), &extra).await;
    let (flat, noise) = (picture(|| 120), picture(rand::random));
    let small = look(&world, &flat).await;
    // Its first picture may come before the camera was measured, and travels smaller then.
    assert_eq!(small["route"], "cloud", "{small}");
    let smaller = look(&world, &noise).await;
    assert_eq!((&smaller["route"], &smaller["views"]), (&json!("cloud"), &json!(["front"])), "{smaller}");
    let sent = &smaller["upload"]["pictures"][0];
    assert!(sent["max_side_px"].as_u64().unwrap() < 768, "{smaller}");
    let bodies = upstream.bodies();
    let travelled: usize = bodies.iter().map(|body| body.to_string().len()).sum();
    assert!(travelled < 120_000 && bodies.len() == 2, "{travelled}");

    // The camera's past says small once more; this time not even the smallest form has place.
    look(&world, &flat).await;
    look(&world, &flat).await;
    let spent = budget(&world, "uplink_bytes_per_day").await["spent"].as_f64().unwrap();
    let cap = json!({"cap": spent + 21_000.0}).to_string();
    assert_eq!(world.send("PUT", "/v1/budgets/uplink_bytes_per_day", cap).await.unwrap().status, 200);
    let here = look(&world, &noise).await;
    assert_eq!((&here["route"], &here["uplink_bytes"]), (&json!("local"), &json!(0)), "{here}");
    assert!(here["reason_detail"].as_str().unwrap().contains("in its smallest form"), "{here}");
    assert!(here["reason_detail"].as_str().unwrap().contains("uplink_bytes_per_day: "), "{here}");
    assert_eq!(upstream.bodies().len(), 4, "nothing of it left");
    let metrics = world.get("/metrics").await.unwrap().text();
    assert!(!metrics.contains("over_reservation"), "money has no budget here: {metrics}");
}

#[tokio::test]
async fn a_budget_that_nothing_can_predict_is_a_setting_that_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let start = async |extra: &str| World::start(folder.path(), extra).await.err().map(|error| error.to_string());
    let error = start("[budgets]\nenergy_j_per_day = 10\n").await.unwrap();
    assert!(error.contains("budgets.energy_j_per_day") && error.contains("energy.local_power_w"), "{error}");
    let quic = "[cloud]\nkind = \"quic\"\naddress = \"localhost:1\"\n[budgets]\nusd_per_hour = 1\n";
    assert!(start(quic).await.unwrap().contains("usd_per_million_prompt_tokens"));
    assert!(start("[budgets]\nusd_per_day = -1\n").await.unwrap().contains("budgets.usd_per_day"));
    assert!(start("[budgets]\nbattery_floor_percent = 20\n").await.unwrap().contains("needs an energy budget"));
    let floor =
        async |floor: &str| start(&format!("[budgets]\nusd_per_day = 1\nfloor_percent = {floor}\n")).await.unwrap();
    assert!(floor("{ usd_per_hour = 5 }").await.contains("needs budgets.usd_per_hour, which it is the floor of"));
    assert!(floor("{ usd_per_day = 101 }").await.contains("budgets.floor_percent.usd_per_day: 101 is not in 0..=100"));
    assert!(floor("{ usd_per_week = 5 }").await.contains("there is no budget \"usd_per_week\""));
    let missing = start("[budgets]\nusd_per_wek = 1\n").await.unwrap();
    assert!(missing.contains("did you mean `usd_per_day`") || missing.contains("usd_per"), "{missing}");
    assert!(start("[budgets]\nlatency_ms = 60000\nusd_per_day = 1\n").await.is_none());
}

/// With a battery that stays where it is, once it was read.
async fn at_percent(folder: &Path, percent: u32, extra: &str) -> (Upstream, World) {
    let power = format!("[power]\nsource = \"simulated\"\npercent = {percent}\npower_w = 0.001\n");
    let (upstream, world) = scene(folder, &format!("{ALWAYS_CLOUD}{extra}{power}")).await;
    while world.get("/v1/status").await.unwrap().json()["battery"]["value"].is_null() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (upstream, world)
}

#[tokio::test]
async fn nothing_is_given_from_a_budget_while_the_battery_is_at_its_floor() {
    let extra = "[budgets]\nusd_per_day = 1\nuplink_bytes_per_day = 1000000\npacing = false\n\
                 floor_percent = { usd_per_day = 30 }\n";
    let folder = tempfile::tempdir().unwrap();
    let (_upstream, above) = at_percent(folder.path(), 31, extra).await;
    assert_eq!(ask(&above, "auto").await.json()["tether"]["route"], "cloud");
    assert_eq!(budget(&above, "usd_per_day").await["at_floor"], false);

    let folder = tempfile::tempdir().unwrap();
    let (upstream, world) = at_percent(folder.path(), 30, extra).await;
    let tether = ask(&world, "auto").await.json()["tether"].clone();
    assert_eq!((&tether["route"], &tether["reason"]), (&json!("local"), &json!("over_budget")), "{tether}");
    let floor =
        "usd_per_day: nothing is given from it while the battery is at or below its floor of 30 %; it is at 30 %";
    assert!(tether["reason_detail"].as_str().unwrap().contains(floor), "{tether}");
    let refused = ask(&world, "cloud").await;
    assert_eq!((refused.status, refused.headers.get("retry-after")), (429, None), "{}", refused.text());
    assert!(refused.text().contains(floor), "{}", refused.text());
    assert!(upstream.bodies().is_empty(), "nothing left");
    let usd = budget(&world, "usd_per_day").await;
    assert_eq!((&usd["floor_percent"], &usd["at_floor"], &usd["left"]), (&json!(30.0), &json!(true), &json!(1.0)));
    let uplink = budget(&world, "uplink_bytes_per_day").await;
    assert_eq!((&uplink["floor_percent"], &uplink["at_floor"]), (&Value::Null, &json!(false)));
    // A cap that is set while running keeps the floor.
    world.send("PUT", "/v1/budgets/usd_per_day", "{\"cap\":2}").await.unwrap();
    assert_eq!(budget(&world, "usd_per_day").await["floor_percent"], 30.0);
}

#[tokio::test]
async fn the_floor_of_the_energy_budgets_is_theirs_alone_and_one_of_its_own_goes_before_it() {
    let extra = "[budgets]\nenergy_j_per_day = 100000\nenergy_j_per_mission = 100000\nusd_per_day = 1\npacing = false\n\
                 battery_floor_percent = 20\n[budgets.floor_percent]\nenergy_j_per_mission = 5\n\
                 [energy]\nlocal_power_w = 10\ncloud_power_w = 2\n";
    let folder = tempfile::tempdir().unwrap();
    let (_upstream, world) = at_percent(folder.path(), 15, extra).await;
    let mut told = Vec::new();
    for name in ["energy_j_per_day", "energy_j_per_mission", "usd_per_day"] {
        let budget = budget(&world, name).await;
        told.push((budget["floor_percent"].as_f64(), budget["at_floor"].as_bool().unwrap()));
    }
    assert_eq!(told, [(Some(20.0), true), (Some(5.0), false), (None, false)]);
    let refused = ask(&world, "auto").await;
    assert!(
        refused.status == 429 && refused.text().contains("energy_j_per_day: nothing is given"),
        "{}",
        refused.text()
    );
}

fn in_state(upstream: &Upstream) -> String {
    let ledger = "[ledger]\npath = \"state/t.db\"\n[budgets]\nusd_per_mission = 1.0\npacing = false\n";
    format!("{ALWAYS_CLOUD}{NO_MODEL}{ledger}{}{PRICES}", upstream.config())
}

/// The daemon before may hold the ledger a moment longer than it serves.
async fn start_again(folder: &Path, extra: &str) -> World {
    for _ in 0..100 {
        match World::start(folder, extra).await {
            Ok(world) => return world,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    World::start(folder, extra).await.unwrap()
}

/// Twenty turns while the ledger in `folder/state` cannot be written; then a kill, and an orderly stop: either way they
/// are counted.
async fn trouble_is_counted<T>(folder: &Path, begin_trouble: impl FnOnce(&Path) -> T, end_trouble: impl FnOnce(T)) {
    let upstream = Upstream::start(Behaviour::Answer).await.unwrap();
    let (extra, state) = (in_state(&upstream), folder.join("state"));
    let world = World::start(folder, &extra).await.unwrap();
    for _ in 0..3 {
        assert_eq!(ask(&world, "auto").await.status, 200);
    }
    let trouble = begin_trouble(&state);
    for _ in 0..20 {
        assert_eq!(ask(&world, "auto").await.status, 200, "a ledger in trouble stops no answer");
    }
    assert!(!world.get("/v1/status").await.unwrap().json()["problems"].as_array().unwrap().is_empty());
    // What a SIGKILL would leave now, elsewhere.
    let killed = tempfile::tempdir().unwrap();
    std::fs::create_dir(killed.path().join("state")).unwrap();
    for file in std::fs::read_dir(&state).unwrap() {
        let file = file.unwrap();
        if file.file_name().to_string_lossy().starts_with("t.db") {
            std::fs::copy(file.path(), killed.path().join("state").join(file.file_name())).unwrap();
        }
    }
    world.stop().await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    end_trouble(trouble);
    for (how, folder) in [("an orderly stop", folder), ("a kill", killed.path())] {
        for start in ["the first", "the second"] {
            let world = start_again(folder, &extra).await;
            let mission = budget(&world, "usd_per_mission").await;
            assert_eq!((&mission["spent"], &mission["turns"]), (&json!(0.069), &json!(23)), "{how}, {start} start");
            let problems = world.get("/v1/status").await.unwrap().json()["problems"].to_string();
            let told = problems.contains("could not be written before the last stop; the lease counts");
            assert_eq!(told, start == "the first", "{how}, {start} start: {problems}");
            world.stop().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_lock_keeps_out_of_the_ledger_is_counted_after_any_stop() {
    let folder = tempfile::tempdir().unwrap();
    let lock = |state: &Path| {
        let other = rusqlite::Connection::open(state.join("t.db")).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        other
    };
    trouble_is_counted(folder.path(), lock, |other| other.execute_batch("ROLLBACK").unwrap()).await;
}

/// Runs itself again where it may mount a file system of one megabyte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs user namespaces, or root"]
async fn what_a_full_disk_keeps_out_of_the_ledger_is_counted_after_any_stop() {
    const FOLDER: &str = "TETHER_TEST_FULL_DISK";
    if let Some(folder) = std::env::var_os(FOLDER) {
        let fill = |state: &Path| {
            let mut filler = std::fs::File::create(state.join("filler")).unwrap();
            while filler.write_all(&[7; 4_096]).is_ok() {}
            state.join("filler")
        };
        return trouble_is_counted(Path::new(&folder), fill, |filler| std::fs::remove_file(filler).unwrap()).await;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("state")).unwrap();
    let name = "what_a_full_disk_keeps_out_of_the_ledger_is_counted_after_any_stop";
    let script = format!("mount -t tmpfs -o size=1m tmpfs \"${FOLDER}/state\" && exec \"$0\" --ignored --exact {name}");
    let status = std::process::Command::new("unshare")
        .args(["-Urm", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .env(FOLDER, folder.path())
        .status();
    assert!(status.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_lock_kept_out_is_written_soon_after_it_without_another_turn() {
    let folder = tempfile::tempdir().unwrap();
    let (_upstream, world) = scene(folder.path(), &format!("{ALWAYS_CLOUD}{NO_MODEL}")).await;
    let other = rusqlite::Connection::open(folder.path().join("t.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(ask(&world, "auto").await.status, 200);
    // Long enough for a retry that fails, too.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(world.daemon.store().turn_count().await.unwrap(), 0);
    other.execute_batch("ROLLBACK").unwrap();
    for _ in 0..100 {
        if world.daemon.store().turn_count().await.unwrap() == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("nobody tried again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_boot_without_a_clock_goes_on_after_the_newest_turn() {
    let folder = tempfile::tempdir().unwrap();
    let (upstream, world) = scene(folder.path(), &format!("{ALWAYS_CLOUD}{NO_MODEL}")).await;
    // The clock stood a day later when this one was written.
    let mut newest = tether::testing::turn_record("newest");
    newest.started_unix_ms += 86_400_000;
    let seconds = newest.started_unix_ms.unsigned_abs() / 1_000;
    let id = uuid::Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, 999_000_000));
    newest.turn_id = tether_protocol::TurnId::new(id.to_string()).unwrap();
    world.daemon.store().settle(&newest, None).await.unwrap();
    world.stop().await.unwrap();
    let world = start_again(folder.path(), &format!("{ALWAYS_CLOUD}{NO_MODEL}\n{}{PRICES}", upstream.config())).await;
    let mut last = (newest.turn_id.to_string(), newest.started_unix_ms);
    for _ in 0..3 {
        let id = ask(&world, "auto").await.json()["tether"]["turn_id"].as_str().unwrap().to_owned();
        let record = world.get(&format!("/v1/turns/{id}")).await.unwrap().json();
        let now = (id, record["started_unix_ms"].as_i64().unwrap());
        assert!(now.0 > last.0 && now.1 > last.1, "{now:?} after {last:?}");
        last = now;
    }
}

#[tokio::test]
async fn joules_of_a_simulated_battery_are_called_so() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(folder.path(), "[power]\nsource = \"simulated\"\n").await.unwrap();
    // The first sample may be read after the first turn.
    for _ in 0..50 {
        let reply = ask(&world, "local").await.json();
        let id = reply["tether"]["turn_id"].as_str().unwrap().to_owned();
        let record = world.get(&format!("/v1/turns/{id}")).await.unwrap().json();
        match record["energy_source"].as_str().unwrap() {
            "simulated" => {
                assert!(record["measured"]["energy_j"].as_f64().unwrap() > 0.0, "{record}");
                return;
            }
            source => assert_eq!(source, "unknown"),
        }
    }
    panic!("no turn was told its joules");
}
