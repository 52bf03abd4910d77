//! `[state]`: where what was learned is kept. A key of another kind is refused.

use super::super::form::{StateForm, StateKindForm};
use super::super::resolve::{Wrong, name};
use super::super::zoo::key_from_file;
use super::super::{RedisSettings, StateSettings};
use redis::IntoConnectionInfo;
use std::path::Path;

const DEFAULT_FOLDER: &str = "mess-state";
const DEFAULT_SHARED_FOLDER: &str = "mess-shared";
const DEFAULT_NAME: &str = "gateways";

pub(super) fn resolve(form: StateForm, folder: &Path) -> Result<StateSettings, Wrong> {
    use StateKindForm::{File, Files, Memory, Redis};
    let given = [
        ("path", form.path.is_some(), [File, Files].as_slice(), "only kind = \"file\" or \"files\" keeps files"),
        ("url", form.url.is_some(), &[Redis], "only kind = \"redis\" has a server"),
        ("username", form.username.is_some(), &[Redis], "only kind = \"redis\" has a server"),
        ("password_file", form.password_file.is_some(), &[Redis], "only kind = \"redis\" has a server"),
        ("name", form.name.is_some(), &[Redis], "only kind = \"redis\" has names"),
    ];
    if let Some((key, _, _, problem)) = given.iter().find(|(_, given, kinds, _)| *given && !kinds.contains(&form.kind))
    {
        return Err((format!("state.{key}"), format!("{problem}; remove it")));
    }
    let path = |path: Option<std::path::PathBuf>, default: &str| folder.join(path.unwrap_or_else(|| default.into()));
    Ok(match form.kind {
        Memory => StateSettings::Memory,
        File => StateSettings::File(path(form.path, DEFAULT_FOLDER)),
        Files => StateSettings::Files(path(form.path, DEFAULT_SHARED_FOLDER)),
        Redis => StateSettings::Redis(server(form, folder)?),
    })
}

fn server(form: StateForm, folder: &Path) -> Result<RedisSettings, Wrong> {
    let wrong = |key: &str, problem: String| (format!("state.{key}"), problem);
    let url = form
        .url
        .ok_or_else(|| wrong("url", "kind = \"redis\" needs it, such as \"redis://127.0.0.1:6379/0\"".into()))?;
    // Not repeated: what stands there may hold a password.
    let info = url.as_str().into_connection_info().map_err(|_| {
        wrong("url", "must be redis://HOST:PORT/DATABASE or unix:///PATH; TLS is not built in, use a tunnel".into())
    })?;
    if !info.addr().is_supported() {
        return Err(wrong("url", "TLS is not built in: use redis:// inside a tunnel".into()));
    }
    if info.redis_settings().password().is_some() || info.redis_settings().username().is_some() {
        return Err(wrong(
            "url",
            "must not hold a user or a password; they belong in username and password_file".into(),
        ));
    }
    let password = form.password_file.map(|file| key_from_file(&folder.join(file))).transpose();
    Ok(RedisSettings {
        url,
        username: form.username,
        password: password.map_err(|problem| wrong("password_file", problem))?,
        name: name("state.name", form.name.unwrap_or_else(|| DEFAULT_NAME.to_owned()))?,
    })
}
