//! What the daemon sees around it beside battery and load: the link and what it costs, and the folders of cameras.

use super::{Daemon, Live};
use crate::config::Metered;
use crate::context::MeteredWatch;
use crate::image_codec;
use crate::views::folder::{Folder, FolderError};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use tether_protocol::context::Link;
use tether_protocol::{Reading, ViewName};

/// How often the folders of cameras are looked at.
const LOOK: Duration = Duration::from_millis(500);

impl Daemon {
    /// Whether bytes cost money, by the settings or by NetworkManager. Waits for nobody.
    pub(crate) fn metered(&self, live: &Live) -> Reading<bool> {
        match live.settings.link.metered {
            Metered::Known(metered) => Reading::known(metered, 0, "settings"),
            Metered::Auto if live.cloud().is_err() => Reading::unknown("there is no cloud"),
            Metered::Auto => self.metered.get_or_init(MeteredWatch::start).reading(),
        }
    }

    /// The link to the cloud, as far as it is known.
    pub(crate) fn link(&self, live: &Live) -> Reading<Link> {
        let link = live.cloud().map_or_else(Reading::unknown, |cloud| cloud.link());
        link.map(|link| Link { metered: self.metered(live).value().copied(), ..link })
    }

    /// Encodes the first frame of a camera, in the background, so that the sizes of its frames are known before a turn.
    pub(crate) fn measure_camera(&self, name: &str) {
        if let Some(frame) = self.views().unmeasured(name) {
            let options = self.live().settings.images;
            // A damaged picture is told to the turn that sends it.
            tokio::task::spawn_blocking(move || image_codec::prepare(&frame, &options).map(drop));
        }
    }

    /// As after a push, on a thread that may take its time.
    fn found_frame(&self, view: &ViewName, at: Instant) {
        let (newest, unmeasured) = {
            let views = self.views();
            (views.newest_frame(view.as_str()), views.unmeasured(view.as_str()))
        };
        if let (Some(sight), Some(frame)) = (self.sight(), newest) {
            sight.pushed(frame, at);
        }
        if let Some(frame) = unmeasured {
            let _ = image_codec::prepare(&frame, &self.live().settings.images);
        }
    }

    /// Starts what goes on for as long as the daemon lives.
    pub(super) fn watch_surroundings(self: &Arc<Self>) {
        if let Some(watch) = self.metered.get() {
            tokio::spawn(follow_metered(Arc::downgrade(self), watch.changes()));
        }
        let folders: Vec<_> = self.views().folders();
        if !folders.is_empty() {
            let daemon = Arc::downgrade(self);
            // A thread of its own: a folder on a share that went away hangs whoever looks at it.
            let spawned = thread::Builder::new().name("cameras".into()).spawn(move || look(&daemon, folders));
            if let Err(error) = spawned {
                self.report("camera_folder", &error.to_string());
            }
        }
        #[cfg(feature = "v4l2")]
        for (view, path) in self.views().devices() {
            let daemon = Arc::downgrade(self);
            // A thread each: a camera's driver waits for its next picture.
            let spawned = thread::Builder::new().name("camera".into()).spawn(move || film(&daemon, &view, &path));
            if let Err(error) = spawned {
                self.report("camera_device", &error.to_string());
            }
        }
    }
}

async fn follow_metered(daemon: Weak<Daemon>, mut changes: tokio::sync::watch::Receiver<Option<bool>>) {
    // The sender goes with the daemon.
    while changes.changed().await.is_ok() {
        let Some(daemon) = daemon.upgrade() else { return };
        daemon.allow_probes();
    }
}

/// Takes the newest pictures from the folders, until the daemon is gone.
fn look(daemon: &Weak<Daemon>, folders: Vec<(ViewName, std::path::PathBuf, Duration)>) {
    let mut folders: Vec<_> =
        folders.into_iter().map(|(view, path, max_age)| (view, Folder::new(path), max_age)).collect();
    let mut problems: BTreeMap<ViewName, FolderError> = BTreeMap::new();
    loop {
        for (view, folder, max_age) in &mut folders {
            // Without holding the daemon: this may hang.
            let looked = folder.look(SystemTime::now(), *max_age);
            let Some(daemon) = daemon.upgrade() else { return };
            match looked {
                Ok(found) => {
                    problems.remove(view);
                    let Some(found) = found else { continue };
                    let at = Instant::now().checked_sub(found.age).unwrap_or_else(Instant::now);
                    let pushed = daemon.views().push_frame(view.as_str(), found.bytes, at);
                    match pushed {
                        Ok(_) => daemon.found_frame(view, at),
                        Err(error) => tracing::warn!(%error, "a picture in a camera's folder is left out"),
                    }
                }
                Err(error) if problems.get(view) != Some(&error) => {
                    tracing::warn!(%view, %error, "no pictures from a camera's folder");
                    problems.insert(view.clone(), error);
                }
                Err(_) => {}
            }
            let told: Vec<String> = problems.iter().map(|(view, error)| format!("view {view}: {error}")).collect();
            daemon.set_problem("camera_folder", told.join("; "));
        }
        thread::sleep(LOOK);
    }
}

/// Takes pictures from a camera's device, until the daemon is gone; a camera that fails is opened again.
#[cfg(feature = "v4l2")]
fn film(daemon: &Weak<Daemon>, view: &ViewName, path: &std::path::Path) {
    use crate::views::device::Video;
    let key = format!("camera_device.{view}");
    loop {
        let filmed = Video::open(path).and_then(|mut video| {
            let mut last: Option<Instant> = None;
            loop {
                // Every picture is taken from the driver, so that the newest is next; few of them are kept.
                let (picture, at) = (video.next()?, Instant::now());
                if last.is_some_and(|last| at - last < LOOK) {
                    continue;
                }
                last = Some(at);
                let Some(daemon) = daemon.upgrade() else { return Ok(()) };
                let pushed = daemon.views().push_frame(view.as_str(), picture, at);
                match pushed {
                    Ok(_) => daemon.found_frame(view, at),
                    Err(error) => tracing::warn!(%error, "a camera's picture is left out"),
                }
                daemon.set_problem(key.clone(), String::new());
            }
        });
        let Some(daemon) = daemon.upgrade() else { return };
        match filmed {
            Ok(()) => return,
            Err(error) => daemon.set_problem(key.clone(), format!("view {view}: {}: {error}", path.display())),
        }
        drop(daemon);
        thread::sleep(Duration::from_secs(5));
    }
}
