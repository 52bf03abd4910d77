//! `tether budget`, `turns` and `explain`: asked of a daemon that answers turns, and of its ledger's file without one.

use super::{Ran, run};
use serde_json::{Value, json};
use std::path::Path;
use tether::testing::{Behaviour, Upstream, World};

/// Three answer tokens at this price cost 0.003 USD.
const PRICES: &str = "usd_per_million_prompt_tokens = 0\nusd_per_million_completion_tokens = 1000\n";

async fn scene(folder: &Path, extra: &str) -> (Upstream, World) {
    let upstream = Upstream::start(Behaviour::Answer).await.unwrap();
    let world = World::start(folder, &format!("{extra}\n{}{PRICES}", upstream.config())).await.unwrap();
    (upstream, world)
}

/// A turn's id.
async fn ask(world: &World, tether: Value) -> String {
    let reply = world.ask("hello", json!({"max_tokens": 3, "tether": tether})).await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()["tether"]["turn_id"].as_str().unwrap().to_owned()
}

async fn done(socket: &Path, args: &[&str]) -> String {
    let Ran { code, out, err } = run(socket, args, "").await;
    assert_eq!((code, err.as_str()), (Some(0), ""), "{args:?}: {out}");
    out
}

#[tokio::test]
async fn budgets_are_shown_set_reset_and_unset() {
    let folder = tempfile::tempdir().unwrap();
    let (_upstream, world) = scene(folder.path(), "").await;
    let socket = world.socket();
    assert!(done(&socket, &["budget"]).await.contains("no budgets: nothing is limited"));
    let set = done(&socket, &["budget", "set", "usd_per_mission", "0.007"]).await;
    assert!(
        set.contains("usd_per_mission  $0 of $0.007 spent, $0.007 left") && set.contains("set while running"),
        "{set}"
    );
    ask(&world, json!({"route": "cloud"})).await;
    let shown = done(&socket, &["budget", "show"]).await;
    assert!(shown.contains("$0.003 of $0.007 spent, $0.004 left") && shown.contains("1 turns since"), "{shown}");
    assert!(shown.contains("when nothing fits: refuse; spending is paced"), "{shown}");

    let json: Value =
        done(&socket, &["budget", "set", "uplink_bytes_per_hour", "20MB", "--json"]).await.parse().unwrap();
    assert_eq!(
        (&json["budgets"][1]["name"], &json["budgets"][1]["cap"]),
        (&json!("uplink_bytes_per_hour"), &json!(2e7))
    );
    let reset = done(&socket, &["budget", "reset", "usd_per_mission"]).await;
    assert!(reset.contains("$0 of $0.007 spent") && reset.contains("0 turns since"), "{reset}");
    let unset = done(&socket, &["budget", "unset", "usd_per_mission"]).await;
    assert!(!unset.contains("usd_per_mission") && unset.contains("uplink_bytes_per_hour"), "{unset}");

    for (args, code, why) in [
        (&["set", "usd_per_week", "1"][..], 2, "_per_mission"),
        (&["set", "usd_per_day", "ten"], 2, "\"ten\" is no amount of usd"),
        (&["set", "energy_j_per_day", "40Wh"], 1, "energy.local_power_w"),
        (&["reset", "usd_per_day"], 1, "tether budget set usd_per_day CAP"),
    ] {
        let ran = run(&socket, &[&["budget"], args].concat(), "").await;
        assert!(ran.code == Some(code) && ran.err.contains(why), "{args:?}: {:?} {}", ran.code, ran.err);
    }
}

#[tokio::test]
async fn a_floor_is_shown_and_that_it_is_reached() {
    let floors = "[budgets]\nusd_per_day = 1\nuplink_bytes_per_day = 1000000\n\
                  floor_percent = { usd_per_day = 30, uplink_bytes_per_day = 10 }\n\
                  [power]\nsource = \"simulated\"\npercent = 25\npower_w = 0.001\n";
    let folder = tempfile::tempdir().unwrap();
    let (_upstream, world) = scene(folder.path(), floors).await;
    let shown = loop {
        let shown = done(&world.socket(), &["budget"]).await;
        // The battery is read a moment after the start.
        if !shown.contains("battery floor 30 %") {
            break shown;
        }
    };
    let reached = "nothing is given: the battery is at or below its floor of 30 %";
    assert!(shown.contains(reached) && shown.contains("battery floor 10 %"), "{shown}");
    let status = done(&world.socket(), &["status"]).await;
    let of = |name: &str| status.lines().find(|line| line.contains(name)).unwrap_or_default().to_owned();
    assert!(of("usd_per_day").ends_with(&format!("$1 left, {reached}")), "{status}");
    assert!(of("uplink_bytes_per_day").ends_with("left, battery floor 10 %"), "{status}");
    let status: Value = done(&world.socket(), &["status", "--json"]).await.parse().unwrap();
    let floors = status["budgets"].as_array().unwrap().iter().map(|budget| {
        (
            budget["name"].as_str().unwrap(),
            budget["floor_percent"].as_f64().unwrap(),
            budget["at_floor"].as_bool().unwrap(),
        )
    });
    let floors: Vec<_> = floors.collect();
    assert!(floors.contains(&("usd_per_day", 30.0, true)), "{floors:?}");
    assert!(floors.contains(&("uplink_bytes_per_day", 10.0, false)), "{floors:?}");
    let refused = run(&world.socket(), &["ask", "hello", "--route", "cloud", "--max-tokens", "3"], "").await;
    assert!(refused.code == Some(1) && refused.err.contains("its floor of 30 %; it is at 25 %"), "{}", refused.err);
}

#[tokio::test]
async fn turns_are_listed_and_explained_by_the_daemon_and_from_the_file_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (_upstream, world) = scene(folder.path(), "[budgets]\nusd_per_day = 1\npacing = false\n").await;
    let ids = [
        ask(&world, json!({"route": "local", "session": "kitchen"})).await,
        ask(&world, json!({"route": "cloud", "session": "kitchen"})).await,
        ask(&world, json!({"route": "local"})).await,
    ];
    let socket = world.socket();
    let ledger = folder.path().join("t.db").to_string_lossy().into_owned();
    let listed = ["turns", "--json", "-n", "2"];
    let second = ["turns", "--json", "-n", "2", "--before", &ids[1]];
    let kitchen = ["turns", "--json", "--session", "kitchen"];
    let words = ["turns", "--limit", "2"];
    let (explained, record) = (["explain", &ids[1]], ["explain", &ids[1], "--json"]);
    let every: [&[&str]; 6] = [&listed, &second, &kitchen, &words, &explained, &record];
    let mut told = Vec::new();
    for args in every {
        told.push(done(&socket, args).await);
    }

    let of = |text: &str| {
        let records = text.lines().map(|line| line.parse::<Value>().unwrap());
        records.map(|record| record["turn_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(of(&told[0]), [ids[2].as_str(), &ids[1]], "newest first");
    assert_eq!((of(&told[1]), of(&told[2])), (vec![ids[0].clone()], vec![ids[1].clone(), ids[0].clone()]));
    let page = &told[3];
    assert!(page.contains(&ids[2]) && page.contains(&ids[1]) && !page.contains(&ids[0]), "{page}");
    assert!(page.contains(&format!("older turns: tether turns --before {}", ids[1])), "{page}");
    for sentence in [
        format!("Turn {} came from ", ids[1]),
        "in session kitchen".into(),
        "Left of the budgets before it: usd_per_day 1. Reserved for it: $0.003".into(),
        "chose cloud with text alone".into(),
        "The cloud (far-1) answered, done".into(),
        ", $0.003, J unknown, up ".into(),
        "Nobody has rated it.".into(),
    ] {
        assert!(told[4].contains(&sentence), "{sentence:?} is not in:\n{}", told[4]);
    }
    let record: Value = told[5].parse().unwrap();
    assert_eq!((&record["turn_id"], &record["route"]), (&json!(ids[1]), &json!("cloud")));
    let unknown = run(&socket, &["explain", "turn-of-nobody"], "").await;
    assert!(unknown.code == Some(1) && unknown.err.contains("has no turn turn-of-nobody"), "{}", unknown.err);

    world.stop().await.unwrap();
    let nowhere = Path::new("/nowhere/t.sock");
    for (args, told) in every.into_iter().zip(told) {
        let from_file = done(nowhere, &[args, &["--ledger", &ledger]].concat()).await;
        assert_eq!(from_file.replace(&format!(" --ledger {ledger}"), ""), told, "{args:?}");
        assert_eq!(run(nowhere, args, "").await.code, Some(1), "without the file the daemon is asked: {args:?}");
    }
    let unknown = run(nowhere, &["explain", "--ledger", &ledger, "turn-of-nobody"], "").await;
    assert!(unknown.code == Some(1) && unknown.err.contains("t.db has no turn turn-of-nobody"), "{}", unknown.err);
    let missing = run(nowhere, &["turns", "--ledger", "/nowhere/other.db"], "").await;
    assert!(missing.code == Some(1) && missing.err.contains("/nowhere/other.db does not exist"), "{}", missing.err);
}

#[tokio::test]
async fn a_refused_turn_is_listed_explained_reported_and_exported_and_is_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let (_upstream, world) = scene(folder.path(), "[budgets]\nusd_per_day = 0.004\n").await;
    ask(&world, json!({"route": "cloud"})).await;
    let refused = run(&world.socket(), &["ask", "hello", "--route", "cloud", "--max-tokens", "3"], "").await;
    assert!(refused.code == Some(1) && refused.err.contains("usd_per_day: 0.003 needed"), "{}", refused.err);
    world.stop().await.unwrap();

    let ledger = folder.path().join("t.db").to_string_lossy().into_owned();
    let from_file = |args: &'static [&str]| {
        let ledger = ledger.clone();
        async move { done(Path::new("/nowhere/t.sock"), &[args, &["--ledger", &ledger]].concat()).await }
    };
    let listed = from_file(&["turns"]).await;
    assert!(listed.contains("  refused\n    insufficient_quota: no action fits the budgets"), "{listed}");
    let record: Value = from_file(&["turns", "--json", "-n", "1"]).await.parse().unwrap();
    assert_eq!((&record["outcome"], &record["reserved"]), (&json!("refused"), &json!(null)));
    let id = record["turn_id"].as_str().unwrap();
    let told = done(Path::new("/nowhere/t.sock"), &["explain", id, "--ledger", &ledger]).await;
    for sentence in [
        "Not affordable, with what each was predicted to cost: cloud with text alone (",
        "Left of the budgets: usd_per_day 0.001.",
        "It was refused, because: no action fits the budgets (usd_per_day: 0.003 needed, 0.001 left",
        "Nobody was asked, nothing was reserved, and nothing left the device.",
        "It may be possible from 20",
    ] {
        assert!(told.contains(sentence), "{sentence:?} is not in:\n{told}");
    }
    assert!(!told.contains("chose") && !told.contains("Permitted"), "{told}");

    let report: Value = from_file(&["report", "--json"]).await.parse().unwrap();
    let counted =
        ["turns", "local", "cloud", "refused", "failed", "unknown_costs", "cost_usd"].map(|name| report[name].as_f64());
    assert_eq!(counted, [2.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.003].map(Some), "{report}");
    assert!(from_file(&["report"]).await.contains("refused"));
    let exported = |format: &'static str| {
        let ledger = ledger.clone();
        async move { run(Path::new("/nowhere"), &["export", "--format", format, "--ledger", &ledger], "").await.out }
    };
    let table = exported("csv").await;
    assert!(table.contains(",refused,") && table.contains(",answered,"), "{table}");
    let rows: Vec<Value> = exported("jsonl").await.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!((rows.len(), &rows[1]["turn_id"]), (2, &record["turn_id"]));
}
