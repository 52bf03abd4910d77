//! The repository's own shape, held by a test: what a reviewer would otherwise have to look for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One honest large file is welcome; a second thousand lines is a second file.
const MAX_SOURCE_LINES: usize = 1_000;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every file that git tracks or would track; outside a checkout, every file that is not build output.
fn files() -> Vec<PathBuf> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .ok()
        .filter(|output| output.status.success());
    let Some(listed) = listed else { return walk(&root()) };
    let text = String::from_utf8(listed.stdout).unwrap();
    text.lines().map(|line| root().join(line)).filter(|path| path.is_file()).collect()
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let skipped = |path: &Path| {
        path.file_name().is_some_and(|name| {
            let name = name.to_string_lossy();
            name.starts_with("target") || name == ".git" || name == ".cache"
        })
    };
    entries
        .filter(|path| !skipped(path))
        .flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] })
        .collect()
}

fn with_extension(extension: &str) -> Vec<(PathBuf, String)> {
    let chosen = files().into_iter().filter(|path| path.extension().is_some_and(|found| found == extension));
    chosen.map(|path| (path.clone(), fs::read_to_string(&path).unwrap())).collect()
}

#[test]
fn source_files_stay_readable() {
    let sources = with_extension("rs");
    assert!(sources.len() > 20, "the walk found only {} sources", sources.len());
    for (path, text) in sources {
        let shown = path.display();
        assert!(text.lines().count() <= MAX_SOURCE_LINES, "{shown} has more than {MAX_SOURCE_LINES} lines");
        assert!(path.file_name().unwrap() != "mod.rs", "{shown}: write foo.rs beside foo/");
        for (number, line) in text.lines().enumerate() {
            assert!(!line.ends_with([' ', '\t']), "{shown}:{}: trailing space", number + 1);
            let left_over = ["todo!(", "unimplemented!("].iter().any(|word| line.contains(word));
            assert!(!left_over || shown.to_string().ends_with("tidy.rs"), "{shown}:{}: unfinished", number + 1);
        }
    }
}

/// An `unwrap` in a program is an error without words. Clippy's lint for it also counts the helpers of integration
/// tests, where an unwrap is the assertion.
#[test]
fn programs_do_not_unwrap() {
    for (path, text) in with_extension("rs") {
        let shown = path.strip_prefix(root()).unwrap().display().to_string();
        let program = shown.contains("/src/") && !shown.contains("test");
        let code = text.split("#[cfg(test)]").next().unwrap();
        let found = code.lines().position(|line| line.contains(".unwrap()") && !line.trim_start().starts_with("//"));
        assert!(!program || found.is_none(), "{shown}:{}: unwrap", found.unwrap_or_default() + 1);
    }
}

#[test]
fn every_crate_takes_lints_and_versions_from_the_workspace() {
    for (path, text) in with_extension("toml") {
        let is_member = path.file_name().unwrap() == "Cargo.toml"
            && path.parent().unwrap() != root()
            && !path.components().any(|part| part.as_os_str() == "fuzz");
        if !is_member {
            continue;
        }
        let shown = path.display();
        assert!(text.contains("[lints]\nworkspace = true"), "{shown} does not take the workspace's lints");
        let dependencies = text.split("[dependencies]").nth(1).unwrap_or("");
        for line in dependencies.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')) {
            assert!(!line.contains("version ="), "{shown}: {line:?} belongs in the root Cargo.toml");
        }
    }
}

#[test]
fn the_crates_know_only_what_the_architecture_allows() {
    let forbidden = [
        ("protocol", &["tokio", "candle-core", "burn", "quinn", "axum"][..]),
        ("models", &["tokio", "quinn", "axum", "tether-policies", "tether-protocol"][..]),
        ("policies", &["tokio", "candle-core", "quinn", "tether-models"][..]),
        ("report", &["tokio", "tether-protocol", "tether-policies", "tether-models"][..]),
        ("lab", &["tether.workspace", "tether-cloud"][..]),
        ("cloud-stub", &["tether.workspace"][..]),
        ("agent", &["tether-cloud.workspace", "burn"][..]),
    ];
    for (folder, names) in forbidden {
        let text = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        let dependencies = text.split("[dev-dependencies]").next().unwrap();
        for name in names {
            let found = dependencies
                .lines()
                .any(|line| line.starts_with(&format!("{name}.")) || line.starts_with(name) && name.contains('.'));
            assert!(!found, "{folder} must not depend on {name}");
        }
    }
}

#[test]
fn the_make_targets_that_the_documents_name_exist() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let has = |target: &str| makefile.lines().any(|line| line.starts_with(&format!("{target}:")));
    for (path, text) in with_extension("md") {
        let named = text.match_indices("`make ").map(|(at, _)| &text[at + 6..]);
        for rest in named {
            let target: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
            assert!(target.is_empty() || has(&target), "{}: no `make {target}`", path.display());
        }
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    for (path, text) in with_extension("md") {
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split([')', '#', ' ']).next().unwrap();
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let file = path.parent().unwrap().join(target);
            assert!(file.exists(), "{}: link to {target}, which does not exist", path.display());
        }
    }
}

#[test]
fn shell_scripts_stop_at_the_first_error() {
    for (path, text) in with_extension("sh") {
        assert!(text.contains("set -eu"), "{}: add `set -eu`", path.display());
    }
}
