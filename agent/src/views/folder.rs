//! A folder into which a camera's driver writes pictures: the newest whole one is its frame.
//!
//! Polled, not watched with inotify: a folder on a network share, in a container's mount or in FUSE tells of no changes,
//! and half a second is soon enough for a picture that a dialogue is about. [`Folder`] looks; whoever calls it does so on a
//! thread that may hang.

use bytes::Bytes;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tether_protocol::limits::MAX_IMAGE_BYTES;

/// A driver that deletes nothing fills its folder; looking at more than these files twice a second is work that shows.
const MAX_FILES: usize = 10_000;
/// The newest file may be half written; those before it are tried, too.
const TRIED: usize = 3;
/// A file further in the future than this was written before the clock was set back; how old it is nobody knows.
const AHEAD: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FolderError {
    #[error("{}: {problem}", .path.display())]
    Unreadable { path: PathBuf, problem: String },
    #[error("{}: more than {MAX_FILES} files; delete old pictures", .path.display())]
    TooMany { path: PathBuf },
}

/// A picture that was not there before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub bytes: Bytes,
    pub age: Duration,
}

/// One camera's folder, and what was last taken from it.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    taken: Option<Candidate>,
}

/// A picture's file, as it was when somebody looked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    modified: SystemTime,
    path: PathBuf,
    bytes: u64,
}

impl Folder {
    pub fn new(path: PathBuf) -> Self {
        Self { path, taken: None }
    }

    /// The newest whole picture, if it is newer than the last one and at most `max_age` old.
    ///
    /// # Errors
    /// The folder cannot be read, or holds too much.
    pub fn look(&mut self, now: SystemTime, max_age: Duration) -> Result<Option<Found>, FolderError> {
        let latest = now + AHEAD;
        self.taken.take_if(|taken| taken.modified > latest);
        for candidate in newest(&self.path, latest)? {
            let age = now.duration_since(candidate.modified).unwrap_or(Duration::ZERO);
            let is_old = self.taken.as_ref().is_some_and(|taken| candidate <= *taken);
            if is_old || age > max_age {
                return Ok(None);
            }
            // A file that is gone meanwhile, or half written, is no fault: the next look finds the next one.
            if let Some(bytes) = read(&candidate.path).ok().filter(|bytes| is_whole(bytes)) {
                self.taken = Some(candidate);
                return Ok(Some(Found { bytes: bytes.into(), age }));
            }
        }
        Ok(None)
    }
}

/// The newest few pictures by their time of change, newest first.
fn newest(folder: &Path, latest: SystemTime) -> Result<Vec<Candidate>, FolderError> {
    let unreadable = |error: io::Error| FolderError::Unreadable { path: folder.to_owned(), problem: error.to_string() };
    let mut found: Vec<Candidate> = Vec::new();
    for (count, entry) in fs::read_dir(folder).map_err(unreadable)?.enumerate() {
        if count >= MAX_FILES {
            return Err(FolderError::TooMany { path: folder.to_owned() });
        }
        let path = entry.map_err(unreadable)?.path();
        let Some(candidate) = candidate(path).filter(|candidate| candidate.modified <= latest) else { continue };
        found.push(candidate);
        if found.len() > TRIED {
            found.sort_by(|a, b| b.cmp(a));
            found.truncate(TRIED);
        }
    }
    found.sort_by(|a, b| b.cmp(a));
    Ok(found)
}

fn candidate(path: PathBuf) -> Option<Candidate> {
    let extension = path.extension()?.to_str()?.to_lowercase();
    if !["jpg", "jpeg", "png"].contains(&extension.as_str()) {
        return None;
    }
    // Through links, as drivers keep `latest.jpg`.
    let about = fs::metadata(&path).ok()?;
    let fits = about.is_file() && (1..=MAX_IMAGE_BYTES as u64).contains(&about.len());
    fits.then_some(())?;
    Some(Candidate { modified: about.modified().ok()?, path, bytes: about.len() })
}

/// At most one byte over the limit, from a file that cannot make anybody wait.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path)?;
    let mut bytes = Vec::new();
    file.take(MAX_IMAGE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether the picture has its end: a JPEG's marker (some drivers fill up with zeros behind it), a PNG's last chunk.
fn is_whole(bytes: &[u8]) -> bool {
    const PNG_END: &[u8] = b"\0\0\0\0IEND\xaeB`\x82";
    if bytes.starts_with(b"\x89PNG") {
        return bytes.ends_with(PNG_END);
    }
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes[..end].ends_with(&[0xff, 0xd9])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image_codec::testing::{jpeg, picture, png};
    use std::fs::File;

    const MAX_AGE: Duration = Duration::from_secs(10);

    struct Camera {
        folder: tempfile::TempDir,
        now: SystemTime,
    }

    impl Camera {
        fn new() -> (Self, Folder) {
            let folder = tempfile::tempdir().unwrap();
            let look = Folder::new(folder.path().to_owned());
            (Self { folder, now: SystemTime::now() }, look)
        }

        /// Writes a file that was changed so many seconds before now.
        fn put(&self, name: &str, bytes: &[u8], age_s: f64) {
            let path = self.folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            let modified = match age_s < 0.0 {
                true => self.now + Duration::from_secs_f64(-age_s),
                false => self.now - Duration::from_secs_f64(age_s),
            };
            File::options().append(true).open(&path).unwrap().set_modified(modified).unwrap();
        }

        fn look(&self, folder: &mut Folder) -> Option<Vec<u8>> {
            folder.look(self.now, MAX_AGE).unwrap().map(|found| found.bytes.to_vec())
        }
    }

    #[test]
    fn the_newest_picture_is_taken_once() {
        let (camera, mut folder) = Camera::new();
        assert_eq!(camera.look(&mut folder), None, "an empty folder");
        let (old, new) = (jpeg(40, 30), png(picture(50, 30)));
        camera.put("a.jpg", &old, 5.0);
        camera.put("b.PNG", &new, 2.0);
        camera.put("notes.txt", b"no picture", 0.0);
        assert_eq!(camera.look(&mut folder).as_deref(), Some(&new[..]));
        assert_eq!(camera.look(&mut folder), None, "it was taken already");
        camera.put("a.jpg", &old, 1.0);
        let found = folder.look(camera.now, MAX_AGE).unwrap().unwrap();
        assert_eq!((&found.bytes[..], found.age), (&old[..], Duration::from_secs(1)), "written over");
    }

    #[test]
    fn half_a_picture_waits_for_its_other_half() {
        let (camera, mut folder) = Camera::new();
        let (whole, next) = (jpeg(64, 48), jpeg(80, 60));
        camera.put("1.jpg", &whole, 3.0);
        camera.put("2.jpg", &next[..next.len() / 2], 1.0);
        assert_eq!(camera.look(&mut folder).as_deref(), Some(&whole[..]), "the one before it");
        assert_eq!(camera.look(&mut folder), None);
        camera.put("2.jpg", &[&next[..], &[0; 512]].concat(), 0.5);
        assert_eq!(camera.look(&mut folder).unwrap().len(), next.len() + 512, "filled up with zeros");
        let png = png(picture(50, 30));
        camera.put("3.png", &png[..png.len() - 1], 0.2);
        assert_eq!(camera.look(&mut folder), None);
    }

    #[test]
    fn old_huge_and_strange_files_are_left_alone() {
        let (camera, mut folder) = Camera::new();
        camera.put("old.jpg", &jpeg(40, 30), 11.0);
        camera.put("empty.jpg", b"", 0.0);
        camera.put("huge.jpg", &vec![0xff; MAX_IMAGE_BYTES + 1], 0.0);
        fs::create_dir(camera.folder.path().join("folder.jpg")).unwrap();
        let pipe = camera.folder.path().join("pipe.jpg");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink("nowhere", camera.folder.path().join("link.jpg")).unwrap();
        assert_eq!(camera.look(&mut folder), None);
        camera.put("soon.jpg", &jpeg(30, 30), -1.0);
        assert_eq!(folder.look(camera.now, MAX_AGE).unwrap().unwrap().age, Duration::ZERO);
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_stop_the_camera() {
        let (mut camera, mut folder) = Camera::new();
        camera.put("1.jpg", &jpeg(30, 30), 0.0);
        assert!(camera.look(&mut folder).is_some());
        camera.now -= Duration::from_secs(3_600);
        assert_eq!(camera.look(&mut folder), None, "a picture from the future");
        let picture = jpeg(40, 30);
        camera.put("2.jpg", &picture, 0.5);
        assert_eq!(camera.look(&mut folder).as_deref(), Some(&picture[..]));
    }

    #[test]
    fn a_folder_that_is_gone_or_full_says_so() {
        let mut gone = Folder::new("/nowhere/at/all".into());
        assert!(gone.look(SystemTime::now(), MAX_AGE).unwrap_err().to_string().starts_with("/nowhere/at/all: "));
        let (camera, mut folder) = Camera::new();
        (0..=MAX_FILES).for_each(|n| fs::write(camera.folder.path().join(format!("{n}.txt")), b"").unwrap());
        assert!(matches!(folder.look(camera.now, MAX_AGE), Err(FolderError::TooMany { .. })));
    }
}
