use super::load;
use super::power::PowerSource;
use super::sampler::Sampler;
use super::{hwmon, rapl, supply};
use crate::budget::EnergyMeter;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tether_protocol::Reading;
use tether_protocol::context::Machine;

/// Writes a recorded tree (`PATH = TEXT`, `|` for a new line) into a folder.
fn tree(fixture: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for line in fixture.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (path, text) = line.split_once(" = ").unwrap();
        put(folder.path(), path, &text.replace('|', "\n"));
    }
    folder
}

fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("{text}\n")).unwrap();
}

fn laptop() -> tempfile::TempDir {
    tree(include_str!("../../tests/fixtures/laptop.tree"))
}

const BATTERY: &str = "sys/class/power_supply/BAT0";

#[test]
fn a_laptop_on_its_battery() {
    let root = laptop();
    let battery = *supply::battery(root.path()).value().unwrap();
    assert_eq!((battery.percent, battery.on_ac, battery.power_w), (81.0, false, Some(9.25)));
    assert!((battery.energy_j.unwrap() - 145_800.0).abs() < 1e-6, "40.5 Wh");
    let now = PowerSource::Tree(root.path().to_owned()).read(0.0);
    assert_eq!(now.power.value().unwrap().watts, 9.25);
    assert_eq!(now.rapl.unwrap().covers(), "package-0", "its parts are counted in it");
    let machine = load::machine(root.path(), None, load::ticks(root.path()));
    assert_eq!((machine.memory_pressure_ratio, machine.temperature_c), (Some(0.025), Some(61.0)));
    put(root.path(), "sys/class/power_supply/AC/online", "1");
    put(root.path(), &format!("{BATTERY}/status"), "Charging");
    let battery = *supply::battery(root.path()).value().unwrap();
    assert_eq!((battery.on_ac, battery.power_w), (true, Some(-9.25)));
}

#[test]
fn a_gauge_in_charge_units_and_two_packs() {
    let root = laptop();
    for name in ["energy_now", "energy_full", "power_now"] {
        fs::remove_file(root.path().join(BATTERY).join(name)).unwrap();
    }
    put(root.path(), &format!("{BATTERY}/charge_now"), "2000000");
    put(root.path(), &format!("{BATTERY}/charge_full"), "4000000");
    put(root.path(), &format!("{BATTERY}/current_now"), "-1000000");
    put(root.path(), &format!("{BATTERY}/voltage_now"), "10000000");
    let battery = *supply::battery(root.path()).value().unwrap();
    assert_eq!((battery.energy_j, battery.power_w), (Some(72_000.0), Some(10.0)));
    for (name, text) in [("type", "Battery"), ("status", "Full"), ("capacity", "100"), ("energy_now", "20000000")] {
        put(root.path(), &format!("sys/class/power_supply/BAT1/{name}"), text);
    }
    put(root.path(), "sys/class/power_supply/BAT1/energy_full", "20000000");
    let battery = *supply::battery(root.path()).value().unwrap();
    assert_eq!(battery.energy_j, Some(144_000.0));
    assert!((battery.percent - 100.0 * 40.0 / 60.0).abs() < 1e-9);
}

#[test]
fn jetsons_have_no_battery_but_a_monitor() {
    let orin = tree(include_str!("../../tests/fixtures/jetson-orin-nx.tree"));
    let now = PowerSource::Tree(orin.path().to_owned()).read(0.0);
    assert!(matches!(now.battery, Reading::Unknown { unknown } if unknown == "no battery found"));
    let power = now.power.value().unwrap();
    assert!((power.watts - 6.33).abs() < 1e-9 && power.covers == "board (VDD_IN)", "{power:?}");
    let agx = tree(include_str!("../../tests/fixtures/jetson-agx-orin.tree"));
    let (watts, covers) = hwmon::board_w(agx.path()).unwrap();
    assert!((watts - 10.4).abs() < 1e-9, "{watts}");
    assert!(covers.contains("VDD_CPU_CV") && covers.contains("VDDQ_VDD2_1V8AO"), "{covers}");
    assert_eq!(hwmon::board_w(laptop().path()), None);
}

#[test]
fn a_desktop_has_counters_alone() {
    let root = tree(include_str!("../../tests/fixtures/desktop.tree"));
    let before = rapl::counters(root.path()).unwrap();
    put(root.path(), "sys/class/powercap/intel-rapl:0/energy_uj", "4000000");
    put(root.path(), "sys/class/powercap/intel-rapl:1/energy_uj", "0");
    let after = rapl::counters(root.path()).unwrap();
    let expected = 3.0 + (65_532_610_987.0 - 2e6) / 1e6;
    assert!((after.since_j(&before).unwrap() - expected).abs() < 1e-6, "the second one wrapped");
    let machine = load::machine(root.path(), load::ticks(root.path()), load::ticks(root.path()));
    assert_eq!((machine.cpu_ratio, machine.temperature_c), (None, None), "no time passed; a zone that is off");
}

/// Another user than root, in this thread alone; as whoever runs the tests if that is not root.
fn as_nobody<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let of_thread = || {
        nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65_534));
        work()
    };
    std::thread::scope(|scope| scope.spawn(of_thread).join().unwrap())
}

#[test]
fn counters_that_only_root_may_read_are_unknown_and_the_fix_is_told() {
    let root = tree(include_str!("../../tests/fixtures/desktop.tree"));
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(root.path(), 0o755);
    let source = PowerSource::Tree(root.path().to_owned());
    assert!(as_nobody(|| source.read(0.0)).rapl.is_some());
    let counter = root.path().join("sys/class/powercap/intel-rapl:0/energy_uj");
    mode(&counter, if nix::unistd::geteuid().is_root() { 0o400 } else { 0 });
    let now = as_nobody(|| source.read(0.0));
    let Reading::Unknown { unknown } = now.power else { panic!("{:?}", now.power) };
    assert!(now.rapl.is_none() && unknown.starts_with("package-0: this user may not read"), "{unknown}");
    assert!(unknown.contains("packaging/install.sh --system"), "{unknown}");

    // What is no file is told as it is.
    fs::remove_file(&counter).unwrap();
    fs::create_dir(&counter).unwrap();
    let why = rapl::counters(root.path()).unwrap_err();
    assert!(why.starts_with("package-0: energy_uj: ") && why.contains("directory"), "{why}");

    // The fix: the packaging lets the daemon's group read the packages' counters, which are those that are read.
    let rules = include_str!("../../../packaging/systemd/tmpfiles.d/tether.conf");
    let rule = rules.lines().find(|line| line.contains("powercap")).unwrap();
    let words: Vec<&str> = rule.split_whitespace().collect();
    assert!(words[1].ends_with("/intel-rapl/intel-rapl:*/energy_uj"), "{rule}");
    assert_eq!((words[0], &words[2..5]), ("z", &["0440", "root", "tether"][..]));
}

#[test]
fn nonsense_is_unknown_with_its_reason() {
    let why = |path: &str, text: &str| {
        let root = laptop();
        put(root.path(), path, text);
        match supply::battery(root.path()) {
            Reading::Unknown { unknown } => unknown,
            known => panic!("{known:?}"),
        }
    };
    assert!(why(&format!("{BATTERY}/capacity"), "250").contains("BAT0: capacity says 250 %"));
    let root = laptop();
    put(root.path(), &format!("{BATTERY}/capacity"), "0");
    assert!(supply::battery(root.path()).value().is_some(), "nearly empty with energy left is possible");
    put(root.path(), &format!("{BATTERY}/energy_now"), "0");
    assert!(matches!(supply::battery(root.path()), Reading::Unknown { .. }));
    // Garbage in the percentage: computed from the energies, as long as those are there.
    let root = laptop();
    put(root.path(), &format!("{BATTERY}/capacity"), "\u{fffd}?");
    assert_eq!(supply::battery(root.path()).value().unwrap().percent, 81.0);
    fs::remove_file(root.path().join(BATTERY).join("energy_now")).unwrap();
    assert!(matches!(supply::battery(root.path()), Reading::Unknown { .. }));
    fs::remove_file(root.path().join(BATTERY).join("status")).unwrap();
    assert!(matches!(supply::battery(root.path()), Reading::Unknown { unknown } if unknown.contains("status")));
    put(root.path(), "sys/class/powercap/intel-rapl:0/energy_uj", "many");
    assert!(rapl::counters(root.path()).unwrap_err().contains("package-0"));
}

/// A file that never answers: reading it does not block, and asking the sampler takes no time at all.
#[test]
fn a_file_that_blocks_delays_nobody() {
    let root = laptop();
    let stuck = root.path().join(BATTERY).join("status");
    fs::remove_file(&stuck).unwrap();
    nix::unistd::mkfifo(&stuck, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // A writer that says nothing: a reader that waits would wait for ever.
    let _writer = fs::OpenOptions::new().read(true).write(true).open(&stuck).unwrap();
    let sampler = Sampler::start_with(
        PowerSource::Tree(root.path().to_owned()),
        root.path().to_owned(),
        Duration::from_millis(10),
    );
    let mut slowest = Duration::ZERO;
    for _ in 0..200 {
        let start = Instant::now();
        let battery = sampler.battery();
        slowest = slowest.max(start.elapsed());
        assert!(battery.value().is_none());
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(matches!(sampler.battery(), Reading::Unknown { unknown } if unknown.contains("BAT0: status")));
    // Typically a microsecond; a busy machine may take the processor away for a while.
    assert!(slowest < Duration::from_millis(100), "{slowest:?}");
}

/// A driver that hangs in the middle of a sample, whichever file it is behind: what was read last is told meanwhile.
#[test]
fn a_reading_under_way_delays_nobody() {
    let source = PowerSource::Simulated { capacity_j: 1_000.0, start_percent: 50.0, power_w: 1.0 };
    let (begun, begins) = mpsc::channel();
    let (let_go, held) = mpsc::channel::<()>();
    let mut samples = 0;
    let sampler = Sampler::start_reading(Duration::from_millis(1), move || {
        samples += 1;
        if samples == 2 {
            begun.send(()).unwrap();
            // Until the test lets go, or ends.
            let _ = held.recv();
        }
        (source.read(0.0), Machine::default())
    });
    begins.recv_timeout(Duration::from_secs(30)).unwrap();
    let (told, answers) = mpsc::channel();
    std::thread::spawn(move || {
        let known = sampler.battery().value().is_some() && sampler.power().value().is_some();
        told.send(known && sampler.machine().value().is_some() && sampler.total_j().is_some())
    });
    let answered = answers.recv_timeout(Duration::from_secs(5));
    let_go.send(()).unwrap();
    assert_eq!(answered, Ok(true), "while the second reading hangs");
}

#[test]
fn no_more_than_so_many_zones_are_looked_at() {
    let root = tempfile::tempdir().unwrap();
    let zone = |number: usize, milli: &str| {
        put(root.path(), &format!("sys/class/thermal/thermal_zone{number:04}/temp"), milli)
    };
    (0..=load::MAX_ZONES).for_each(|number| zone(number, "40000"));
    // Cooling devices sort before the zones and are none.
    put(root.path(), "sys/class/thermal/cooling_device0/temp", "99000");
    zone(load::MAX_ZONES, "90000");
    let temperature_c = || load::machine(root.path(), None, None).temperature_c;
    assert_eq!(temperature_c(), Some(40.0), "the last zone is one too many");
    zone(load::MAX_ZONES - 1, "80000");
    assert_eq!(temperature_c(), Some(80.0));
}

/// A driver that hangs for good hangs the sampler's thread: what it read last grows old, and then is unknown.
#[test]
fn what_a_hanging_thread_read_last_grows_old() {
    let read =
        |ago_s| super::sampler::aged(Reading::known(81.0, 0, "sysfs"), Instant::now() - Duration::from_secs(ago_s));
    assert!(matches!(read(14), Reading::Known { value: 81.0, age_ms: 14_000.., .. }));
    assert!(matches!(read(16), Reading::Unknown { unknown } if unknown.contains("blocks or is gone")));
}

/// Files that vanish, come back, and say impossible things while the sampler runs: it says so each time, and goes on.
#[test]
fn files_that_come_and_go_are_told_as_they_are() {
    let root = laptop();
    let source = PowerSource::Tree(root.path().to_owned());
    let sampler = Sampler::start_with(source, root.path().to_owned(), Duration::from_millis(5));
    let until = |expected: &dyn Fn(&Reading<tether_protocol::context::Battery>) -> bool, what: &str| {
        let begun = Instant::now();
        while !expected(&sampler.battery()) {
            assert!(begun.elapsed() < Duration::from_secs(30), "{what}: {:?}", sampler.battery());
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    until(&|battery| battery.value().is_some_and(|battery| battery.percent == 81.0), "at first");
    let (folder, away) = (root.path().join(BATTERY), root.path().join("away"));
    fs::rename(&folder, &away).unwrap();
    until(&|battery| matches!(battery, Reading::Unknown { unknown } if unknown == "no battery found"), "gone");
    fs::rename(&away, &folder).unwrap();
    until(&|battery| battery.value().is_some(), "back");
    put(root.path(), &format!("{BATTERY}/capacity"), "250");
    until(&|battery| matches!(battery, Reading::Unknown { unknown } if unknown.contains("250 %")), "250 %");
    put(root.path(), &format!("{BATTERY}/capacity"), "80");
    until(&|battery| battery.value().is_some_and(|battery| battery.percent == 80.0), "sane again");
}

#[test]
fn the_meter_adds_up_and_never_runs_back() {
    let source = PowerSource::Simulated { capacity_j: 1_000.0, start_percent: 50.0, power_w: 100.0 };
    let sampler = Sampler::start_with(source, "/nowhere".into(), Duration::from_millis(5));
    let start = Instant::now();
    let first = loop {
        if let Some(total_j) = sampler.total_j() {
            break total_j;
        }
        assert!(start.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(1));
    };
    let begun = Instant::now();
    let mut last = first;
    while begun.elapsed() < Duration::from_millis(200) {
        let now = sampler.total_j().unwrap();
        assert!(now >= last, "{now} after {last}");
        last = now;
        std::thread::sleep(Duration::from_millis(3));
    }
    let expected = 100.0 * begun.elapsed().as_secs_f64();
    assert!((last - first) > 0.5 * expected && (last - first) < 2.0 * expected, "{} of {expected}", last - first);
    let battery = *sampler.battery().value().unwrap();
    assert!(battery.percent < 50.0 && !battery.on_ac, "{battery:?}");
}
