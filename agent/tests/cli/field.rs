//! `tether replay`, `export` and `report` on one field test, as a shell sees them.

use super::{Ran, run};
use serde_json::Value;
use std::fmt::Write;
use std::path::Path;

async fn tether(args: &[&str]) -> Ran {
    run(Path::new("/nowhere"), args, "").await
}

fn write(path: &Path, rows: impl Iterator<Item = String>) {
    let mut text = "t_s,down_mbps,up_mbps,rtt_ms\n".to_owned();
    rows.for_each(|row| writeln!(text, "{row}").unwrap());
    std::fs::write(path, text).unwrap();
}

#[tokio::test]
async fn a_replay_is_the_same_to_the_byte_and_its_ledger_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    write(Path::new(&at("link.csv")), (0..120).map(|t| format!("{t},,{},30", t % 7)));
    let trace = at("link.csv");
    let replay = |seed: &'static str, more: &[&str]| {
        let mut args = vec!["replay", "--trace", &trace, "--hours", "2", "--seed", seed, "--json"];
        args.extend(["--budget", "uplink_bytes_per_mission=5e6"]);
        args.extend(more);
        args.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let ran = |args: Vec<String>| async move { tether(&args.iter().map(String::as_str).collect::<Vec<_>>()).await };
    let first = ran(replay("7", &[])).await;
    assert_eq!((first.code, first.err.as_str()), (Some(0), ""), "{}", first.out);
    assert_eq!(first.out, ran(replay("7", &[])).await.out);
    assert_ne!(first.out, ran(replay("8", &[])).await.out);
    let outcomes: Value = serde_json::from_str(&first.out).unwrap();
    assert_eq!(outcomes["outcomes"].as_array().unwrap().len(), 5);
    let fixed = ran(replay("7", &["--pictures", "fixed"])).await;
    let fixed: Value = serde_json::from_str(&fixed.out).unwrap();
    assert_eq!((&outcomes["pictures"], &fixed["pictures"]), (&"sized".into(), &"fixed".into()));
    assert_ne!(outcomes["outcomes"], fixed["outcomes"]);

    let (ledger, page) = (at("field.db"), at("page.html"));
    let one = ran(replay("7", &["--policy", "tether", "--ledger", &ledger, "-o", &page])).await;
    assert_eq!(one.code, Some(0), "{}", one.err);
    let one: Value = serde_json::from_str(&one.out).unwrap();
    assert!(std::fs::read_to_string(&page).unwrap().contains("Battery"));
    let caps = ["--budget", "uplink_bytes_per_mission=5e6", "--mission-h", "2"];
    let mut args = vec!["report", "--ledger", &ledger, "--json", "-o", &page];
    args.extend(caps);
    let report = tether(&args).await;
    assert_eq!(report.code, Some(0), "{}", report.err);
    let report: Value = serde_json::from_str(&report.out).unwrap();
    for same in ["turns", "cloud", "local", "uplink_bytes", "budget_left"] {
        assert_eq!(report[same], one["outcomes"][0][same], "{same}");
    }
    let exported = tether(&["export", "--format", "jsonl", "--ledger", &ledger]).await;
    assert_eq!(exported.out.lines().count() as u64, report["turns"].as_u64().unwrap());
    let again = ran(replay("7", &["--policy", "tether", "--ledger", &ledger])).await;
    assert!(again.code == Some(1) && again.err.contains("exists already"), "{}", again.err);
    let several = ran(replay("7", &["--ledger", &ledger])).await;
    assert!(several.code == Some(2) && several.err.contains("one trace"), "{}", several.err);
}

#[tokio::test]
async fn a_bad_trace_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    for (rows, problem) in [
        (&["0,,nan,", "1,,2,"][..], "line 2, up_mbps"),
        (&["0,,1,"], "two rows"),
        (&["0,,1,", "5,,1,", "3,,1,"], "line 4, t_s"),
        (&["0,,0,", "1,,0,"], "never up"),
    ] {
        let path = folder.path().join("bad.csv");
        write(&path, rows.iter().map(|row| (*row).to_owned()));
        let ran = tether(&["replay", "--trace", &path.to_string_lossy()]).await;
        assert!(ran.code == Some(1) && ran.err.contains("bad.csv") && ran.err.contains(problem), "{}", ran.err);
    }
    // Rows that are missing are an outage, not an error.
    let gap = folder.path().join("gap.csv");
    write(&gap, [0, 1, 40, 41].into_iter().map(|t| format!("{t},,4,20")));
    let gap = gap.to_string_lossy();
    let ran = tether(&["replay", "--trace", &gap, "--policy", "always-cloud", "--hours", "2", "--json"]).await;
    let outcome: Value = serde_json::from_str(&ran.out).unwrap();
    assert!(outcome["outcomes"][0]["fell_back"].as_u64().unwrap() > 0, "{}", ran.out);
    let cellular = folder.path().join("cellular.csv");
    write(&cellular, (0..9).map(|t| format!("{t},20,0.1,40")));
    let ran = tether(&["replay", "--trace", &cellular.to_string_lossy(), "--uplink-share", "0.2"]).await;
    assert!(ran.err.contains("0.2 of it"), "{}", ran.err);
    let wrong = tether(&["replay", "--trace", "x.csv", "--policy", "magic"]).await;
    assert!(wrong.code == Some(2) && wrong.err.contains("cloud-then-local"), "{}", wrong.err);
}

#[tokio::test]
async fn a_replayed_budget_may_have_a_floor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("link.csv");
    write(&path, (0..120).map(|t| format!("{t},,5,30")));
    let replay = async |budget: &str| {
        let args =
            ["replay", "--trace", &path.to_string_lossy(), "--policy", "cloud-then-local", "--hours", "2", "--json"];
        tether(&[&args[..], &["--budget", budget]].concat()).await
    };
    let cloud = async |budget: &str| {
        let ran = replay(budget).await;
        let outcomes: Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{}", ran.err));
        outcomes["outcomes"][0]["cloud"].as_u64().unwrap()
    };
    let (free, half, none) = (
        cloud("usd_per_mission=50").await,
        cloud("usd_per_mission=50@85").await,
        cloud("usd_per_mission=50@100%").await,
    );
    assert!(free > half && half > 0 && none == 0, "{free}, {half}, {none}");
    let wrong = replay("usd_per_mission=50@full").await;
    assert!(wrong.code == Some(2) && wrong.err.contains("no percentage"), "{}", wrong.err);
}
