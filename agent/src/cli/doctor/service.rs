//! The socket and who listens on it.

use super::Check;
use crate::client::{Client, ClientError};
use nix::unistd::{Group, User, geteuid, getgroups};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use tether_protocol::api::{Status, Version};

const START: &str = "start it: `tether serve`, or as a service `systemctl --user start tether.socket`";

/// Also gives the daemon's own account of itself, if it can be asked.
pub(super) async fn checks(client: &Client) -> (Vec<Check>, Option<Status>) {
    let socket = socket(client.socket());
    let asked = client.get::<Version>("/version").await;
    let mut checks = vec![socket, daemon(&asked)];
    if asked.is_err() {
        return (checks, None);
    }
    checks.push(match client.ready().await {
        Ok(()) => Check::ok("ready", "answers turns"),
        Err(error) => Check::fail("ready", error.to_string(), "see the daemon's log and the other checks"),
    });
    match client.get::<Status>("/v1/status").await {
        Ok(status) => {
            let problems = status.problems.iter();
            // A problem that knows its fix says it after a semicolon.
            let told = |problem: &String| match problem.split_once("; ") {
                Some((problem, fix)) => Check::warn("daemon", problem, fix),
                None => Check::warn("daemon", problem, "see the daemon's log"),
            };
            checks.extend(problems.map(told));
            (checks, Some(status))
        }
        Err(error) => {
            checks.push(Check::fail("status", error.to_string(), "see the daemon's log"));
            (checks, None)
        }
    }
}

fn socket(path: &Path) -> Check {
    let shown = path.display();
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Check::fail("socket", format!("{shown}: its folder is closed to you"), membership(None));
        }
        Err(_) => return Check::warn("socket", format!("{shown} does not exist"), START),
    };
    if !found.file_type().is_socket() {
        let fix = "remove it, or choose another place with socket.path";
        return Check::fail("socket", format!("{shown} is not a socket"), fix);
    }
    let mode = found.permissions().mode() & 0o777;
    let group = Group::from_gid(found.gid().into()).ok().flatten().map_or(found.gid().to_string(), |group| group.name);
    let detail = format!("{shown}, mode {mode:03o}, group {group}");
    if !may_write(&found, mode) {
        return Check::fail("socket", format!("{detail}: not for you"), membership(Some(&group)));
    }
    if mode & 0o002 != 0 {
        let fix = "every user of this machine may ask: set socket.mode to \"660\" or \"600\"";
        return Check::warn("socket", detail, fix);
    }
    Check::ok("socket", detail)
}

fn may_write(found: &fs::Metadata, mode: u32) -> bool {
    let me = geteuid();
    let in_group = || getgroups().is_ok_and(|groups| groups.iter().any(|group| group.as_raw() == found.gid()));
    me.is_root()
        || (me.as_raw() == found.uid() && mode & 0o200 != 0)
        || (in_group() && mode & 0o020 != 0)
        || mode & 0o002 != 0
}

/// The fix differs for somebody who has joined the group since logging in.
fn membership(group: Option<&str>) -> String {
    let group = group.unwrap_or("tether");
    let name = User::from_uid(geteuid()).ok().flatten().map_or("$USER".to_owned(), |user| user.name);
    let joined = Group::from_name(group).ok().flatten().is_some_and(|group| group.mem.contains(&name));
    if joined {
        return format!("you are in group {group} but logged in before that: log in again, or `newgrp {group}`");
    }
    format!("join the group: `sudo usermod -aG {group} {name}`, then log in again")
}

fn daemon(asked: &Result<Version, ClientError>) -> Check {
    let own = env!("CARGO_PKG_VERSION");
    match asked {
        Ok(daemon) if daemon.version == own => Check::ok("daemon", format!("{own}, {}", daemon.protocol)),
        Ok(daemon) => {
            let detail = format!("version {}, but this program is {own}", daemon.version);
            Check::warn("daemon", detail, "restart it: `systemctl --user restart tether.service`")
        }
        Err(ClientError::NotRunning { .. }) => Check::warn("daemon", "not running", START),
        Err(ClientError::Denied { .. }) => Check::fail("daemon", "permission denied", membership(None)),
        Err(error) => Check::fail("daemon", error.to_string(), "see its log: `journalctl --user -u tether`"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_socket_is_judged_by_kind_and_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.sock");
        assert_eq!(socket(&path).level, Level::Warn);
        let _listener = UnixListener::bind(&path).unwrap();
        let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        mode(0o600);
        assert_eq!(socket(&path).level, Level::Ok);
        mode(0o666);
        assert_eq!(socket(&path).level, Level::Warn);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert_eq!(socket(&path).level, Level::Fail);
    }
}
